"""DiT on 8 x 8 handwritten digits, pixels instead of latents, on two CPU cores in minutes.

flaxgen train experiments/dit_digits.py --workdir runs/dit_digits
python -m benchmarks.quality digits runs/dit_digits
"""

from flaxgen.data import Data
from flaxgen.family.denoising import Objective
from flaxgen.family.process import Process
from flaxgen.family.sampling import Sampling
from flaxgen.nets.dit import DiT
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
        net=DiT(image_size=8, in_channels=1, out_channels=1, patch=2, width=64, depth=4, heads=4, num_classes=11),
        process=Process(schedule="cosine", timesteps=1000),
        objective=Objective(condition_dropout=0.1),
        optimizer=Optimizer(learning_rate=1e-3, warmup=200, decay="cosine"),
        ema=Ema(decay=0.999),
        sampling=Sampling(sampler="unipc", steps=25),
    )
