"""The VQ-VAE-2's autoencoder on ImageNet at 256 x 256 pixels: 32 x 32 and 64 x 64 codes of 512 [Razavi19, app. A].

    flaxgen train experiments/vqvae2_imagenet256/autoencoder.py --workdir runs/vqvae2/autoencoder \
        --parallel mesh --mesh data=8,fsdp=1 --set data.path=IMAGENET_SHARDS

Codes follow averages with a decay of 0.99, and vectors are drawn to them by 0.25; the loss is of pixels alone. Dead
codes begin again, unlike the paper's: `--set bottleneck.top.restart=0 --set bottleneck.bottom.restart=0` leaves them.
Widths and batch are the paper's table from memory; steps are ours. Not trained by us.
"""

from flaxgen.data import Data
from flaxgen.nets.vqvae2 import VqVae2
from flaxgen.train.optim import Optimizer
from flaxgen.zoo.autoencoder import Codebook, Config, Levels


def get_config() -> Config:
    return Config(
        seed=0,
        steps=250_000,
        batch_size=128,
        preview_every=10_000,
        checkpoint_every=10_000,
        data=Data(source="webdataset", image_size=256),
        net=VqVae2(
            image_size=256, factor=4, top_factor=8, channels=128, residual_channels=64, depth=2, latent_channels=64
        ),
        bottleneck=Levels(Codebook(codes=512, decay=0.99), Codebook(codes=512, decay=0.99)),
        optimizer=Optimizer(learning_rate=3e-4),
        batch=16,
    )
