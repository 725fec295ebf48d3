"""StyleGAN2 on faces of 1024 pixels: NVlabs' `stylegan2` config, which is config F of [Karras20].

    flaxgen train experiments/stylegan2_ffhq1024.py --workdir runs/ffhq --parallel mesh --set data.path=FFHQ

For eight accelerators; 25M images. Published: FID 2.84. Not trained by us. With fewer than some ten thousand pictures
add `--set augmentation.pipe=bgc`; `--set generator.dtype=bfloat16 discriminator.dtype=bfloat16` halves memory and time
of the four largest blocks.
"""

from flaxgen.data import Data
from flaxgen.nets.stylegan2 import Generator
from flaxgen.nets.stylegan2_discriminator import Discriminator
from flaxgen.train.optim import Optimizer
from flaxgen.zoo.gan import Config, HalfLife, Regularizers, Sampling

PUBLISHED = 30_370_060 + 29_012_513


def get_config() -> Config:
    adam = Optimizer(learning_rate=2e-3, beta1=0.0, beta2=0.99, clip=0.0)
    return Config(
        seed=0,
        steps=781_250,
        batch_size=32,
        log_every=100,
        preview_every=5_000,
        checkpoint_every=5_000,
        data=Data(source="folder", image_size=1024, flip=True),
        generator=Generator(image_size=1024),
        discriminator=Discriminator(image_size=1024),
        style_mixing=0.9,
        generator_optimizer=adam,
        discriminator_optimizer=adam,
        regularizers=Regularizers(r1=10.0, interval=16, path_length=2.0),
        average=HalfLife(images=10_000, ramp=0.0),
        sampling=Sampling(batch=4),
    )
