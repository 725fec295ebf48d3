"""The diffusion prior of the unCLIP that comes with flaxgen: from captions of scenes to CLIP image embeddings."""

from flaxgen.data import Data
from flaxgen.family.denoising import Objective
from flaxgen.family.sampling import Sampling
from flaxgen.nets.prior import DiffusionPrior
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.zoo.prior import Config


def get_config() -> Config:
    return Config(
        seed=0,
        steps=1200,
        batch_size=256,
        data=Data(source="scenes", image_size=32, size=2**16),
        net=DiffusionPrior(embedding_dim=128, text_dim=128, context=24, width=128, depth=4, heads=4),
        objective=Objective(condition_dropout=0.1),
        optimizer=Optimizer(name="adamw", learning_rate=1e-3, weight_decay=0.01, warmup=200, decay="cosine"),
        ema=Ema(decay=0.999),
        sampling=Sampling(sampler="ddpm", steps=25, grid="linspace", limit=10.0, guidance=2.0, batch=256),
        log_every=50,
        preview_every=0,
    )
