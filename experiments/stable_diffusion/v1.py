"""Stable Diffusion 1 from nothing, at its published size [Rombach22, and the card of CompVis' models]: 860M parameters
on 64 x 64 latents of pictures of 512 x 512 pixels, captions read by CLIP's text encoder.

    flaxgen import AUTOENCODER_FOLDER models/vae
    flaxgen import CLIP_FOLDER models/clip
    flaxgen train experiments/stable_diffusion/v1.py --workdir runs/sd --parallel mesh --mesh data=32,fsdp=8 \
        --set data.path=PICTURES autoencoder=models/vae clip=models/clip

They trained for weeks on 256 A100 with batches of 2,048 and 10,000 steps of warm-up; captions were empty for a tenth of
the examples from version 1.3 on. To go on from published weights, import the whole pipeline and add
`--set start=models/sd/denoiser`. Not trained by us.
"""

from flaxgen.data import Data
from flaxgen.nets.published import STABLE_DIFFUSION_1
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.zoo.latent import Config

PUBLISHED = 859_520_964
"""Parameters, counted from diffusers' UNet2DConditionModel of that shape."""


def get_config() -> Config:
    return Config(
        seed=0,
        steps=500_000,
        batch_size=2048,
        preview_every=10_000,
        checkpoint_every=10_000,
        data=Data(source="folder", image_size=512),
        net=STABLE_DIFFUSION_1.clone(dtype="bfloat16", remat=True),
        optimizer=Optimizer(name="adamw", learning_rate=1e-4, warmup=10_000),
        ema=Ema(decay=0.9999),
    )
