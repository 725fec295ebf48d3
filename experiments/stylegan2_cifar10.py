"""StyleGAN2-ADA on CIFAR-10, all classes as one: NVlabs' `cifar` config [Karras20b].

    flaxgen train experiments/stylegan2_cifar10.py --workdir runs/stylegan2_cifar10 --set data.path=CIFAR_SHARDS

With `--set generator.num_classes=10 discriminator.num_classes=10` it learns the classes. 100M images, as there on two
GPUs. Published: FID 2.92, with classes 2.42. Not trained to the end by us.
"""

from flaxgen.data import Data
from flaxgen.nets.stylegan2 import Generator
from flaxgen.nets.stylegan2_discriminator import Discriminator
from flaxgen.train.optim import Optimizer
from flaxgen.zoo.gan import Augmentation, Config, HalfLife, Regularizers

PUBLISHED = 19_947_539 + 20_720_641


def get_config() -> Config:
    adam = Optimizer(learning_rate=2.5e-3, beta1=0.0, beta2=0.99, clip=0.0)
    return Config(
        seed=0,
        steps=1_562_500,
        batch_size=64,
        log_every=100,
        preview_every=5_000,
        checkpoint_every=5_000,
        data=Data(source="webdataset", image_size=32),
        generator=Generator(image_size=32, mapping_depth=2),
        discriminator=Discriminator(image_size=32, architecture="orig", group=32),
        generator_optimizer=adam,
        discriminator_optimizer=adam,
        regularizers=Regularizers(r1=0.01, interval=16),
        average=HalfLife(images=500_000, ramp=0.05),
        augmentation=Augmentation(pipe="bgc"),
    )
