"""A small VQGAN [Esser21] of drawn scenes, 32 x 32 pixels, 8 x 8 codes of 256, for two cores.

    flaxgen train experiments/vqgan_scenes.py --workdir runs/vqgan_scenes
    flaxgen reconstruct runs/vqgan_scenes --num 512 --out drawn.npz

The game begins after 1,000 steps. With the CLIP of experiments/unclip_scenes/clip.py it looks through that too:
`--set perceptual.net=clip:runs/clip`.
"""

from flaxgen.data import Data
from flaxgen.nets.autoencoder import Autoencoder
from flaxgen.train.optim import Optimizer
from flaxgen.zoo.autoencoder import Adversary, Codebook, Config, Reconstruction


def get_config() -> Config:
    return Config(
        seed=0,
        steps=4000,
        batch_size=32,
        data=Data(source="scenes", image_size=32, size=2**16),
        net=Autoencoder(
            image_size=32,
            channels=32,
            multipliers=(1, 2, 4),
            depth=1,
            middle="resblocks",
            latent_channels=64,
            moments=False,
            norm_groups=16,
        ),
        bottleneck=Codebook(codes=256),
        reconstruction=Reconstruction(loss="absolute"),
        adversary=Adversary(
            "patches",
            width=32,
            depth=2,
            start=1000,
            optimizer=Optimizer(learning_rate=3e-4, beta1=0.5, beta2=0.9, clip=0.0),
        ),
        optimizer=Optimizer(learning_rate=1e-3, beta1=0.5, beta2=0.9, decay="cosine"),
    )
