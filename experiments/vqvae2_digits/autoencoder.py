"""A VQ-VAE-2 [Razavi19] of scikit-learn's digits, 8 x 8 pixels: 2 x 2 codes of 32, and 4 x 4 of 64 given these.

flaxgen train experiments/vqvae2_digits/autoencoder.py --workdir runs/vqvae2/autoencoder
flaxgen reconstruct runs/vqvae2/autoencoder --num 797 --out codes.npz
"""

from flaxgen.data import Data
from flaxgen.nets.vqvae2 import VqVae2
from flaxgen.train.optim import Optimizer
from flaxgen.zoo.autoencoder import Codebook, Config, Levels


def get_config() -> Config:
    return Config(
        seed=0,
        steps=3000,
        batch_size=64,
        data=Data(source="digits", image_size=8, channels=1),
        net=VqVae2(
            image_size=8, in_channels=1, factor=2, top_factor=4, channels=64, residual_channels=32, latent_channels=16
        ),
        bottleneck=Levels(Codebook(codes=32), Codebook(codes=64)),
        optimizer=Optimizer(learning_rate=1e-3, decay="cosine"),
    )
