"""CLIP of drawn scenes at 32 px, the first stage of the unCLIP that comes with flaxgen."""

from flaxgen.data import Data
from flaxgen.nets.clip import CLIP, TextTower, VisionTower
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.zoo.clip import Config, Vocabulary


def get_config() -> Config:
    return Config(
        seed=0,
        steps=2200,
        batch_size=256,
        data=Data(source="scenes", image_size=32, size=2**20),
        net=CLIP(
            vision=VisionTower(image_size=32, patch=8, width=160, depth=4, heads=4),
            text=TextTower(vocab_size=384, context=24, width=128, depth=3, heads=4),
            embedding_dim=128,
        ),
        vocabulary=Vocabulary(size=384),
        optimizer=Optimizer(
            name="adamw", learning_rate=1e-3, beta2=0.98, weight_decay=0.05, warmup=100, decay="cosine"
        ),
        ema=Ema(decay=0.995),
        log_every=50,
        preview_every=0,
        checkpoint_every=250,
    )
