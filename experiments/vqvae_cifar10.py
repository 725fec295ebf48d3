"""The VQ-VAE of CIFAR-10 at the settings of its authors' example [vdOord17]: 8 x 8 codes of 512.

Their example reports a squared error of 0.056 in units of the data's variance, 0.25 (0.0633 of pixels in [0, 1]), and a
perplexity of 327.

    flaxgen train experiments/vqvae_cifar10.py --workdir runs/vqvae --set data.path='SHARDS/*.tar'
    flaxgen reconstruct runs/vqvae --num 10000 --out codes.npz
"""

from flaxgen.data import Data
from flaxgen.nets.vqvae import VqVae
from flaxgen.train.optim import Optimizer
from flaxgen.zoo.autoencoder import Codebook, Config, Reconstruction


def get_config() -> Config:
    return Config(
        seed=0,
        steps=10_000,
        batch_size=32,
        data=Data(source="webdataset", image_size=32),
        net=VqVae(),
        bottleneck=Codebook(codes=512),
        reconstruction=Reconstruction(variance=0.2532),
        optimizer=Optimizer(learning_rate=3e-4, clip=0.0),
    )
