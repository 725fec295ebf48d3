"""The prior over the top map of the digits' VQ-VAE-2, 2 x 2 codes, class by class.

flaxgen train experiments/vqvae2_digits/top.py --workdir runs/vqvae2/top --set autoencoder=runs/vqvae2/autoencoder
"""

from flaxgen.data import Data
from flaxgen.nets.pixelsnail import PixelSNAIL
from flaxgen.train.optim import Optimizer
from flaxgen.zoo.codes import Config


def get_config() -> Config:
    return Config(
        seed=0,
        steps=1000,
        batch_size=64,
        data=Data(source="digits", image_size=8, channels=1),
        net=PixelSNAIL(
            height=2, width=2, codes=32, num_classes=11, channels=32, blocks=1, depth=2, key_channels=16,
            value_channels=32, dropout=0.2,
        ),
        condition_dropout=0.1,
        level="top",
        optimizer=Optimizer(name="adamw", learning_rate=1e-3, weight_decay=0.1, warmup=50, decay="cosine"),
    )  # fmt: skip
