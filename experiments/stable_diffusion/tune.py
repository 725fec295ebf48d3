"""All weights of Stable Diffusion 1.5 tuned on captioned pictures, at the settings of diffusers' text-to-image script.

    flaxgen import stable-diffusion-v1-5/stable-diffusion-v1-5 models/sd
    flaxgen train experiments/stable_diffusion/tune.py --workdir runs/tuned --set data.path=PICTURES \
        start=models/sd/denoiser autoencoder=models/sd/autoencoder clip=models/sd/clip
    flaxgen compose models/tuned denoiser=runs/tuned autoencoder=models/sd/autoencoder clip=models/sd/clip

15,000 steps of 4 pictures at a learning rate of 1e-5, as their example on captioned Pokémon; captions are never hidden.
The state, of weights, their average and two moments in float32, takes 14 GB. Not trained by us.
"""

from flaxgen.data import Data
from flaxgen.family.denoising import Objective
from flaxgen.nets.attention import SpatialTransformer
from flaxgen.nets.unet import UNet
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.zoo.latent import Config

READS = SpatialTransformer(heads=8)


def get_config() -> Config:
    return Config(
        seed=0,
        steps=15_000,
        batch_size=4,
        accumulate=4,
        data=Data(source="folder", image_size=512),
        net=UNet(
            image_size=64,
            in_channels=4,
            out_channels=4,
            channels=320,
            multipliers=(1, 2, 4, 4),
            depth=2,
            attention=(READS, READS, READS, None),
            middle=READS,
            token_dim=768,
            downsample_padding=(1, 1),
            time_order="cos_sin",
            time_shift=0,
            norm_eps=1e-5,
            dtype="bfloat16",
            remat=True,
        ),
        objective=Objective(),
        optimizer=Optimizer(name="adamw", learning_rate=1e-5, weight_decay=1e-2),
        ema=Ema(decay=0.9999),
    )
