"""Improved DDPM on CIFAR-10: cosine table of 4000 steps, learned variance, hybrid loss [Nichol21, app. A].

    flaxgen train experiments/iddpm_cifar10.py --workdir runs/iddpm --set data.path=CIFAR_SHARDS

Published: FID 2.90; 2.94 bits/dim when trained on the variational bound instead. Not trained to the end by us.
"""

from flaxgen.data import Data
from flaxgen.family.denoising import Objective
from flaxgen.family.process import Process
from flaxgen.family.sampling import Sampling
from flaxgen.nets.attention import SelfAttention
from flaxgen.nets.unet import UNet
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.zoo.diffusion import Config


def get_config() -> Config:
    return Config(
        seed=0,
        steps=500_000,
        batch_size=128,
        log_every=100,
        preview_every=10_000,
        checkpoint_every=10_000,
        data=Data(source="webdataset", image_size=32, flip=True),
        net=UNet(
            image_size=32,
            channels=128,
            multipliers=(1, 2, 2, 2),
            depth=3,
            attention=(None, SelfAttention(heads=4), SelfAttention(heads=4), None),
            middle=SelfAttention(heads=4),
            dropout=0.3,
            learned_variance=True,
            scale_shift=True,
            time_order="cos_sin",
            time_shift=0,
            norm_eps=1e-5,
        ),
        process=Process(schedule="cosine", timesteps=4000),
        objective=Objective(loss="hybrid"),
        optimizer=Optimizer(name="adam", learning_rate=1e-4, clip=0.0),
        ema=Ema(decay=0.9999, ramp=False),
        sampling=Sampling(sampler="ddpm", steps=250, grid="linspace", variance="learned"),
    )
