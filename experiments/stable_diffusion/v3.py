"""Stable Diffusion 3 medium from nothing, at its published size [Esser24]: 2B parameters on 128 x 128 latents of
pictures of 1024 x 1024 pixels, captions read by CLIP's text encoder, OpenCLIP's bigG, and the encoder of T5 XXL.

    flaxgen import AUTOENCODER_FOLDER models/vae
    flaxgen import CLIP_FOLDER models/clip
    flaxgen import BIGG_FOLDER models/clip_2
    flaxgen train experiments/stable_diffusion/v3.py --workdir runs/sd3 --parallel mesh --mesh data=32,fsdp=8 \
        --set data.path=PICTURES autoencoder=models/vae clip=models/clip clip_2=models/clip_2

Training is by flow matching: times are logit-normal and shifted for pictures of this size (sec. 3.1 and 5.3.2). Without
`t5=` zeros stand for what T5 says; one comes with an imported pipeline, models/sd3/t5. To go on from published weights,
add `--set start=models/sd3/denoiser`. Captions' states are kept on disk, 2.7 MB each in half precision. They hid each
encoder's states by itself in 46% of the examples; here captions are hidden as a whole. Not trained by us.
"""

from flaxgen.data import Data
from flaxgen.family.denoising import Objective
from flaxgen.family.sampling import Sampling
from flaxgen.nets.mmdit import MMDiT
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.zoo.latent import Config, Text
from flaxgen.zoo.latent.config import FLOW

PUBLISHED = 2_028_328_000 + 192**2 * 1536
"""Parameters, counted from diffusers' SD3Transformer2DModel of that shape, and the table of places that it keeps."""


def get_config() -> Config:
    return Config(
        seed=0,
        steps=500_000,
        batch_size=4096,
        preview_every=10_000,
        checkpoint_every=10_000,
        data=Data(source="folder", image_size=1024),
        net=MMDiT(dtype="bfloat16", remat=True),
        text=Text(skip=1, normed=False, pooled="all", t5_places=256),
        process=FLOW,
        objective=Objective(times="logit_normal", shift=3.0, condition_dropout=0.1),
        optimizer=Optimizer(name="adamw", learning_rate=1e-4, warmup=1000),
        ema=Ema(decay=0.9999),
        sampling=Sampling(sampler="euler", steps=28, grid="flow", shift=3.0, guidance=7.0, threshold="none", batch=8),
    )
