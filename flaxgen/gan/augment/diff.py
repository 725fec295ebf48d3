"""DiffAugment: a few augmentations, always on, of real and generated pictures alike [Zhao20]."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flaxgen.types import Keys, PRNGKey

Picture = Float[Array, "H W C"]
Images = Float[Array, "B H W C"]


def brighten(image: Picture, key: PRNGKey) -> Picture:
    """All values plus one uniform in [-0.5, 0.5)."""
    return image + jax.random.uniform(key, minval=-0.5, maxval=0.5)


def saturate(image: Picture, key: PRNGKey) -> Picture:
    """Distance from each pixel's grey times a factor uniform in [0, 2)."""
    grey = image.mean(axis=2, keepdims=True)
    return grey + jax.random.uniform(key, maxval=2.0) * (image - grey)


def contrast(image: Picture, key: PRNGKey) -> Picture:
    """Distance from the picture's mean times a factor uniform in [0.5, 1.5)."""
    mean = image.mean()
    return mean + jax.random.uniform(key, minval=0.5, maxval=1.5) * (image - mean)


def shift(image: Picture, key: PRNGKey) -> Picture:
    """By whole pixels up to an eighth of the sides, with zeros coming in."""
    height, width, _ = image.shape
    rows, columns = height // 8, width // 8
    start = jax.random.randint(key, (2,), 0, jnp.array([2 * rows + 1, 2 * columns + 1]))
    padded = jnp.pad(image, ((rows, rows), (columns, columns), (0, 0)))
    return jax.lax.dynamic_slice(padded, (start[0], start[1], 0), image.shape)


def cut_out(image: Picture, key: PRNGKey) -> Picture:
    """Zeros in a rectangle of half the sides, whose centre is anywhere in the picture."""
    keys = jax.random.split(key)
    inside = []
    for size, side_key in zip(image.shape[:2], keys, strict=True):
        hole = size // 2
        first = jax.random.randint(side_key, (), 0, size + 1 - hole % 2) - hole // 2
        places = jnp.arange(size)
        inside.append((places >= first) & (places < first + hole))
    return jnp.where(inside[0][:, None, None] & inside[1][None, :, None], 0, image)


POLICIES: dict[str, tuple[Callable[[Picture, PRNGKey], Picture], ...]] = {
    "color": (brighten, saturate, contrast),
    "translation": (shift,),
    "cutout": (cut_out,),
}
"""The names of the paper's code; it trains with all three."""


def diff_augment(policy: str, images: Images, keys: Keys) -> Images:
    """The groups of `policy` in their order, such as "color,translation,cutout"; "" is none.

    Raises:
        ValueError: if a group is not known.
    """
    names = [name for name in policy.split(",") if name]
    if unknown := [name for name in names if name not in POLICIES]:
        raise ValueError(f"policy={policy!r}: {unknown[0]!r} is not one of {', '.join(POLICIES)}")
    steps = [step for name in names for step in POLICIES[name]]

    def augment(image, key):
        for i, step in enumerate(steps):
            image = step(image, jax.random.fold_in(key, i))
        return image

    return jax.vmap(augment)(images, keys) if steps else images
