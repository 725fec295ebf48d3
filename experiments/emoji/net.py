"""A latent diffusion of emoji pictures [Rombach22]: a UNet on 16 x 16 latents that reads captions by cross-attention.

    flaxgen train experiments/emoji/net.py --workdir runs/emoji/net --set data.path=EMOJI \
        autoencoder=runs/emoji/vae clip=runs/emoji/clip
    flaxgen compose models/emoji denoiser=runs/emoji/net autoencoder=runs/emoji/vae clip=runs/emoji/clip
    flaxgen draw "a cat to the left of a pizza" --model models/emoji --num 4 --out out.png

EMOJI is a folder of Noto's emoji, `1f431.png` and so on.
"""

from flaxgen.data import Data
from flaxgen.family.denoising import Objective
from flaxgen.family.process import Process
from flaxgen.family.sampling import Sampling
from flaxgen.nets.attention import SpatialTransformer
from flaxgen.nets.unet import UNet
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.zoo.latent import Config, Text

READS = SpatialTransformer(heads=4, norm_groups=16)


def get_config() -> Config:
    return Config(
        seed=0,
        steps=40_000,
        batch_size=32,
        data=Data(source="emoji", image_size=128, size=2**16, threads=2),
        net=UNet(
            image_size=16,
            in_channels=8,
            out_channels=8,
            channels=64,
            multipliers=(1, 2, 3),
            depth=1,
            attention=(None, READS, None),
            middle=READS,
            norm_groups=16,
            token_dim=128,
        ),
        context=28,
        text=Text(masked=True),
        process=Process(schedule="cosine", prediction="v"),
        objective=Objective(condition_dropout=0.1),
        sampling=Sampling(steps=25, guidance=3.0, threshold="none", batch=16),
        ema=Ema(decay=0.999),
        optimizer=Optimizer(name="adamw", learning_rate=1e-3, warmup=500, decay="cosine"),
        checkpoint_every=1000,
    )
