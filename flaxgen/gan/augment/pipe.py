"""Adaptive discriminator augmentation as one function of (images, p, keys) [Karras20b]."""

from collections.abc import Callable
from dataclasses import dataclass, fields

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flaxgen.gan.augment.bands import amplify, draw_gains
from flaxgen.gan.augment.colour import draw_colour, recolour
from flaxgen.gan.augment.corrupt import add_noise, cut_out
from flaxgen.gan.augment.geometry import blit, compose, draw_affine, draw_blit, resample
from flaxgen.types import Keys, Scalar

Images = Float[Array, "B H W C"]
Augment = Callable[[Images, Scalar, Keys], Images]
"""(images in [-1, 1], p, a key an example) -> images: with p = 0 the same ones, bit for bit. A picture depends on its
own key alone; nothing is clipped. p may be traced; gradients flow through to the images."""


@dataclass(frozen=True)
class Pipe:
    """Which groups of augmentations there are, by NVlabs' names: what p is multiplied by for each, in [0, 1].

    `blit`: flips, quarter turns, whole shifts. `geom`: scale, rotation, stretch, fractional shifts. `color`:
    brightness, contrast, luma flip, hue, saturation. `filter`: four bands of frequencies. `noise`, `cutout`.

    Raises:
        ValueError: if a factor is out of [0, 1].
    """

    blit: float = 0.0
    geom: float = 0.0
    color: float = 0.0
    filter: float = 0.0
    noise: float = 0.0
    cutout: float = 0.0

    def __post_init__(self):
        for field in fields(self):
            if not 0 <= getattr(self, field.name) <= 1:
                raise ValueError(f"{field.name}={getattr(self, field.name)}: expected a factor of p in [0, 1]")


PIPES: dict[str, Pipe] = {
    "blit": Pipe(blit=1.0),
    "geom": Pipe(geom=1.0),
    "color": Pipe(color=1.0),
    "filter": Pipe(filter=1.0),
    "noise": Pipe(noise=1.0),
    "cutout": Pipe(cutout=1.0),
    "bg": Pipe(blit=1.0, geom=1.0),
    "bgc": Pipe(blit=1.0, geom=1.0, color=1.0),
    "bgcf": Pipe(blit=1.0, geom=1.0, color=1.0, filter=1.0),
    "bgcfn": Pipe(blit=1.0, geom=1.0, color=1.0, filter=1.0, noise=1.0),
    "bgcfnc": Pipe(blit=1.0, geom=1.0, color=1.0, filter=1.0, noise=1.0, cutout=1.0),
}
"""NVlabs' sets; they train with `bgc`."""


def make_augment(pipe: Pipe, shape: tuple[int, int, int]) -> Augment:
    """ADA for pictures of that shape (rows, columns, channels).

    What one group draws does not depend on which others there are.

    Raises:
        ValueError: if the pictures are not square, or not RGB where the pipe has `color`.
    """
    height, width, channels = shape
    if height != width or height < 2:
        raise ValueError(f"ADA turns pictures, so it takes square ones: these are {height}x{width}; crop them")
    if pipe.color and channels != 3:
        raise ValueError(f"ADA on non-RGB: color takes 3 channels, these pictures have {channels}; use pipe bg")

    def augment(images: Images, p: Scalar, keys: Keys) -> Images:
        if images.shape[1:] != shape:
            raise ValueError(f"pictures of shape {images.shape[1:]} came to an augmentation made for {shape}")
        p = jnp.asarray(p, jnp.float32)
        groups = jax.vmap(lambda key: jax.random.split(key, 5))(keys)
        images = _move(pipe, images, p, groups[:, 0]) if pipe.blit or pipe.geom else images

        def rest(image, keys):
            for group, apply in enumerate((_colour, _filter, _noise, _cutout), 1):
                image = apply(pipe, image, p, keys[group])
            return image

        return jax.vmap(rest)(images, groups)

    return augment


def _move(pipe: Pipe, images: Images, p: Float[Array, ""], keys: Keys) -> Images:
    """Whole-pixel moves are exact unless there are others too: then all are one map."""
    side = images.shape[1]

    def draw(key):
        blit_key, affine_key = jax.random.split(key)
        whole = draw_blit(blit_key, pipe.blit * p, side)
        affine, drawn = draw_affine(affine_key, pipe.geom * p, side)
        return whole, compose(whole, affine), drawn

    whole, inverses, drawn = jax.vmap(draw)(keys)
    moved = jax.vmap(blit)(images, whole) if pipe.blit else images
    return jnp.where(drawn[:, None, None, None], resample(images, inverses), moved) if pipe.geom else moved


def _colour(pipe: Pipe, image, p, key):
    if not pipe.color:
        return image
    matrix, drawn = draw_colour(key, pipe.color * p)
    return jnp.where(drawn, recolour(image, matrix), image)


def _filter(pipe: Pipe, image, p, key):
    if not pipe.filter:
        return image
    gains, drawn = draw_gains(key, pipe.filter * p)
    return jnp.where(drawn, amplify(image, gains), image)


def _noise(pipe: Pipe, image, p, key):
    return add_noise(image, key, pipe.noise * p) if pipe.noise else image


def _cutout(pipe: Pipe, image, p, key):
    return cut_out(image, key, pipe.cutout * p) if pipe.cutout else image
