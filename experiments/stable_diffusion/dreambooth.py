"""Stable Diffusion 1.5 learns one thing from 3 to 5 pictures and keeps its class: DreamBooth [Ruiz23].

    flaxgen import stable-diffusion-v1-5/stable-diffusion-v1-5 models/sd
    flaxgen train experiments/stable_diffusion/dreambooth.py --workdir runs/dog --set data.path=DOG \
        prior_data.path=DOGS start=models/sd/denoiser autoencoder=models/sd/autoencoder clip=models/sd/clip
    flaxgen compose models/dog denoiser=runs/dog autoencoder=models/sd/autoencoder clip=models/sd/clip
    flaxgen draw "a sks dog on the moon" --model models/dog --num 4 --out out.png

DOG holds the pictures, and a metadata.jsonl that calls each "a photo of sks dog"; DOGS 200 and more pictures that the
model has drawn of "a photo of a dog", called that. Settings are those of diffusers' script, 800 steps at 5e-6; the text
encoder is not tuned. The paper has about 1000 steps, and 1e-5 for Imagen. Not trained by us.
"""

from flaxgen.data import Data
from flaxgen.family.denoising import Objective
from flaxgen.nets.published import STABLE_DIFFUSION_1
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.zoo.latent import Config


def get_config() -> Config:
    return Config(
        seed=0,
        steps=800,
        batch_size=1,
        data=Data(source="folder", image_size=512),
        prior_data=Data(source="folder", image_size=512),
        prior_weight=1.0,
        net=STABLE_DIFFUSION_1.clone(dtype="bfloat16", remat=True),
        objective=Objective(),
        optimizer=Optimizer(name="adamw", learning_rate=5e-6, weight_decay=1e-2),
        ema=Ema(decay=0.0),
    )
