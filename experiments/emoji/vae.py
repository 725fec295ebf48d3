"""The autoencoder of the latent diffusion of emoji [Rombach22]: 128 x 128 pixels to 16 x 16 latents of 8 numbers.

    flaxgen train experiments/emoji/vae.py --workdir runs/emoji/vae --set data.path=EMOJI
    flaxgen reconstruct runs/emoji/vae --num 64 --out out.png

EMOJI is a folder of Noto's emoji, `1f431.png` and so on. It learns from windows of 64 pixels of the pictures.
"""

from flaxgen.data import Data
from flaxgen.nets.autoencoder import Autoencoder
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.zoo.autoencoder import Config, Gaussian, Reconstruction


def get_config() -> Config:
    return Config(
        seed=0,
        steps=6000,
        batch_size=16,
        data=Data(source="emoji", resize=128, image_size=64, random_crop=True, size=2**17, threads=2),
        net=Autoencoder(
            image_size=64,
            channels=16,
            multipliers=(1, 2, 4, 8),
            depth=1,
            middle="resblocks",
            latent_channels=8,
            norm_groups=8,
        ),
        bottleneck=Gaussian(beta=1e-6),
        reconstruction=Reconstruction(loss="absolute"),
        optimizer=Optimizer(learning_rate=1e-3, warmup=200, decay="cosine"),
        ema=Ema(decay=0.998),
        log_every=100,
        preview_every=0,
        checkpoint_every=1000,
    )
