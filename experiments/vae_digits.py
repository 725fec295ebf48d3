"""A variational autoencoder [Kingma14] of scikit-learn's digits, 8 x 8 pixels: 16 numbers a picture.

flaxgen train experiments/vae_digits.py --workdir runs/vae
flaxgen reconstruct runs/vae --num 797 --bound 64 --out vae.npz

Two cores of a CPU, under a minute: 1.94 bits a pixel with 64 draws a picture, 2.04 with one; its samples have
precision 0.81 and recall 0.42 (docs/codes.md has the commands).
"""

from flaxgen.data import Data
from flaxgen.nets.dense_autoencoder import DenseAutoencoder
from flaxgen.train.optim import Optimizer
from flaxgen.zoo.autoencoder import Config, Gaussian, Reconstruction


def get_config() -> Config:
    return Config(
        seed=0,
        steps=3000,
        batch_size=64,
        data=Data(source="digits", image_size=8, channels=1),
        net=DenseAutoencoder(image_size=8, in_channels=1, out_channels=2, latent_channels=16, moments=True),
        bottleneck=Gaussian(),
        reconstruction=Reconstruction(loss="logistic", levels=17),
        optimizer=Optimizer(learning_rate=1e-3, decay="cosine"),
    )
