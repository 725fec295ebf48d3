"""DDPM of 8 x 8 handwritten digits, on two CPU cores in minutes; what `make demo` trains.

    flaxgen train experiments/ddpm_digits.py --workdir runs/digits
    python -m benchmarks.quality digits runs/digits

Trained on 1,000 digits, five minutes on two cores. 1,000 samples against the 797 held-out digits, in pixels with k=3:
precision 0.860, recall 0.816; the 1,000 training digits against them 0.921 and 0.896. Longer training, or none of the
dropout, raises precision and loses recall.
"""

from flaxgen.data import Data
from flaxgen.family.denoising import Objective
from flaxgen.family.process import Process
from flaxgen.family.sampling import Sampling
from flaxgen.nets.attention import SelfAttention
from flaxgen.nets.unet import UNet
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.zoo.diffusion import Config


def get_config() -> Config:
    return Config(
        seed=0,
        steps=2_000,
        batch_size=128,
        log_every=100,
        preview_every=1_000,
        checkpoint_every=1_000,
        data=Data(source="digits", image_size=8, channels=1, threads=2),
        net=UNet(
            image_size=8,
            in_channels=1,
            out_channels=1,
            channels=32,
            multipliers=(1, 2),
            depth=1,
            attention=(None, SelfAttention()),
            dropout=0.1,
            num_classes=11,
        ),
        process=Process(schedule="cosine", timesteps=1000),
        objective=Objective(condition_dropout=0.1),
        optimizer=Optimizer(learning_rate=1e-3, warmup=200, decay="cosine"),
        ema=Ema(decay=0.999),
        sampling=Sampling(sampler="unipc", steps=25),
    )
