"""How far pictures are from each other to a net that was trained for something else: what an autoencoder minimises
beside the differences of pixels, of which it would make means [Zhang18; Esser21].

The net's weights are frozen weights of the state, and not constants of the step: a compiler would carry them in every
program, and fold what it can of them. So a run keeps them, once for all its checkpoints, and resumes with those that it
began with.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flaxgen.family.companions import load_companion
from flaxgen.family.extractor import Extractor, rgb
from flaxgen.family.family import Family
from flaxgen.nets.lpips import Lpips
from flaxgen.train.config import require
from flaxgen.types import Params
from flaxgen.weights.lpips import abstract_params, import_lpips

Image = Float[Array, "B H W C"]
Families = Mapping[str, Family]
"""Those whose models are looked through, by what `net` calls them: clip, classifier."""
SMALLEST = 1e-6
"""What is added to the square of features that distances are divided by."""


def check_file(net: str) -> None:
    """Raises ValueError unless the file of LPIPS' weights is there."""
    kind, _, path = net.partition(":")
    if kind == "lpips":
        require(
            Path(path).is_file(),
            f"perceptual.net={net}: there is no such file; flaxgen/weights/lpips.py says how to make one, or choose "
            "clip:MODEL, classifier:MODEL or none",
        )


def frozen_weights(net: str, families: Families, shapes_only: bool = False) -> Params:
    """The weights of the net, () for none; where only shapes are asked for and the file need not be there, zeros."""
    kind, _, path = net.partition(":")
    if kind == "none":
        return ()
    if kind != "lpips":
        return _extractor(net, families).params
    if shapes_only:
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), abstract_params(Lpips()))
    check_file(net)
    return import_lpips(path, Lpips())


def _extractor(net: str, families: Families) -> Extractor:
    kind, _, path = net.partition(":")
    return load_companion(families[kind], path).extractor


def make_distance(net: str, families: Families) -> Callable[[Params, Image, Image], Float[Array, " B"]] | None:
    """(frozen weights, real pictures, drawn ones) in [-1, 1] to the distance of each pair; None where there is no net.
    Through LPIPS grey pictures are seen as colour; features differ by the square of their difference over that of the
    real picture's."""
    if net == "none":
        return None
    if net.startswith("lpips:"):
        return lambda weights, x, y: cast(Array, Lpips().apply({"params": weights}, rgb(x), rgb(y)))
    apply = _extractor(net, families).apply

    def distance(weights, x, y):
        real, drawn = (apply(weights, {"image": pictures})["features"].astype(jnp.float32) for pictures in (x, y))
        return jnp.square(real - drawn).sum(-1) / (jnp.square(real).sum(-1) + SMALLEST)

    return distance
