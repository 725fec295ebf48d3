"""What ADA does to colours: 4x4 matrices on (red, green, blue, 1) [Karras20b, app. B]."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from flaxgen.gan.augment.chance import Drawn, log2_normal, maybe, uniform_sign
from flaxgen.types import PRNGKey, Scalar

Matrix = Float[Array, "4 4"]
HIGHEST = jax.lax.Precision.HIGHEST

BRIGHTNESS_STD = 0.2
"""Where pictures span [-1, 1]."""
CONTRAST_STD, SATURATION_STD = 0.5, 1.0
"""Of the logarithms to base 2."""
LUMA = np.full(3, 3**-0.5, np.float32)
"""The direction of greys."""
ALONG = np.outer(LUMA, LUMA)
"""Takes a colour to its grey."""


def draw_colour(key: PRNGKey, probability: Scalar) -> Drawn:
    """A matrix of brightness, contrast, luma flip, hue and saturation in this order, each with that probability, and
    whether there is any of them."""
    keys = jax.random.split(key, 5)
    level = maybe(keys[0], probability, lambda key: BRIGHTNESS_STD * jax.random.normal(key), 0)
    contrast = maybe(keys[1], probability, lambda key: log2_normal(key, CONTRAST_STD), 1)
    flip = maybe(keys[2], probability, lambda key: jax.random.randint(key, (), 0, 2), 0)
    angle = maybe(keys[3], probability, lambda key: uniform_sign(key, np.pi), 0)
    colourful = maybe(keys[4], probability, lambda key: log2_normal(key, SATURATION_STD), 1)
    steps = (
        saturation(colourful.value),
        hue(angle.value),
        luma_flip(flip.value),
        scale(contrast.value),
        brightness(level.value),
    )
    matrix = functools.reduce(functools.partial(jnp.matmul, precision=HIGHEST), steps)
    drawn = [step.drawn for step in (level, contrast, flip, angle, colourful)]
    return Drawn(matrix, functools.reduce(jnp.logical_or, drawn))


def brightness(level: Float[Array, ""]) -> Matrix:
    """`level` more of every colour."""
    return jnp.eye(4).at[:3, 3].set(level)


def scale(factor: Float[Array, ""]) -> Matrix:
    """Contrast: every colour times that, mid-grey staying."""
    return _linear(factor * jnp.eye(3))


def luma_flip(flip: Shaped[Array, ""]) -> Matrix:
    """Where `flip` is 1, greys are mirrored at mid-grey, and hue and saturation stay."""
    return _linear(jnp.eye(3) - 2 * flip * ALONG)


def hue(angle: Float[Array, ""]) -> Matrix:
    """Colours turned about the greys by that many radians, from red towards green [Rodrigues' formula]."""
    x, y, z = LUMA.tolist()
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]], np.float32)
    return _linear(ALONG + jnp.cos(angle) * (jnp.eye(3) - ALONG) + jnp.sin(angle) * cross)


def saturation(factor: Float[Array, ""]) -> Matrix:
    """Distance from grey times that."""
    return _linear(ALONG + factor * (jnp.eye(3) - ALONG))


def _linear(matrix: Float[Array, "3 3"]) -> Matrix:
    return jnp.eye(4).at[:3, :3].set(matrix)


def recolour(image: Float[Array, "H W 3"], matrix: Matrix) -> Float[Array, "H W 3"]:
    """Every pixel's colour through the matrix; nothing is clipped."""
    return jnp.einsum("ij,hwj->hwi", matrix[:3, :3], image, precision=HIGHEST) + matrix[:3, 3][None, None]
