"""What ADA adds to and takes from pictures: noise and a hole [Karras20b, app. B]."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flaxgen.types import PRNGKey, Scalar

Picture = Float[Array, "H W C"]

NOISE_STD = 0.1
"""Of the noise's own standard deviation, where pictures span [-1, 1]."""
HOLE = 0.5
"""In shares of the sides."""


def add_noise(image: Picture, key: PRNGKey, probability: Scalar) -> Picture:
    """With that probability, normal noise of a standard deviation that is drawn too."""
    chance_key, std_key, noise_key = jax.random.split(key, 3)
    drawn = jax.random.uniform(chance_key) < probability
    std = NOISE_STD * jnp.abs(jax.random.normal(std_key))
    return jnp.where(drawn, image + std * jax.random.normal(noise_key, image.shape), image)


def cut_out(image: Picture, key: PRNGKey, probability: Scalar) -> Picture:
    """With that probability, mid-grey in a rectangle of half the sides around any place of the picture."""
    chance, *centre = jax.random.uniform(key, (3,))
    height, width, _ = image.shape
    row_in, column_in = (
        jnp.abs((jnp.arange(size) + 0.5) / size - place) < HOLE / 2
        for size, place in zip((height, width), centre, strict=True)
    )
    hole = row_in[:, None, None] & column_in[None, :, None]
    return jnp.where((chance < probability) & hole, 0, image)
