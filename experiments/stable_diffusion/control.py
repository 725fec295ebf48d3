"""A ControlNet of edges for Stable Diffusion 1.5 [Zhang23], at the settings of diffusers' script.

    flaxgen import stable-diffusion-v1-5/stable-diffusion-v1-5 models/sd
    flaxgen train experiments/stable_diffusion/control.py --workdir runs/edges --set data.path=PICTURES \
        base=models/sd/denoiser autoencoder=models/sd/autoencoder clip=models/sd/clip
    flaxgen draw "a stone house" --model runs/edges --hint photo.png --hint-edges --out out.png
    flaxgen export runs/edges folders/edges --layout diffusers

15,000 steps of 4 pictures at a learning rate of 1e-5; captions are hidden half the time, as in the paper. Hints are
edges by Sobel's filter; others, in the order of the pictures, are named in a copy of this file, such as
hint_data=Data(source="folder", path="DEPTHS", image_size=512). Trained are 361M numbers beside 860M that stay. Not
trained by us.
"""

from flaxgen.data import Data
from flaxgen.family.denoising import Objective
from flaxgen.nets.published import STABLE_DIFFUSION_1
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.zoo.latent.control_runs import ControlConfig

PUBLISHED = 361_279_120
"""Parameters, counted of diffusers' ControlNetModel of that net."""


def get_config() -> ControlConfig:
    return ControlConfig(
        seed=0,
        steps=15_000,
        batch_size=4,
        accumulate=4,
        data=Data(source="folder", image_size=512),
        net=STABLE_DIFFUSION_1.clone(dtype="bfloat16", remat=True),
        objective=Objective(condition_dropout=0.5),
        optimizer=Optimizer(name="adamw", learning_rate=1e-5, weight_decay=1e-2),
        ema=Ema(decay=0.0),
    )
