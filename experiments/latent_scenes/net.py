"""A small latent diffusion of drawn scenes [Rombach22]: a UNet on 8 x 8 latents that reads captions by cross-attention.

    flaxgen train experiments/latent_scenes/net.py --workdir runs/latent/net \
        --set autoencoder=runs/latent/vae clip=flaxgen/models/scenes/clip
    flaxgen compose models/latent denoiser=runs/latent/net autoencoder=runs/latent/vae clip=flaxgen/models/scenes/clip
    flaxgen draw "a red circle above a blue square" --model models/latent --num 4 --out out.png

The text encoder is the CLIP of the model that comes along. Not trained by us yet.
"""

from flaxgen.data import Data
from flaxgen.family.denoising import Objective
from flaxgen.family.process import Process
from flaxgen.family.sampling import Sampling
from flaxgen.nets.attention import SpatialTransformer
from flaxgen.nets.unet import UNet
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.zoo.latent import Config, Text

READS = SpatialTransformer(heads=4, norm_groups=16)


def get_config() -> Config:
    return Config(
        seed=0,
        steps=20_000,
        batch_size=64,
        data=Data(source="scenes", image_size=32, size=2**16),
        net=UNet(
            image_size=8,
            in_channels=4,
            out_channels=4,
            channels=96,
            multipliers=(1, 2),
            depth=1,
            attention=(READS, READS),
            middle=READS,
            norm_groups=16,
            token_dim=128,
        ),
        context=24,
        text=Text(masked=True),
        process=Process(schedule="cosine", prediction="v"),
        objective=Objective(condition_dropout=0.1),
        sampling=Sampling(steps=25, guidance=3.0, threshold="none", batch=16),
        ema=Ema(decay=0.999),
        optimizer=Optimizer(name="adamw", learning_rate=1e-3, warmup=200, decay="cosine"),
    )
