"""A classifier of emoji, which tells what a model drew: 32 x 32 close-ups with blur and noise to their 150 names.

    flaxgen train experiments/emoji/reader.py --workdir runs/emoji/reader --set data.path=EMOJI
    python -m benchmarks.emoji renders --reader runs/emoji/reader --emoji EMOJI

EMOJI is a folder of Noto's emoji, `1f431.png` and so on.
"""

from flaxgen.data import Data
from flaxgen.family.process import Process
from flaxgen.nets.classifier import NoisyClassifier
from flaxgen.scenes.emoji import NAMES
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.zoo.classifier import Config


def get_config() -> Config:
    return Config(
        seed=0,
        steps=2500,
        batch_size=64,
        log_every=100,
        preview_every=0,
        checkpoint_every=500,
        data=Data(source="emoji", split="closeups", image_size=32, size=2**18, threads=2),
        net=NoisyClassifier(
            num_classes=len(NAMES),
            image_size=32,
            channels=24,
            multipliers=(1, 2, 4),
            depth=1,
            attention_resolutions=(8,),
            head_channels=24,
            norm_groups=8,
            dropout=0.1,
        ),
        process=Process(schedule="linear", beta_start=1e-6, beta_end=2e-5),
        optimizer=Optimizer(name="adamw", learning_rate=1e-3, weight_decay=0.05, warmup=100, decay="cosine"),
        ema=Ema(decay=0.99),
    )
