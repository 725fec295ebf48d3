"""A VQ-VAE [vdOord17] of scikit-learn's digits, 8 x 8 pixels: 4 x 4 codes of 64.

flaxgen train experiments/vqvae_digits.py --workdir runs/vqvae
flaxgen reconstruct runs/vqvae --num 797 --out codes.npz

Two cores of a CPU, a minute and a half beside other work: 24.9 dB, perplexity 54, all codes used; with
bottleneck.restart=0 24.5 dB, perplexity 40 and three quarters of them.
"""

from flaxgen.data import Data
from flaxgen.nets.vqvae import VqVae
from flaxgen.train.optim import Optimizer
from flaxgen.zoo.autoencoder import Codebook, Config


def get_config() -> Config:
    return Config(
        seed=0,
        steps=3000,
        batch_size=64,
        data=Data(source="digits", image_size=8, channels=1),
        net=VqVae(image_size=8, in_channels=1, factor=2, channels=64, residual_channels=32, latent_channels=16),
        bottleneck=Codebook(codes=64),
        optimizer=Optimizer(learning_rate=1e-3, decay="cosine"),
    )
