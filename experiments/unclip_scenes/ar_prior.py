"""The autoregressive prior of the unCLIP that comes with flaxgen: CLIP image embeddings as 24 codes."""

from flaxgen.data import Data
from flaxgen.family.denoising import Objective
from flaxgen.family.sampling import Sampling
from flaxgen.nets.ar_prior import ARPrior
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.zoo.prior import Config


def get_config() -> Config:
    return Config(
        seed=0,
        steps=800,
        batch_size=128,
        data=Data(source="scenes", image_size=32, size=2**16),
        net=ARPrior(
            embedding_dim=128,
            text_dim=128,
            context=24,
            dims=24,
            buckets=64,
            dot_buckets=64,
            width=128,
            depth=4,
            heads=4,
        ),
        objective=Objective(condition_dropout=0.1),
        optimizer=Optimizer(name="adamw", learning_rate=1e-3, weight_decay=0.01, warmup=200, decay="cosine"),
        ema=Ema(decay=0.999),
        sampling=Sampling(guidance=1.5, batch=256),
        log_every=50,
        preview_every=0,
    )
