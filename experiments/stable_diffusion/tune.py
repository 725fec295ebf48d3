"""All weights of Stable Diffusion 1.5 tuned on captioned pictures, at the settings of diffusers' text-to-image script.

    flaxgen import stable-diffusion-v1-5/stable-diffusion-v1-5 models/sd
    flaxgen train experiments/stable_diffusion/tune.py --workdir runs/tuned --set data.path=PICTURES \
        start=models/sd/denoiser autoencoder=models/sd/autoencoder clip=models/sd/clip
    flaxgen compose models/tuned denoiser=runs/tuned autoencoder=models/sd/autoencoder clip=models/sd/clip

15,000 steps of 4 pictures at a learning rate of 1e-5, as their example on captioned Pokémon; captions are never hidden.
The state, of weights, their average and two moments in float32, takes 14 GB. Not trained by us.
"""

from flaxgen.data import Data
from flaxgen.family.denoising import Objective
from flaxgen.nets.published import STABLE_DIFFUSION_1
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.zoo.latent import Config


def get_config() -> Config:
    return Config(
        seed=0,
        steps=15_000,
        batch_size=4,
        accumulate=4,
        data=Data(source="folder", image_size=512),
        net=STABLE_DIFFUSION_1.clone(dtype="bfloat16", remat=True),
        objective=Objective(),
        optimizer=Optimizer(name="adamw", learning_rate=1e-5, weight_decay=1e-2),
        ema=Ema(decay=0.9999),
    )
