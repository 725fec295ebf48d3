"""OpenAI's discrete autoencoder for DALL-E [Ramesh21, app. A.2]: 32 x 32 codes of 8192 for 256 x 256 pixels.

The published run had 3,000,000 steps; the learning rate fell from 1e-4 to 1.25e-6 in 1,200,000 of them, here it falls
to 0 at the end.

    flaxgen train experiments/dalle/dvae.py --workdir runs/dvae --set data.path='SHARDS/*.tar' --parallel mesh
"""

from flaxgen.data import Data
from flaxgen.nets.dalle_vae import DalleVae
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.zoo.autoencoder import Config, Gumbel, Reconstruction

PUBLISHED = 53_786_240 + 43_829_766


def get_config() -> Config:
    return Config(
        seed=0,
        steps=3_000_000,
        batch_size=512,
        data=Data(source="webdataset", image_size=256, random_crop=True, flip=True),
        net=DalleVae(remat=True),
        bottleneck=Gumbel(codes=8192, temperature_end=1 / 16, temperature_steps=150_000, beta=6.6, beta_steps=5000),
        reconstruction=Reconstruction(loss="logit_laplace"),
        ema=Ema(decay=0.999),
        optimizer=Optimizer(name="adamw", learning_rate=1e-4, weight_decay=1e-4, clip=0.0, decay="cosine"),
    )
