"""DDPM on CIFAR-10 for two CPU cores: 2 x 2 patches in front of few, wide levels.

    flaxgen train experiments/ddpm_cifar10_small.py --workdir runs/cifar10_small --set data.path=CIFAR_SHARDS

Started by us, not trained to the end.
"""

from flaxgen.data import Data
from flaxgen.family.process import Process
from flaxgen.family.sampling import Sampling
from flaxgen.nets.attention import SelfAttention
from flaxgen.nets.unet import UNet
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.zoo.diffusion import Config


def get_config() -> Config:
    return Config(
        seed=0,
        steps=20_000,
        batch_size=32,
        log_every=100,
        preview_every=2_000,
        checkpoint_every=1_000,
        data=Data(source="webdataset", image_size=32, flip=True, threads=2),
        net=UNet(
            image_size=32,
            patch=2,
            channels=128,
            multipliers=(1, 2),
            depth=1,
            attention=(None, SelfAttention(head_channels=64)),
            middle=SelfAttention(head_channels=64),
        ),
        process=Process(schedule="cosine", timesteps=1000),
        optimizer=Optimizer(learning_rate=5e-4, warmup=500, decay="cosine"),
        ema=Ema(decay=0.999),
        sampling=Sampling(sampler="dpmpp_2m", steps=25),
    )
