"""The gated PixelCNN of CIFAR-10 [vdOord16b], which the paper gives 3.03 bits a number.

flaxgen train experiments/pixelcnn_cifar10.py --workdir runs/pixelcnn --set data.path='SHARDS/*.tar'
"""

from flaxgen.data import Data
from flaxgen.nets.pixelcnn import PixelCNN
from flaxgen.train.optim import Optimizer
from flaxgen.zoo.codes import Config


def get_config() -> Config:
    return Config(
        seed=0,
        steps=200_000,
        batch_size=64,
        data=Data(source="webdataset", image_size=32),
        net=PixelCNN(
            height=32, width=32, codes=256, pixel_channels=3, channels=384, depth=15, first_size=7, out_channels=1020,
            dropout=0.2, remat=True,
        ),
        optimizer=Optimizer(learning_rate=3e-4, warmup=1000, decay="cosine"),
    )  # fmt: skip
