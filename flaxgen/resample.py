"""Upsample, filter and downsample pictures by small FIR filters, in one convolution [Karras20b, torch_utils/ops]."""

from collections.abc import Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

Kernel: TypeAlias = NDArray[np.float32]
"""The taps of a filter: [height width], or [taps] of one that is the same in both directions, one after the other."""
Padding: TypeAlias = int | tuple[int, int, int, int]
"""Rows above and below, columns left and right; one number is all four. Negative numbers crop."""

BILINEAR = (1, 3, 3, 1)
"""The filter of StyleGAN2."""


def setup_filter(taps: Sequence[int | float] = BILINEAR, *, separable: bool = False) -> Kernel:
    """A filter that keeps constant pictures as they are: `taps` over their sum, [taps taps] or [taps] if separable."""
    line = np.asarray(taps, np.float64)
    line = line / line.sum()
    return (line if separable else np.outer(line, line)).astype(np.float32)


def upfirdn2d(
    x: Float[Array, "B H W C"],
    kernel: Kernel,
    *,
    up: int = 1,
    down: int = 1,
    padding: Padding = 0,
    gain: float = 1.0,
    flip: bool = False,
) -> Float[Array, "B h w C"]:
    """Inserts up-1 zeros after every pixel, pads, convolves each channel with the kernel and keeps every down-th pixel.

    Only whole footprints of the kernel count: a side of n pixels becomes (n * up + padding - taps) // down + 1.
    `flip` correlates instead of convolving; `gain` is that of the whole filter.

    Raises:
        ValueError: if the kernel has other than 1 or 2 dimensions, or is larger than the padded picture.
    """
    if kernel.ndim not in (1, 2):
        raise ValueError(f"a filter has 1 or 2 dimensions, this one has shape {kernel.shape}")
    sides = _sides(padding)
    for name, size, (before, after), taps in zip(
        ("rows", "columns"), x.shape[1:3], (sides[:2], sides[2:]), (kernel.shape[0], kernel.shape[-1]), strict=True
    ):
        if size * up + before + after < taps:
            raise ValueError(f"{size * up + before + after} {name} after padding are fewer than a filter's {taps} taps")
    if kernel.ndim == 2:
        return _convolve(x, kernel * gain, (up, up), (down, down), sides, flip)
    line = kernel * gain**0.5
    x = _convolve(x, line[:, None], (up, 1), (down, 1), (*sides[:2], 0, 0), flip)
    return _convolve(x, line[None], (1, up), (1, down), (0, 0, *sides[2:]), flip)


def filter2d(
    x: Float[Array, "B H W C"], kernel: Kernel, *, padding: Padding = 0, gain: float = 1.0, flip: bool = False
) -> Float[Array, "B h w C"]:
    """The filtered picture, of the same size with padding 0: around it everything is zero."""
    sides = _around(kernel, padding, lambda taps: (taps // 2, (taps - 1) // 2))
    return upfirdn2d(x, kernel, padding=sides, gain=gain, flip=flip)


def upsample2d(
    x: Float[Array, "B H W C"],
    kernel: Kernel,
    *,
    up: int = 2,
    padding: Padding = 0,
    gain: float = 1.0,
    flip: bool = False,
) -> Float[Array, "B h w C"]:
    """The picture `up` times as large; `padding` is added to the result's."""
    sides = _around(kernel, padding, lambda taps: ((taps + up - 1) // 2, (taps - up) // 2))
    return upfirdn2d(x, kernel, up=up, padding=sides, gain=gain * up**2, flip=flip)


def downsample2d(
    x: Float[Array, "B H W C"],
    kernel: Kernel,
    *,
    down: int = 2,
    padding: Padding = 0,
    gain: float = 1.0,
    flip: bool = False,
) -> Float[Array, "B h w C"]:
    """The picture `down` times as small; `padding` is added to the picture's before."""
    sides = _around(kernel, padding, lambda taps: ((taps - down + 1) // 2, (taps - down) // 2))
    return upfirdn2d(x, kernel, down=down, padding=sides, gain=gain, flip=flip)


def _sides(padding: Padding) -> tuple[int, int, int, int]:
    return (padding, padding, padding, padding) if isinstance(padding, int) else padding


def _around(kernel: Kernel, padding: Padding, own) -> tuple[int, int, int, int]:
    """`padding` beside the filter's own, which follows from its taps in that direction."""
    y0, y1, x0, x1 = _sides(padding)
    (top, bottom), (left, right) = own(kernel.shape[0]), own(kernel.shape[-1])
    return y0 + top, y1 + bottom, x0 + left, x1 + right


def _convolve(
    x: Float[Array, "B H W C"],
    kernel: Kernel,
    up: tuple[int, int],
    down: tuple[int, int],
    sides: tuple[int, int, int, int],
    flip: bool,
) -> Float[Array, "B h w C"]:
    """Every channel alone, by one grouped convolution; XLA inserts zeros between pixels but not after the last."""
    channels = x.shape[-1]
    y0, y1, x0, x1 = sides
    taps = kernel if flip else kernel[::-1, ::-1]
    return jax.lax.conv_general_dilated(
        x,
        jnp.asarray(np.repeat(taps[:, :, None, None], channels, axis=3), x.dtype),
        window_strides=down,
        padding=((y0, y1 + up[0] - 1), (x0, x1 + up[1] - 1)),
        lhs_dilation=up,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=channels,
        precision=jax.lax.Precision.HIGHEST,
    )
