"""The autoencoder of a small latent diffusion of scenes [Rombach22]: 32 x 32 pixels to 8 x 8 latents of 4 numbers.

    flaxgen train experiments/latent_scenes/vae.py --workdir runs/latent/vae
    flaxgen reconstruct runs/latent/vae --num 512 --out out.png

Not trained by us yet.
"""

from flaxgen.data import Data
from flaxgen.nets.autoencoder import Autoencoder
from flaxgen.train.optim import Optimizer
from flaxgen.zoo.autoencoder import Config, Gaussian, Reconstruction


def get_config() -> Config:
    return Config(
        seed=0,
        steps=6000,
        batch_size=32,
        data=Data(source="scenes", image_size=32, size=2**16),
        net=Autoencoder(image_size=32, channels=32, multipliers=(1, 2, 4), depth=1, middle="resblocks", norm_groups=16),
        bottleneck=Gaussian(beta=1e-5),
        reconstruction=Reconstruction(loss="absolute"),
        optimizer=Optimizer(learning_rate=1e-3, warmup=100, decay="cosine"),
    )
