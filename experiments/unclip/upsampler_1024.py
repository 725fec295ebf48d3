"""The upsampler of DALL-E 2 from 256 to 1024 px [Ramesh22, table 3].

    flaxgen train experiments/unclip/upsampler_1024.py --workdir runs/upsampler_1024 --parallel mesh \
        --mesh data=16,fsdp=4 --set data.path='SHARDS/*.tar'

Meant for 64 TPU v4 or A100; not run here. It is trained on crops of 256 px of pictures of 1024 px, from small pictures
degraded by blur, resizing, noise and JPEG, and drawn from at the whole size at once; where that does not fit, a smaller
`tile` does.
"""

from flaxgen.data import Data
from flaxgen.family.process import Process
from flaxgen.family.sampling import Sampling
from flaxgen.nets.unet import UNet
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.zoo.upsampler import Config

PUBLISHED = 300_000_000
"""Parameters [Ramesh22, table 3]."""


def get_config() -> Config:
    return Config(
        seed=0,
        steps=1_000_000,
        batch_size=512,
        log_every=100,
        preview_every=0,
        checkpoint_every=5_000,
        data=Data(source="webdataset", resize=1024, image_size=256, random_crop=True),
        net=UNet(
            image_size=256,
            channels=192,
            multipliers=(1, 1, 2, 2, 4, 4),
            depth=2,
            attention=(),
            middle="resblocks",
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
        degrade="bsr",
        process=Process(schedule="linear", timesteps=1000),
        optimizer=Optimizer(name="adamw", learning_rate=1e-4, weight_decay=0.0, clip=0.0),
        ema=Ema(decay=0.9999),
        tile=1024,
        overlap=128,
        sampling=Sampling(sampler="ddim", steps=15, batch=4),
    )
