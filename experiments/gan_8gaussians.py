"""Eight Gaussians on a circle: whether a game covers all of its modes. `diversity` in the log falls where it does not.

    flaxgen train experiments/gan_8gaussians.py --workdir runs/8gaussians

The non-saturating game with R1: in 2,000 steps 20,000 draws cover 8 of 8 modes, 93.3% of them within three
deviations of one, and 95.7% of 4,000 after 3,549 of 10,000 steps. WGAN-GP, 8 and 91.5% in 2,000 steps, is `--set
loss=wasserstein regularizers.r1=0 regularizers.lines=0.1 d_steps=5 batch_size=2560`. docs/gan.md has all losses.
"""

from flaxgen.data import Data
from flaxgen.nets.gan_mlp import Discriminator, Generator
from flaxgen.train.optim import Optimizer
from flaxgen.zoo.gan import Config, HalfLife, Regularizers, Sampling


def get_config() -> Config:
    adam = Optimizer(learning_rate=1e-3, beta1=0.0, beta2=0.99, clip=0.0, decay="linear")
    return Config(
        seed=0,
        steps=10_000,
        batch_size=512,
        log_every=250,
        preview_every=2_500,
        checkpoint_every=2_500,
        data=Data(source="eight_gaussians", threads=2),
        generator=Generator(shape=(2,), latent_dim=4, width=128, depth=3),
        discriminator=Discriminator(shape=(2,), width=128, depth=3),
        generator_optimizer=adam,
        discriminator_optimizer=adam,
        regularizers=Regularizers(r1=0.1),
        average=HalfLife(images=50_000),
        sampling=Sampling(batch=2048),
    )
