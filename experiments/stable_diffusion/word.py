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
from flaxgen.nets.attention import SpatialTransformer
from flaxgen.nets.unet import UNet
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.zoo.latent.words import Word, WordConfig

PUBLISHED = 768
"""Parameters: the width of the text encoder."""
READS = SpatialTransformer(heads=8)


def get_config() -> WordConfig:
    return WordConfig(
        seed=0,
        steps=3_000,
        batch_size=4,
        accumulate=4,
        word=Word(text="<new>", beginning="photo"),
        data=Data(source="folder", image_size=512),
        net=UNet(
            image_size=64,
            in_channels=4,
            out_channels=4,
            channels=320,
            multipliers=(1, 2, 4, 4),
            depth=2,
            attention=(READS, READS, READS, None),
            middle=READS,
            token_dim=768,
            downsample_padding=(1, 1),
            time_order="cos_sin",
            time_shift=0,
            norm_eps=1e-5,
            dtype="bfloat16",
            remat=True,
        ),
        objective=Objective(),
        optimizer=Optimizer(learning_rate=2e-3),
        ema=Ema(decay=0.0),
    )
