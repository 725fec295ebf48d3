"""The diffusion prior of DALL-E 2 [Ramesh22, table 3]: from a caption to the CLIP embedding of a picture of it.

    flaxgen train experiments/unclip/prior.py --workdir runs/prior --parallel mesh --mesh data=8,fsdp=8 \
        --set data.path='SHARDS/*.tar' clip=runs/clip cache=EMBEDDINGS

Meant for 64 TPU v4 or A100; not run here. `cache` takes 120 kB a caption, most of it text hidden states.

Published are 24 blocks of width 2048 and 32 heads, and a size of 1B. They agree to one digit only: such blocks have 12
width^2 parameters each, 1.21B in all, which is also what [Nichol21b, sec. 4] says of this transformer, and there are
1.22B here. Karlo's prior, with `net.depth=20`, has 1.02B.

What differs: captions have the 77 tokens of CLIP's and not 256, their hidden states are CLIP's, embeddings are whitened
and not multiplied by 17.2, and the 64 steps are ancestral and not Analytic-DPM's. The paper guides the decoder only:
guiding the prior made pictures worse (sec. 5.5).
"""

from flaxgen.data import Data
from flaxgen.family.denoising import Objective
from flaxgen.family.process import Process
from flaxgen.family.sampling import Sampling
from flaxgen.nets.prior import DiffusionPrior
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.zoo.prior import Config

PUBLISHED = 1_000_000_000
"""Parameters [Ramesh22, table 3], to one digit."""


def get_config() -> Config:
    return Config(
        seed=0,
        steps=600_000,
        batch_size=4096,
        log_every=100,
        preview_every=0,
        checkpoint_every=5_000,
        data=Data(source="webdataset"),
        net=DiffusionPrior(
            embedding_dim=768,
            text_dim=768,
            context=77,
            width=2048,
            depth=24,
            heads=32,
            dtype="bfloat16",
            remat=True,
        ),
        process=Process(schedule="cosine", timesteps=1000, prediction="x0"),
        objective=Objective(condition_dropout=0.1),
        optimizer=Optimizer(name="adamw", learning_rate=1.1e-4, beta2=0.96, epsilon=1e-6, weight_decay=6e-2, clip=0.0),
        ema=Ema(decay=0.9999),
        sampling=Sampling(sampler="ddpm", steps=64, grid="linspace", limit=10.0, guidance=1.0),
        candidates=2,
    )
