"""The prior over the bottom map of the digits' VQ-VAE-2, 4 x 4 codes, given the class and the top map.

flaxgen train experiments/vqvae2_digits/bottom.py --workdir runs/vqvae2/bottom --set autoencoder=runs/vqvae2/autoencoder
flaxgen compose models/vqvae2 autoencoder=runs/vqvae2/autoencoder top=runs/vqvae2/top bottom=runs/vqvae2/bottom
flaxgen sample models/vqvae2 --num 64 --beside-data --out digits.png
"""

from flaxgen.data import Data
from flaxgen.nets.pixelcnn import PixelCNN
from flaxgen.train.optim import Optimizer
from flaxgen.zoo.codes import CodeMap, Config


def get_config() -> Config:
    return Config(
        seed=0,
        steps=1500,
        batch_size=64,
        data=Data(source="digits", image_size=8, channels=1),
        net=PixelCNN(
            height=4, width=4, codes=64, num_classes=11, channels=48, depth=4, first_size=5, size=3, out_channels=96,
            condition=CodeMap(height=2, width=2, codes=32, channels=32, depth=2), dropout=0.2,
        ),
        condition_dropout=0.1,
        level="bottom",
        optimizer=Optimizer(name="adamw", learning_rate=1e-3, weight_decay=0.1, warmup=50, decay="cosine"),
    )  # fmt: skip
