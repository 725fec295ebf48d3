"""Convolutions for nets that predict a grid in raster order: rows from the top, and each from the left [vdOord16]."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Num

from flaxgen.nets import layers
from flaxgen.nets.layers import Image

SMALL = nn.initializers.variance_scaling(0.01, "fan_avg", "uniform")
"""A tenth of the usual standard deviation, for what begins close to nothing."""


def shift_down(x: Image) -> Image:
    """Every row one further down, under a row of zeros: what read rows up to its own now reads rows above it."""
    return jnp.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]


def shift_right(x: Image) -> Image:
    """Every column one further right, after a column of zeros."""
    return jnp.pad(x, ((0, 0), (0, 0), (1, 0), (0, 0)))[:, :, :-1]


def down_conv(
    features: int, size: tuple[int, int], *, name: str, dtype: Any, stride: int = 1, small: bool = False
) -> nn.Conv:
    """A convolution of `size` (rows, columns; columns odd) that reads rows up to its own, and columns on both sides."""
    rows, columns = size
    padding = ((rows - 1, 0), (columns // 2, columns // 2))
    init = SMALL if small else layers.INIT
    return nn.Conv(features, size, stride, padding, dtype=dtype, kernel_init=init, name=name)


def right_conv(
    features: int, size: tuple[int, int], *, name: str, dtype: Any, stride: int = 1, small: bool = False
) -> nn.Conv:
    """A convolution of `size` (rows, columns) that reads rows and columns up to its own, and nothing to its right."""
    rows, columns = size
    padding = ((rows - 1, 0), (columns - 1, 0))
    init = SMALL if small else layers.INIT
    return nn.Conv(features, size, stride, padding, dtype=dtype, kernel_init=init, name=name)


class Enlarge(nn.Module):
    """A transposed convolution of `size` and stride 2, cut to `height` x `width`; a place is read by no row above those
    that it stands for, and with a kernel of 2 columns by no column left of them either.

    The columns of wider kernels are centred.
    """

    features: int
    size: tuple[int, int]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Image, height: int, width: int) -> Float[Array, "B {height} {width} F"]:
        conv = nn.ConvTranspose(
            self.features, self.size, (2, 2), "VALID", dtype=self.dtype, kernel_init=layers.INIT, name="conv"
        )
        left = (self.size[1] - 1) // 2
        return conv(x)[:, :height, left : left + width]


def row_conv(
    features: int,
    taps: int,
    inputs: int,
    *,
    name: str,
    dtype: Any,
    strict: bool = False,
    runs: int = 1,
    halves: int = 1,
) -> nn.Conv:
    """A masked convolution over a place and the `taps` - 1 to its left [vdOord16, sec. 3.1 and 3.4].

    Of its own place it reads what mask B lets through, or with `strict` mask A. Where `inputs` channels and `features`
    are `runs` equal runs (one for each channel of a pixel), run i reads runs up to i, and with `strict` those before i.
    The features may be `halves` such sets of runs behind each other, as gated units have them.
    """
    reader = np.repeat(np.tile(np.arange(runs), halves), features // (runs * halves))
    read = np.repeat(np.arange(runs), inputs // runs)
    mask = np.ones((1, taps, inputs, features), np.float32)
    mask[0, -1] = read[:, None] < reader[None] if strict else read[:, None] <= reader[None]
    padding = ((0, 0), (taps - 1, 0))
    return nn.Conv(features, (1, taps), 1, padding, mask=mask, dtype=dtype, kernel_init=layers.INIT, name=name)


def read_levels(pixels: Num[Array, "B H W C"], levels: int) -> Float[Array, "B H W C+1"]:
    """Levels 0 .. `levels` - 1 as -1 .. 1, and a channel of ones, which is 0 beyond the picture's edge [Salimans17]."""
    x = 2 * pixels.astype(jnp.float32) / (levels - 1) - 1
    return jnp.concatenate((x, jnp.ones_like(x[..., :1])), axis=-1)
