"""Small models of every kind of single file, with random weights."""

import random_weights

from flaxgen.nets.attention import SelfAttention, SpatialTransformer
from flaxgen.nets.autoencoder import Autoencoder
from flaxgen.nets.clip import CLIP, TextTower
from flaxgen.nets.unet import UNet
from flaxgen.weights import autoencoder, clip, unet2d
from flaxgen.weights.autoencoder import Imported
from flaxgen.weights.ldm import KINDS, Single

LATENTS = Autoencoder(image_size=256, channels=32, multipliers=(1, 2), depth=1, middle=SelfAttention())
EIGHT = SpatialTransformer(heads=8)
ONE, TWO = SpatialTransformer(heads=1, linear=True), SpatialTransformer(heads=1, linear=True, depth=2)
SHARED = {"channels": 32, "in_channels": 4, "out_channels": 4, "downsample_padding": (1, 1), "norm_eps": 1e-5}
SHARED |= {"time_order": "cos_sin", "time_shift": 0}
SD1 = UNet(256, **SHARED, multipliers=(1, 2), depth=2, attention=(EIGHT, None), middle=EIGHT, token_dim=24)
SD2 = UNet(384, **SHARED, multipliers=(1, 2), depth=1, attention=(None, ONE), middle=ONE, token_dim=40)
SDXL = UNet(
    512, **SHARED, multipliers=(1, 2), depth=1, attention=(None, TWO), middle=TWO, token_dim=64, vector_dim=48 + 6 * 256
)
REFINER = UNet(
    512,
    **SHARED,
    multipliers=(1, 2),
    depth=1,
    attention=(TWO, None),
    middle=TWO,
    token_dim=40,
    vector_dim=48 + 5 * 256,
)
OPENAI = CLIP(None, TextTower(30, 9, 24, 2, 1), 24, projected=False)
OPEN_CLIP = CLIP(None, TextTower(30, 9, 40, 3, 1, activation="gelu"), 40, projected=False)
PROJECTED = OPEN_CLIP.clone(embedding_dim=48, projected=True)
NETS = {
    "sd1": (SD1, OPENAI),
    "sd1-inpainting": (SD1.clone(in_channels=9), OPENAI),
    "sd2": (SD2, OPEN_CLIP),
    "sd2-inpainting": (SD2.clone(in_channels=9, image_size=256), OPEN_CLIP),
    "sdxl": (SDXL, OPENAI, PROJECTED),
    "sdxl-refiner": (REFINER, PROJECTED),
}


def make(name: str) -> Single:
    """The model of the kind `name`."""
    kind, (unet, *texts) = KINDS[name], NETS[name]
    first_stage = LATENTS.clone(image_size=kind.image_size)
    return Single(
        kind,
        unet,
        random_weights.draw_like(unet2d.abstract_params(unet)),
        Imported(first_stage, random_weights.draw_like(autoencoder.abstract_params(first_stage)), kind.latents),
        tuple((net, random_weights.draw_like(clip.abstract_params(net))) for net in texts),
    )
