"""DDPM on CIFAR-10 as published: 35.7M parameters, 800k steps [Ho20, app. B; FID 3.17 there].

    flaxgen train experiments/ddpm_cifar10.py --workdir runs/cifar10 --set data.path=CIFAR_SHARDS

`data.path` is a folder of WebDataset shards; a TFDS copy is `data.source=tfds data.name=cifar10 data.path=TFDS_DIR`.
Not trained to the end by us.
"""

from flaxgen.data import Data
from flaxgen.family.process import Process
from flaxgen.family.sampling import Sampling
from flaxgen.nets.attention import SelfAttention
from flaxgen.nets.unet import UNet
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.zoo.diffusion import Config

PUBLISHED = 35_746_307
"""Parameters, counted from the paper's code and from diffusers' net of that shape; the paper says 35.7M."""


def get_config() -> Config:
    return Config(
        seed=0,
        steps=800_000,
        batch_size=128,
        log_every=100,
        preview_every=10_000,
        checkpoint_every=10_000,
        data=Data(source="webdataset", image_size=32, flip=True),
        net=UNet(
            image_size=32,
            channels=128,
            multipliers=(1, 2, 2, 2),
            depth=2,
            attention=(None, SelfAttention(), None, None),
            dropout=0.1,
            time_order="sin_cos",
            time_shift=1,
            norm_eps=1e-6,
        ),
        process=Process(schedule="linear", timesteps=1000, beta_start=1e-4, beta_end=0.02),
        optimizer=Optimizer(name="adam", learning_rate=2e-4, warmup=5000, clip=1.0),
        ema=Ema(decay=0.9999),
        sampling=Sampling(sampler="ddpm", steps=1000, variance="large"),
    )
