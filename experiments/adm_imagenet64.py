"""ADM on ImageNet 64 x 64, class-conditional, with labels dropped for classifier-free guidance [Dhariwal21, table 11].

    flaxgen train experiments/adm_imagenet64.py --workdir runs/imagenet64 --parallel mesh --mesh data=32,fsdp=8 \
        --set data.path=IMAGENET_FOLDER_BY_CLASS

The 1001st row of the label table is "no label". Not trained by us.
"""

from flaxgen.data import Data
from flaxgen.family.denoising import Objective
from flaxgen.family.process import Process
from flaxgen.family.sampling import Sampling
from flaxgen.nets.attention import SelfAttention
from flaxgen.nets.unet import UNet
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.zoo.diffusion import Config

PUBLISHED = 296_000_000
"""Parameters [Dhariwal21, table 4]."""


def get_config() -> Config:
    return Config(
        seed=0,
        steps=540_000,
        batch_size=2048,
        log_every=100,
        preview_every=10_000,
        checkpoint_every=5_000,
        data=Data(source="folder", image_size=64, flip=True),
        net=UNet(
            image_size=64,
            channels=192,
            multipliers=(1, 2, 3, 4),
            depth=3,
            attention=(None, *3 * [SelfAttention(head_channels=64)]),
            middle=SelfAttention(head_channels=64),
            dropout=0.1,
            num_classes=1001,
            learned_variance=True,
            scale_shift=True,
            resample="resnet",
            time_order="cos_sin",
            time_shift=0,
            norm_eps=1e-5,
            dtype="bfloat16",
            remat=True,
        ),
        process=Process(schedule="cosine", timesteps=1000),
        objective=Objective(loss="hybrid", condition_dropout=0.1),
        optimizer=Optimizer(name="adamw", learning_rate=1e-4, weight_decay=0.0, clip=0.0),
        ema=Ema(decay=0.9999, ramp=False),
        sampling=Sampling(sampler="ddpm", steps=250, grid="linspace", variance="learned", guidance=1.5),
    )
