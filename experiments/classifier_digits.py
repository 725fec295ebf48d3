"""A classifier of noisy digits, to guide `ddpm_digits` with: the noise process is the same.

flaxgen train experiments/classifier_digits.py --workdir runs/classifier
flaxgen sample runs/digits --classifier runs/classifier --classifier-scale 2 --class 3
"""

from flaxgen.data import Data
from flaxgen.family.process import Process
from flaxgen.nets.classifier import NoisyClassifier
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.zoo.classifier import Config


def get_config() -> Config:
    return Config(
        seed=0,
        steps=1_000,
        batch_size=128,
        log_every=100,
        preview_every=0,
        checkpoint_every=500,
        data=Data(source="digits", image_size=8, channels=1, threads=2),
        net=NoisyClassifier(
            num_classes=10,
            image_size=8,
            in_channels=1,
            channels=64,
            multipliers=(1, 2),
            depth=1,
            attention_resolutions=(4,),
            head_channels=32,
            dropout=0.1,
        ),
        process=Process(schedule="cosine", timesteps=1000),
        optimizer=Optimizer(name="adamw", learning_rate=3e-4, weight_decay=0.05, warmup=100),
        ema=Ema(decay=0.99),
    )
