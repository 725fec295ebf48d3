"""A net as features of pictures: what FID and its kin compare, and what a projection may look at."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from flaxgen.train.config import require
from flaxgen.types import Params

Inputs = Mapping[str, Array]
"""`image` uint8 [B H W C], or where gradients are taken float32 in [-1, 1], which Inception does not read; and where
captions are asked for what `Extractor.tokenize` made of them."""


class Extractor(NamedTuple):
    """`apply(params, inputs)` gives `features` float32 [B D]; `logits` [B classes] where `has_classes`; and `text`
    [B D], the captions' embeddings, where there is `tokenize` and the inputs have what it gives. The `name` says which
    net it is, down to a hash of its weights: numbers from different features are not comparable."""

    name: str
    params: Params
    apply: Callable[[Params, Inputs], dict[str, Float[Array, "B _"]]]
    has_classes: bool = False
    tokenize: Callable[[Sequence[str]], dict[str, np.ndarray]] | None = None


def rgb(images: Shaped[Array, "B H W C"]) -> Shaped[Array, "B H W 3"]:
    """A single channel three times."""
    return jnp.broadcast_to(images, (*images.shape[:3], 3)) if images.shape[-1] == 1 else images


@dataclass(frozen=True)
class Preprocess:
    """How pictures come to the square that a net sees, as transformers' CLIPImageProcessor says: their shorter side
    becomes `short_side` pixels (0: the net's size), or both do with `squash`, whatever their shape; then the middle
    square of the net's size is cut out."""

    short_side: int = 0
    squash: bool = False
    filter: Literal["bicubic", "bilinear", "lanczos"] = "bicubic"

    def __post_init__(self):
        require(self.short_side >= 0, f"short_side={self.short_side}: expected 0 (the net's size) or more pixels")


FILTERS = {"bicubic": "cubic", "bilinear": "linear", "lanczos": "lanczos3"}
"""What JAX calls Pillow's filters. They are the same ones, widened where pictures become smaller: nothing aliases."""


def fit_square(pixels: Float[Array, "B H W C"], size: int, how: Preprocess) -> Float[Array, "B size size C"]:
    """Pictures in [-1, 1] at the net's size.

    Raises:
        ValueError: if `how` makes them smaller than that.
    """
    batch, height, width, channels = pixels.shape
    side = how.short_side or size
    require(side >= size, f"preprocess.short_side={how.short_side}: expected the net's image_size={size} or more")
    short = min(height, width)
    resized = (side, side) if how.squash else (side * height // short, side * width // short)
    if resized != (height, width):
        method = FILTERS[how.filter]
        pixels = jnp.clip(jax.image.resize(pixels, (batch, *resized, channels), method), -1, 1)
    top, left = ((length - size) // 2 for length in resized)
    return pixels[:, top : top + size, left : left + size]
