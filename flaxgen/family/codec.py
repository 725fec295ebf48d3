"""What a `Codec` is made of: latents as a model works on them, of pictures of any size, in tiles where they are
large."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from flaxgen.diffusion.tiles import tiled_between
from flaxgen.weights.autoencoder_config import Latents

Map = Float[Array, "B h w D"]
OVERLAP = 4
"""Neighbouring tiles share one part in so many of a tile."""


def scaled(latents: Latents, z: Map) -> Map:
    """Latents as a model works on them: (z - shift) * scale, or a channel by its mean and deviation."""
    mean, scale = affine(latents, z.shape[-1])
    return (z - mean[None, None, None]) * scale[None, None, None]


def unscaled(latents: Latents, z: Map) -> Map:
    """The inverse of `scaled`."""
    mean, scale = affine(latents, z.shape[-1])
    return z / scale[None, None, None] + mean[None, None, None]


def affine(latents: Latents, channels: int) -> tuple[Float[np.ndarray, " D"], Float[np.ndarray, " D"]]:
    """What each channel is centred at and then multiplied by."""
    mean = (latents.shift_factor or 0.0,) * channels if latents.latents_mean is None else latents.latents_mean
    std = (1.0,) * channels if latents.latents_std is None else latents.latents_std
    return np.asarray(mean, np.float32), np.float32(latents.scaling_factor) / np.asarray(std, np.float32)


def in_tiles(function: Callable[[Any], Any], tile: int, factor: int, **sizes: int) -> Callable[[Any], Any]:
    """A function between pictures and maps `factor` times smaller, in tiles of so many pixels (0: whole), of which
    neighbours share a quarter; `sizes` are those of `tiled_between`."""
    if not tile:
        return function
    cells = tile // factor
    return tiled_between(function, tile=cells, overlap=cells // OVERLAP, **sizes)
