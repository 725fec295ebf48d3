"""An autoencoder as a `Codec`: latents as a model works on them, of pictures of any size, in tiles where they are
large."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from flaxgen.diffusion.tiles import tiled_between
from flaxgen.nets.dense_autoencoder import DenseAutoencoder
from flaxgen.train.config import require
from flaxgen.types import Codec, Params
from flaxgen.weights.autoencoder_config import Latents
from flaxgen.zoo.autoencoder import training
from flaxgen.zoo.autoencoder.config import Config

Map = Float[Array, "B h w D"]
OVERLAP = 4
"""Neighbouring tiles share one part in so many of a tile."""


def scaled(latents: Latents, z: Map) -> Map:
    """Latents as a model works on them: (z - shift) * scale, or a channel by its mean and deviation."""
    mean, scale = _affine(latents, z.shape[-1])
    return (z - mean) * scale


def unscaled(latents: Latents, z: Map) -> Map:
    """The inverse of `scaled`."""
    mean, scale = _affine(latents, z.shape[-1])
    return z / scale + mean


def _affine(latents: Latents, channels: int) -> tuple[Float[Array, "1 1 1 D"], Float[Array, "1 1 1 D"]]:
    mean = (latents.shift_factor or 0.0,) * channels if latents.latents_mean is None else latents.latents_mean
    std = (1.0,) * channels if latents.latents_std is None else latents.latents_std
    return (
        jnp.asarray(mean, jnp.float32)[None, None, None],
        latents.scaling_factor / jnp.asarray(std, jnp.float32)[None, None, None],
    )


def latents_of(config: Config, params: Params, x: training.Image, tile: int = 0) -> Map:
    """What the decoder reads of pictures in [-1, 1], without chance; with `tile` in tiles of so many pixels."""
    features = _in_tiles(config, tile, lambda x: training.encode(config, params, x), reads=config.net.factor)(x)
    return config.bottleneck.quantise(params, features)


def pictures_of(config: Config, params: Params, z: Map, tile: int = 0) -> training.Image:
    """The pictures in [-1, 1] of latents; with `tile` in tiles of so many pixels."""
    y = _in_tiles(config, tile, lambda z: training.decode(config, params, z), makes=config.net.factor)(z)
    return training.picture_of(config, y)


def make_codec(config: Config, tile: int = 0) -> Codec:
    """Both ways as functions of parameters, with the scale that the config says. With `tile` a picture is cut into
    tiles of so many pixels a side, of which neighbours share a quarter, and is blended of them: what a net reads within
    a sixteenth of a tile is as in the whole. Norms of groups and attention see their tile alone, so that the tone may
    differ a little from tile to tile.

    Raises:
        ValueError: if the net does not take such tiles.
    """
    check_tile(config, tile)
    return Codec(
        lambda params, x: scaled(config.latents, latents_of(config, params, x, tile)),
        lambda params, z: pictures_of(config, params, unscaled(config.latents, z), tile),
    )


def _in_tiles(config: Config, tile: int, function: Callable[[Any], Any], **sizes: int) -> Callable[[Any], Any]:
    if not tile:
        return function
    cells = tile // config.net.factor
    return tiled_between(function, tile=cells, overlap=cells // OVERLAP, **sizes)


def check_tile(config: Config, tile: int) -> None:
    """Raises ValueError unless the net takes tiles of so many pixels, 0 for none."""
    least = OVERLAP * config.net.factor
    fits = tile == 0 or (tile >= least and tile % config.net.factor == 0)
    require(fits, f"tile={tile}: expected 0 (none), or a multiple of {config.net.factor} pixels from {least} on")


def check_size(config: Config, height: int, width: int, what: str = "a picture") -> None:
    """Raises ValueError unless the net takes pictures of this size as they are, naming sizes near to it."""
    factor, size = config.net.factor, config.net.image_size
    if isinstance(config.net, DenseAutoencoder):
        require((height, width) == (size, size), f"{what} of {width}x{height}: this net takes {size}x{size} alone")
    near = [{max(side // factor, 1) * factor, -(-side // factor) * factor} for side in (width, height)]
    smaller, larger = (f"{pick(near[0])}x{pick(near[1])}" for pick in (min, max))
    others = smaller if smaller == larger else f"{smaller} or {larger}"
    require(
        height % factor == 0 and width % factor == 0,
        f"{what} of {width}x{height}: the sides have to be multiples of {factor}, the nearest are {others}",
    )
