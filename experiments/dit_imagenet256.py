"""DiT-XL/2 on latents of ImageNet, 256 x 256 pixels, 1,000 classes and none [Peebles23, sec. 4]: 675M parameters.

    flaxgen import AUTOENCODER_FOLDER models/vae          # Stable Diffusion's, of factor 8
    flaxgen train experiments/dit_imagenet256.py --workdir runs/dit --parallel mesh --mesh data=64,fsdp=1 \
        --set data.path=IMAGENET autoencoder=models/vae
    flaxgen sample runs/dit --num 8 --class 207 --guidance 4 --out out.png

Theirs: 7M steps of 256 pictures on a TPU v3-256, FID 2.27 with guidance 1.5 of the first three latent channels (here of
all four). Pictures are not flipped, as latents are computed once. Not trained by us.
"""

from flaxgen.data import Data
from flaxgen.family.denoising import Objective
from flaxgen.family.process import Process
from flaxgen.family.sampling import Sampling
from flaxgen.nets.dit import DiT
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.zoo.latent import Config

PUBLISHED = 675_129_632
"""With a table of places, which is computed here."""


def get_config() -> Config:
    return Config(
        seed=0,
        steps=7_000_000,
        batch_size=256,
        preview_every=50_000,
        checkpoint_every=50_000,
        data=Data(source="folder", image_size=256),
        net=DiT(num_classes=1001, learned_variance=True, dtype="bfloat16", remat=True),
        process=Process(schedule="linear"),
        objective=Objective(loss="hybrid", condition_dropout=0.1),
        sampling=Sampling(
            sampler="ddpm", steps=250, guidance=4.0, threshold="none", variance="learned", grid="linspace", batch=8
        ),
        optimizer=Optimizer(name="adamw", learning_rate=1e-4, weight_decay=0.0, clip=0.0),
        ema=Ema(decay=0.9999),
    )
