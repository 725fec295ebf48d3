"""DCGAN on handwritten digits at 16 pixels, told which digit to draw [Radford16], for two CPU cores.

    flaxgen train experiments/dcgan_digits.py --workdir runs/dcgan_digits

Its discriminator is spectrally normalised [Miyato18] and has no norm of batches. Not yet trained to the end by us.
"""

from flaxgen.data import Data
from flaxgen.nets.dcgan import Discriminator, Generator
from flaxgen.train.optim import Optimizer
from flaxgen.zoo.gan import Config, HalfLife


def get_config() -> Config:
    adam = Optimizer(learning_rate=2e-4, beta1=0.5, beta2=0.999, clip=0.0)
    return Config(
        seed=0,
        steps=6_000,
        batch_size=64,
        log_every=100,
        preview_every=1_000,
        checkpoint_every=1_000,
        data=Data(source="digits", image_size=16, channels=1, threads=2),
        generator=Generator(image_size=16, channels=1, latent_dim=64, num_classes=10, width=32),
        discriminator=Discriminator(image_size=16, channels=1, num_classes=10, width=32, norm="none", spectral=True),
        loss="hinge",
        generator_optimizer=adam,
        discriminator_optimizer=adam,
        average=HalfLife(images=20_000),
    )
