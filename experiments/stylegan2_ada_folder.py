"""StyleGAN2-ADA on a folder of pictures, some hundred or more: NVlabs' `auto` config of one GPU at 256 px [Karras20b].

    flaxgen train experiments/stylegan2_ada_folder.py --workdir runs/pictures --set data.path=FOLDER

`--set size=64` sets data and nets. Their rules for another size R and batch B: regularizers.r1 = 0.0002 R^2 / B,
average.images = 312.5 B, group at most 4; below 512 px channel_base 16384, else 32768; learning rates 0.0025, from
1024 px on 0.002. Good pictures come after 1M to 5M images; stop when they no longer get better. Not trained to the end
by us.
"""

from flaxgen.data import Data
from flaxgen.nets.stylegan2 import Generator
from flaxgen.nets.stylegan2_discriminator import Discriminator
from flaxgen.train.optim import Optimizer
from flaxgen.zoo.gan import Augmentation, Config, HalfLife, Regularizers

SIZE, BATCH = 256, 16


def get_config() -> Config:
    adam = Optimizer(learning_rate=2.5e-3, beta1=0.0, beta2=0.99, clip=0.0)
    return Config(
        seed=0,
        steps=25_000_000 // BATCH,
        batch_size=BATCH,
        log_every=100,
        preview_every=2_500,
        checkpoint_every=2_500,
        data=Data(source="folder", image_size=SIZE),
        generator=Generator(image_size=SIZE, mapping_depth=2, channel_base=16384),
        discriminator=Discriminator(image_size=SIZE, channel_base=16384, group=4),
        style_mixing=0.9,
        generator_optimizer=adam,
        discriminator_optimizer=adam,
        regularizers=Regularizers(r1=0.0002 * SIZE**2 / BATCH, interval=16, path_length=2.0),
        average=HalfLife(images=10_000 * BATCH // 32, ramp=0.05),
        augmentation=Augmentation(pipe="bgc"),
    )
