"""CLIP of drawn scenes at 32 px, the first stage of the unCLIP that comes with flaxgen.

It begins with lessons, runs of their own, each with the weights of the one before: docs/unclip.md has the commands.
"""

from flaxgen.data import Data
from flaxgen.nets.clip import CLIP, TextTower, VisionTower
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.zoo.clip import Config, Vocabulary


def get_config() -> Config:
    return Config(
        seed=0,
        steps=1000,
        batch_size=128,
        data=Data(source="scenes", image_size=32, size=2**20),
        net=CLIP(
            vision=VisionTower(image_size=32, patch=4, width=128, depth=3, heads=4, position_std=0.5),
            text=TextTower(vocab_size=384, context=24, width=128, depth=2, heads=4, token_std=0.5, position_std=0.5),
            embedding_dim=128,
        ),
        vocabulary=Vocabulary(size=384, split="train"),
        false_captions=6,
        optimizer=Optimizer(
            name="adamw", learning_rate=1e-3, beta2=0.98, weight_decay=0.05, warmup=100, decay="cosine"
        ),
        ema=Ema(decay=0.995),
        log_every=50,
        preview_every=0,
        checkpoint_every=250,
    )
