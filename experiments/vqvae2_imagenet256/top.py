"""The prior over the top map of the VQ-VAE-2 on ImageNet, 32 x 32 codes, class by class: gated convolutions and
attention [Razavi19, sec. 3.2; Chen18].

    flaxgen train experiments/vqvae2_imagenet256/top.py --workdir runs/vqvae2/top --parallel mesh --mesh data=8,fsdp=1 \
        --set data.path=IMAGENET_SHARDS --set autoencoder=runs/vqvae2/autoencoder

20 gated layers and 4 of attention are the paper's table from memory, not checked against it; its code is not public.
All else is PixelSNAIL's, with one head where the paper has eight. Not trained by us.
"""

from flaxgen.data import Data
from flaxgen.nets.pixelsnail import PixelSNAIL
from flaxgen.train.optim import Optimizer
from flaxgen.zoo.codes import Config


def get_config() -> Config:
    return Config(
        seed=0,
        steps=1_000_000,
        batch_size=1024,
        preview_every=0,
        checkpoint_every=10_000,
        data=Data(source="webdataset", image_size=256),
        net=PixelSNAIL(
            height=32, width=32, codes=512, num_classes=1000, channels=512, blocks=4, depth=5, key_channels=64,
            value_channels=512, dropout=0.1, remat=True,
        ),
        level="top",
        optimizer=Optimizer(learning_rate=3e-4, warmup=1000),
    )  # fmt: skip
