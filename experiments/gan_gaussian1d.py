"""The game of 2014 on a line: one Gaussian, two perceptrons, a discriminator that ends at 1/2 [Goodfellow14, fig. 1].

    flaxgen train experiments/gan_gaussian1d.py --workdir runs/gaussian1d

`--set d_steps=5 batch_size=2560` gives the discriminator five steps to the generator's one. Half a minute on two cores:
200,000 draws of the average have mean 0.247 and std 0.252, the data 0.25 and 0.25; D is 0.013 from its optimum
p_data / (p_data + p_g) on average over both, and 0.48 to 0.50 over the middle 95% of the data. With five steps: 0.250,
0.249, 0.008, and 0.50. docs/gan.md has the picture. Beside a discriminator that learns as slowly as the generator, that
stalls at std 0.30.
"""

from flaxgen.data import Data
from flaxgen.nets.gan_mlp import Discriminator, Generator
from flaxgen.train.optim import Optimizer
from flaxgen.zoo.gan import Config, HalfLife, Sampling


def get_config() -> Config:
    return Config(
        seed=0,
        steps=8_000,
        batch_size=512,
        log_every=100,
        preview_every=1_000,
        checkpoint_every=500,
        keep_checkpoints=20,
        data=Data(source="gaussian1d", threads=2),
        generator=Generator(shape=(1,), latent_dim=1, width=32, depth=2),
        discriminator=Discriminator(shape=(1,), width=64, depth=2),
        generator_optimizer=Optimizer(learning_rate=2e-4, beta1=0.5, beta2=0.99, clip=0.0, decay="linear"),
        discriminator_optimizer=Optimizer(learning_rate=2e-3, beta1=0.5, beta2=0.99, clip=0.0),
        average=HalfLife(images=50_000),
        sampling=Sampling(batch=4096),
    )
