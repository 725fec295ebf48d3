"""The autoencoder of Stable Diffusion, 256 x 256 pixels to 32 x 32 latents of 4 numbers [Rombach22, app. G and their
code].

    flaxgen train experiments/kl_f8.py --workdir runs/kl_f8 --parallel mesh --mesh data=8,fsdp=1 \
        --set data.path=PICTURES

It looks through LPIPS: `lpips.safetensors` is made as flaxgen/weights/lpips.py says; without, choose
`--set perceptual.net=clip:MODEL`, or none. The learning rates are theirs, 4.5e-6 for each picture of a batch. Losses
are means over a picture's numbers here and sums there, so the bound of the game's weight is divided by their count.
Their loss has a variance to be learned, which their optimizer is not given, so that it stays 1:
`--set reconstruction.learn_variance=true` learns it. To tune a published model, import it and `--set start=MODEL_DIR`.
Not trained by us.
"""

from flaxgen.data import Data
from flaxgen.nets.autoencoder import Autoencoder
from flaxgen.train.optim import Optimizer
from flaxgen.weights.autoencoder_config import Latents
from flaxgen.zoo.autoencoder import Adversary, Config, Gaussian, Perceptual, Reconstruction

PUBLISHED = 83_653_863
"""Parameters, counted from diffusers' AutoencoderKL of that shape."""
BATCH = 96


def get_config() -> Config:
    optimizer = Optimizer(learning_rate=4.5e-6 * BATCH, beta1=0.5, beta2=0.9, clip=0.0)
    return Config(
        seed=0,
        steps=250_000,
        batch_size=BATCH,
        preview_every=10_000,
        checkpoint_every=10_000,
        data=Data(source="folder", image_size=256),
        net=Autoencoder(image_size=256),
        latents=Latents(scaling_factor=0.18215),
        bottleneck=Gaussian(beta=1e-6),
        reconstruction=Reconstruction(loss="absolute"),
        perceptual=Perceptual("lpips:lpips.safetensors"),
        adversary=Adversary("patches", weight=0.5, most=1e4 / (256 * 256 * 3), start=50_000, optimizer=optimizer),
        optimizer=optimizer,
        batch=16,
    )
