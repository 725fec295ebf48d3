"""A new word for Stable Diffusion 1.5 from 3 to 5 pictures: textual inversion [Gal22].

    flaxgen import stable-diffusion-v1-5/stable-diffusion-v1-5 models/sd
    flaxgen train experiments/stable_diffusion/word.py --workdir runs/cat --set data.path=PICTURES word.beginning=cat \
        base=models/sd/denoiser autoencoder=models/sd/autoencoder clip=models/sd/clip
    flaxgen draw "a <new> on the moon" --model runs/cat --out out.png
    flaxgen export runs/cat words/cat --layout textual-inversion
    flaxgen draw "a <new> on the moon" --model models/sd --word words/cat/learned_embeds.safetensors --out out.png

3,000 steps of 4 pictures at a learning rate of 5e-4 times 4, as diffusers' example on a cat; 768 numbers, the vector of
one token, beside 983M that stay. Captions of the pictures are not read: `word.captions` are what is said of them. Not
trained by us.
"""

from flaxgen.data import Data
from flaxgen.family.denoising import Objective
from flaxgen.nets.published import STABLE_DIFFUSION_1
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.zoo.latent.words import Word, WordConfig

PUBLISHED = 768
"""Parameters: the width of the text encoder."""


def get_config() -> WordConfig:
    return WordConfig(
        seed=0,
        steps=3_000,
        batch_size=4,
        accumulate=4,
        word=Word(text="<new>", beginning="photo"),
        data=Data(source="folder", image_size=512),
        net=STABLE_DIFFUSION_1.clone(dtype="bfloat16", remat=True),
        objective=Objective(),
        optimizer=Optimizer(learning_rate=2e-3),
        ema=Ema(decay=0.0),
    )
