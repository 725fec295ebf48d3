"""The upsampler of DALL-E 2 from 64 to 256 px [Ramesh22, table 3].

    flaxgen train experiments/unclip/upsampler_256.py --workdir runs/upsampler_256 --parallel mesh \
        --mesh data=16,fsdp=4 --set data.path='SHARDS/*.tar'

Meant for 64 TPU v4 or A100; not run here. It is trained on crops of a quarter of the size, from small pictures blurred
with sigma 0.6, and drawn from at the whole size at once. What the net's learned variance would add, DDIM does not read:
it has none.
"""

from flaxgen.data import Data
from flaxgen.family.process import Process
from flaxgen.family.sampling import Sampling
from flaxgen.nets.unet import UNet
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.zoo.upsampler import Config

PUBLISHED = 700_000_000
"""Parameters [Ramesh22, table 3]."""


def get_config() -> Config:
    return Config(
        seed=0,
        steps=1_000_000,
        batch_size=1024,
        log_every=100,
        preview_every=0,
        checkpoint_every=5_000,
        data=Data(source="webdataset", resize=256, image_size=64, random_crop=True),
        net=UNet(
            image_size=64,
            channels=320,
            multipliers=(1, 2, 3, 4),
            depth=3,
            attention=(),
            middle="resblocks",
            dropout=0.1,
            low_res=True,
            scale_shift=True,
            resample="resnet",
            time_order="cos_sin",
            time_shift=0,
            norm_eps=1e-5,
            dtype="bfloat16",
            remat=True,
        ),
        factor=4,
        degrade="blur",
        process=Process(schedule="cosine", timesteps=1000),
        optimizer=Optimizer(name="adamw", learning_rate=1.2e-4, weight_decay=0.0, clip=0.0),
        ema=Ema(decay=0.9999),
        tile=256,
        sampling=Sampling(sampler="ddim", steps=27, batch=16),
    )
