"""CLIP of emoji pictures at 64 px: the text encoder of their latent diffusion, and what candidates are ranked by.

    flaxgen train experiments/emoji/clip.py --workdir runs/emoji/clip --set data.path=EMOJI

EMOJI is a folder of Noto's emoji, `1f431.png` and so on.
"""

from flaxgen.data import Data
from flaxgen.nets.clip import CLIP, TextTower, VisionTower
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.zoo.clip import Config, Vocabulary


def get_config() -> Config:
    return Config(
        seed=0,
        steps=3000,
        batch_size=64,
        data=Data(source="emoji", image_size=64, size=2**18, threads=2),
        net=CLIP(
            vision=VisionTower(image_size=64, patch=8, width=128, depth=3, heads=4, position_std=0.5),
            text=TextTower(vocab_size=768, context=28, width=128, depth=2, heads=4, token_std=0.5, position_std=0.5),
            embedding_dim=128,
        ),
        vocabulary=Vocabulary(size=768, split="train"),
        false_captions=3,
        optimizer=Optimizer(
            name="adamw", learning_rate=1e-3, beta2=0.98, weight_decay=0.05, warmup=100, decay="cosine"
        ),
        ema=Ema(decay=0.995),
        log_every=50,
        preview_every=0,
        checkpoint_every=500,
    )
