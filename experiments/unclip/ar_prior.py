"""The autoregressive prior of DALL-E 2 [Ramesh22, table 3]: 319 principal components in 1,024 buckets each.

    flaxgen train experiments/unclip/ar_prior.py --workdir runs/ar_prior --parallel mesh --mesh data=8,fsdp=8 \
        --set data.path='SHARDS/*.tar' clip=runs/clip cache=EMBEDDINGS

Meant for 64 TPU v4 or A100; not run here. `cache` is the one of prior.py.

Published are a text encoder of 24 blocks, width 2048, a causal decoder of 24 blocks, width 1664 and 26 heads, and a
size of 1B. They contradict each other: the blocks of the first alone have 1.21B parameters, those of the second 0.80B.
This net is the second, reading CLIP's hidden states where the paper's reads those of the first: 0.81B.

The paper keeps 319 of the 1,024 components of its CLIP's embeddings, less than 1% of their square being in the others;
of ViT-L/14's 768, with no sharpness-aware minimisation behind them, the same number may keep less.
"""

from flaxgen.data import Data
from flaxgen.family.denoising import Objective
from flaxgen.family.sampling import Sampling
from flaxgen.nets.ar_prior import ARPrior
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.zoo.prior import Config

PUBLISHED = 1_000_000_000
"""Parameters [Ramesh22, table 3], to one digit."""


def get_config() -> Config:
    return Config(
        seed=0,
        steps=1_000_000,
        batch_size=4096,
        log_every=100,
        preview_every=0,
        checkpoint_every=5_000,
        data=Data(source="webdataset"),
        net=ARPrior(
            embedding_dim=768,
            text_dim=768,
            context=77,
            dims=319,
            buckets=1024,
            dot_buckets=1024,
            width=1664,
            depth=24,
            heads=26,
            dtype="bfloat16",
            remat=True,
        ),
        objective=Objective(condition_dropout=0.1),
        optimizer=Optimizer(name="adamw", learning_rate=1.6e-4, beta2=0.91, epsilon=1e-10, weight_decay=4e-2, clip=0.0),
        ema=Ema(decay=0.999),
        sampling=Sampling(guidance=1.0),
        candidates=1,
    )
