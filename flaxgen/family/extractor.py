"""A net as features of pictures: what FID and its kin compare, and what a projection may look at."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

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
