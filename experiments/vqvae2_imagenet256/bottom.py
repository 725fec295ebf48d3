"""The prior over the bottom map of the VQ-VAE-2 on ImageNet, 64 x 64 codes, given the class and the top map: gated
convolutions of 5 x 5 pixels, without attention [Razavi19, sec. 3.2].

    flaxgen train experiments/vqvae2_imagenet256/bottom.py --workdir runs/vqvae2/bottom \
        --parallel mesh --mesh data=8,fsdp=1 \
        --set data.path=IMAGENET_SHARDS --set autoencoder=runs/vqvae2/autoencoder
    flaxgen compose models/vqvae2 autoencoder=runs/vqvae2/autoencoder top=runs/vqvae2/top bottom=runs/vqvae2/bottom
    flaxgen sample models/vqvae2 --num 16 --class 207 --out samples.png

20 layers, and 20 residual blocks that read the top map, are the paper's table from memory, not checked against it; its
code is not public. The net keeps no cache: it reads all 4,096 codes again for each that is drawn. Not trained by us.
"""

from flaxgen.data import Data
from flaxgen.nets.pixelcnn import PixelCNN
from flaxgen.train.optim import Optimizer
from flaxgen.zoo.codes import CodeMap, Config


def get_config() -> Config:
    return Config(
        seed=0,
        steps=750_000,
        batch_size=512,
        preview_every=0,
        checkpoint_every=10_000,
        data=Data(source="webdataset", image_size=256),
        net=PixelCNN(
            height=64, width=64, codes=512, num_classes=1000, channels=512, depth=20, first_size=7, size=5,
            out_channels=1024, condition=CodeMap(height=32, width=32, codes=512, channels=512, depth=20), dropout=0.1,
            remat=True,
        ),
        level="bottom",
        optimizer=Optimizer(learning_rate=3e-4, warmup=1000),
    )  # fmt: skip
