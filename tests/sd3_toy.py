"""A small Stable Diffusion 3 of random weights, as a single file of it can hold."""

import ldm_toy
import random_weights

from flaxgen.nets.mmdit import MMDiT
from flaxgen.nets.t5 import T5Encoder
from flaxgen.weights import autoencoder, clip, dit, t5
from flaxgen.weights.autoencoder import Imported
from flaxgen.weights.sd3_single import LATENTS, Single

NET = MMDiT(
    image_size=512, in_channels=4, out_channels=4, width=16, depth=2, heads=2, token_dim=72, vector_dim=72,
    max_places=256, qk_norm=True, dual_blocks=(0,),
)  # fmt: skip
FIRST_STAGE = ldm_toy.LATENTS.clone(image_size=1024, quant_convs=False)
TEXTS = {"clip": ldm_toy.OPENAI, "clip_2": ldm_toy.PROJECTED}
T5 = T5Encoder(vocab_size=40, width=72, depth=2, heads=2, head_width=4, mlp_width=8)


def make(net: MMDiT = NET, texts: bool = True, third: bool = True) -> Single:
    """The model with text encoders and a T5, or without."""
    towers = {name: (tower, random_weights.draw_like(clip.abstract_params(tower))) for name, tower in TEXTS.items()}
    return Single(
        net,
        random_weights.draw_like(dit.abstract_params(net)),
        Imported(FIRST_STAGE, random_weights.draw_like(autoencoder.abstract_params(FIRST_STAGE)), LATENTS),
        towers if texts else {},
        (T5, random_weights.draw_like(t5.abstract_params(T5))) if third else None,
    )
