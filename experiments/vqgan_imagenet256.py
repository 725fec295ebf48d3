"""VQGAN on ImageNet at 256 x 256 pixels, 16 x 16 codes of 1,024 [Esser21, sec. 3.1 and their config].

    flaxgen train experiments/vqgan_imagenet256.py --workdir runs/vqgan --parallel mesh --mesh data=8,fsdp=1 \
        --set data.path=IMAGENET_SHARDS

It looks through LPIPS: `lpips.safetensors` is made as flaxgen/weights/lpips.py says; without, choose
`--set perceptual.net=clip:MODEL`, or none. The codebook of their larger model is `--set bottleneck.codes=16384`. The
learning rates are theirs, 4.5e-6 for each picture of a batch. Of the codebook's two terms the paper's is weighted, that
which draws vectors to their codes; their code weighs the other one. Not trained by us.
"""

from flaxgen.data import Data
from flaxgen.nets.attention import SelfAttention
from flaxgen.nets.autoencoder import Autoencoder
from flaxgen.train.optim import Optimizer
from flaxgen.zoo.autoencoder import Adversary, Codebook, Config, Perceptual, Reconstruction

PUBLISHED = 72_141_699
"""Parameters, counted from diffusers' VQModel of that shape; 76_073_859 with 16,384 codes."""
BATCH = 24


def get_config() -> Config:
    optimizer = Optimizer(learning_rate=4.5e-6 * BATCH, beta1=0.5, beta2=0.9, clip=0.0)
    return Config(
        seed=0,
        steps=1_000_000,
        batch_size=BATCH,
        preview_every=10_000,
        checkpoint_every=10_000,
        data=Data(source="webdataset", image_size=256),
        net=Autoencoder(
            image_size=256,
            channels=128,
            multipliers=(1, 1, 2, 2, 4),
            depth=2,
            attention=(None, None, None, None, SelfAttention()),
            latent_channels=256,
            moments=False,
        ),
        bottleneck=Codebook(codes=1024, update="gradient", restart=0.0),
        reconstruction=Reconstruction(loss="absolute"),
        perceptual=Perceptual("lpips:lpips.safetensors"),
        adversary=Adversary("patches", weight=0.8, start=250_000, optimizer=optimizer),
        optimizer=optimizer,
        batch=16,
    )
