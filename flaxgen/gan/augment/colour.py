"""What ADA does to colours: 4x4 matrices on (red, green, blue, 1) [Karras20b, app. B]."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

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


def draw_colour(key: PRNGKey, probability: Scalar) -> tuple[Matrix, Bool[Array, ""]]:
    """A matrix of brightness, contrast, luma flip, hue and saturation in this order, each with that probability, and
    whether there is any of them."""
    uniform_key, normal_key = jax.random.split(key)
    chance, share = jnp.split(jax.random.uniform(uniform_key, (7,)), [5])
    normal = jax.random.normal(normal_key, (3,))
    drawn = chance < probability
    steps = (
        saturation(jnp.where(drawn[4], jnp.exp2(SATURATION_STD * normal[2]), 1)),
        hue(jnp.where(drawn[3], np.pi * (2 * share[1] - 1), 0)),
        luma_flip(drawn[2] & (share[0] < 0.5)),
        scale(jnp.where(drawn[1], jnp.exp2(CONTRAST_STD * normal[1]), 1)),
        brightness(jnp.where(drawn[0], BRIGHTNESS_STD * normal[0], 0)),
    )
    return functools.reduce(functools.partial(jnp.matmul, precision=HIGHEST), steps), jnp.any(drawn)


def brightness(level: Float[Array, ""]) -> Matrix:
    """`level` more of every colour."""
    return jnp.eye(4).at[:3, 3].set(level)


def scale(factor: Float[Array, ""]) -> Matrix:
    """Contrast: every colour times that, mid-grey staying."""
    return _linear(factor * jnp.eye(3))


def luma_flip(flip: Bool[Array, ""]) -> Matrix:
    """Where `flip` is true, greys are mirrored at mid-grey, and hue and saturation stay."""
    return _linear(jnp.eye(3) - jnp.where(flip, 2, 0) * ALONG)


def hue(angle: Float[Array, ""]) -> Matrix:
    """Colours turned about the greys by that many radians, from red towards green [Rodrigues' formula]."""
    x, y, z = LUMA.tolist()
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]], np.float32)
    return _linear(jnp.cos(angle) * (jnp.eye(3) - ALONG) + jnp.sin(angle) * cross + ALONG)


def saturation(factor: Float[Array, ""]) -> Matrix:
    """Distance from grey times that."""
    return _linear(factor * (jnp.eye(3) - ALONG) + ALONG)


def _linear(matrix: Float[Array, "3 3"]) -> Matrix:
    return jnp.eye(4).at[:3, :3].set(matrix)


def recolour(image: Float[Array, "H W 3"], matrix: Matrix) -> Float[Array, "H W 3"]:
    """Every pixel's colour through the matrix; nothing is clipped."""
    return jnp.einsum("ij,hwj->hwi", matrix[:3, :3], image, precision=HIGHEST) + matrix[:3, 3][None, None]
