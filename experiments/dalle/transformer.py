"""DALL-E's transformer at its size [Ramesh21, sec. 2.2, app. B]: 64 layers, 62 heads of 64, 256 places of text and 32 x
32 codes. "12B" is published.

The published run halved its learning rate five times, here it falls along a cosine; it averaged weights every 25 steps.

    flaxgen info experiments/dalle/transformer.py --mesh data=16,fsdp=64
    flaxgen train experiments/dalle/transformer.py --workdir runs/dalle --set data.path='SHARDS/*.tar' \
        autoencoder=models/dvae --parallel mesh --mesh data=16,fsdp=64
"""

from flaxgen.data import Data
from flaxgen.family.captions import Vocabulary
from flaxgen.nets.dalle import Dalle
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.zoo.dalle import Config

PUBLISHED = 12_000_000_000


def get_config() -> Config:
    return Config(
        seed=0,
        steps=430_000,
        batch_size=1024,
        data=Data(source="webdataset", image_size=256),
        net=Dalle(dtype="bfloat16", remat=True),
        vocabulary=Vocabulary(size=16_384, captions=1_000_000),
        caption_dropout=0.0,
        ema=Ema(decay=0.9996),
        optimizer=Optimizer(
            name="adamw", learning_rate=4.5e-4, beta1=0.9, beta2=0.96, weight_decay=4.5e-2, clip=4.0, warmup=5000,
            decay="cosine",
        ),
    )  # fmt: skip
