"""StyleGAN2-ADA on 1,365 emoji at 32 pixels, for two CPU cores: NVlabs' `auto` rules with an eighth of the channels.

    flaxgen train experiments/stylegan2_emoji.py --workdir runs/emoji --set data.path=EMOJI_FOLDER

The pictures are noto-emoji's; any folder of them will do. 15 steps a second on two cores with nothing else to do. After
12,951 steps: colours and outlines of emoji, precision 0.484, recall 0.030 (docs/gan.md shows them).
"""

from flaxgen.data import Data
from flaxgen.nets.stylegan2 import Generator
from flaxgen.nets.stylegan2_discriminator import Discriminator
from flaxgen.train.optim import Optimizer
from flaxgen.zoo.gan import Augmentation, Config, HalfLife, Regularizers

SIZE, BATCH, WIDTH = 32, 16, 64


def get_config() -> Config:
    adam = Optimizer(learning_rate=2.5e-3, beta1=0.0, beta2=0.99, clip=0.0)
    return Config(
        seed=0,
        steps=30_000,
        batch_size=BATCH,
        log_every=250,
        preview_every=2_000,
        checkpoint_every=2_000,
        data=Data(source="folder", image_size=SIZE, threads=2),
        generator=Generator(
            image_size=SIZE,
            latent_dim=WIDTH,
            style_dim=WIDTH,
            mapping_depth=2,
            channel_base=32 * SIZE,
            channel_max=WIDTH,
        ),
        discriminator=Discriminator(image_size=SIZE, channel_base=32 * SIZE, channel_max=WIDTH, group=4),
        style_mixing=0.9,
        generator_optimizer=adam,
        discriminator_optimizer=adam,
        regularizers=Regularizers(r1=0.0002 * SIZE**2 / BATCH, interval=16, path_length=2.0),
        average=HalfLife(images=10_000 * BATCH // 32, ramp=0.05),
        augmentation=Augmentation(pipe="bgc"),
    )
