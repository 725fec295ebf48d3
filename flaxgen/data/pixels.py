"""Pixels: 8-bit integers in files and batches, numbers in [-1, 1] in nets."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped, UInt8


def unit_range(x: Shaped[Array, "B ..."]) -> Float[Array, "B ..."]:
    """8-bit integers to [-1, 1]; floating points as they are, in float32."""
    return x.astype(jnp.float32) / 127.5 - 1 if x.dtype == jnp.uint8 else x.astype(jnp.float32)


def to_pixels(images: Float[np.ndarray, "*any"]) -> UInt8[np.ndarray, "*any"]:
    """[-1, 1] to 0..255, rounded; what lies outside is clipped."""
    return np.clip(np.round((images + 1) * 127.5), 0, 255).astype(np.uint8)
