"""Upsample, filter and downsample pictures by small FIR filters [Karras20b, torch_utils/ops/upfirdn2d].

A filter runs along rows, then along columns, each time as a sum of shifted slices: XLA's grouped convolutions, which
could do both at once, take ten to a hundred times as long on a CPU. Its derivative is written down as what it is,
another filter, because the transpose that JAX finds for the slices takes up to thirty times as long.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Float64

Kernel: TypeAlias = Float32[np.ndarray, "..."]
"""The taps of a filter: [taps] of one that is the same in both directions, or [height width]."""
Padding: TypeAlias = int | tuple[int, int, int, int]
"""Rows above and below, columns left and right; one number is all four. Negative numbers crop."""

BILINEAR = (1, 3, 3, 1)
"""The filter of StyleGAN2."""
RANK_TOLERANCE = 1e-6
"""Singular values of a kernel below this share of the largest are rounding."""


def setup_filter(taps: Sequence[int | float] = BILINEAR) -> Kernel:
    """A filter for both directions that keeps constant pictures as they are: the taps over their sum."""
    line = np.asarray(taps, np.float64)
    return (line / line.sum()).astype(np.float32)


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
    `flip` correlates instead of convolving; `gain` is that of the whole filter. Derivatives of any order are by reverse
    mode (`jax.grad`, `jax.vjp`) only.

    Raises:
        ValueError: if the kernel has other than 1 or 2 dimensions, or is larger than the padded picture.
    """
    if kernel.ndim not in (1, 2):
        raise ValueError(f"a filter has 1 or 2 dimensions, this one has shape {kernel.shape}")
    y0, y1, x0, x1 = _sides(padding)
    height, width = x.shape[1:3]
    for name, size, taps in (
        ("rows", height * up + y0 + y1, kernel.shape[0]),
        ("columns", width * up + x0 + x1, kernel.shape[-1]),
    ):
        if size < taps:
            raise ValueError(f"{size} {name} after padding are fewer than a filter's {taps} taps")
    rows = functools.partial(_Pass, axis=1, size=height, up=up, down=down, before=y0, after=y1)
    columns = functools.partial(_Pass, axis=2, size=width, up=up, down=down, before=x0, after=x1)
    lines = _lines(np.asarray(kernel if flip else np.flip(kernel), np.float64), gain)
    return functools.reduce(jnp.add, [_filter(_filter(x, rows(v)), columns(h)) for v, h in lines])


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


Taps: TypeAlias = tuple[float, ...]


def _lines(kernel: Float64[np.ndarray, "..."], gain: float) -> list[tuple[Taps, Taps]]:
    """Columns and rows whose products add up to the kernel times gain: one pair of them where that is enough."""
    if kernel.ndim == 1:
        line = tuple((kernel * gain**0.5).tolist())
        return [(line, line)]
    columns, sizes, rows = np.linalg.svd(gain * kernel)
    rank = max(1, int((sizes > RANK_TOLERANCE * sizes[0]).sum()))
    return [(tuple((columns[:, i] * sizes[i]).tolist()), tuple(rows[i].tolist())) for i in range(rank)]


class _Pass(NamedTuple):
    """A filter along an axis of `size` pixels, correlating with `taps`."""

    taps: Taps
    axis: int
    size: int
    up: int
    down: int
    before: int
    after: int

    def dense(self) -> int:
        """Pixels that come out before every down-th is kept."""
        return self.size * self.up + self.before + self.after - len(self.taps) + 1

    def transposed(self) -> "_Pass":
        """What takes cotangents of the output back to the input."""
        out, before = -(-self.dense() // self.down), len(self.taps) - self.before - 1
        after = self.size * self.up - out * self.down + self.before - self.up + 1
        return _Pass(self.taps[::-1], self.axis, out, self.down, self.up, before, after)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _filter(x: Float[Array, "B H W C"], line: _Pass) -> Float[Array, "B h w C"]:
    """Output pixel up*m + r is a sum over the taps that meet a pixel, not an inserted zero, at phase r."""
    axis, up, before = line.axis, line.up, line.before
    stride = line.down if up == 1 else 1
    count = -(-line.dense() // (up * stride))
    phases = [
        [(tap, (r + t - before) // up) for t, tap in enumerate(line.taps) if (r + t - before) % up == 0]
        for r in range(up)
    ]
    places = [place for phase in phases for _, place in phase]
    first, last = min(places), max(places)
    pads = [(0, 0, 0)] * x.ndim
    pads[axis] = (-first, (count - 1) * stride + last - (line.size - 1), 0)
    wide = jax.lax.pad(x, jnp.zeros((), x.dtype), pads)

    def at(place: int):
        return jax.lax.slice_in_dim(wide, place - first, place - first + (count - 1) * stride + 1, stride, axis)

    nothing = jnp.zeros_like(at(first))
    sums = [functools.reduce(jnp.add, [tap * at(place) for tap, place in phase] or [nothing]) for phase in phases]
    if up == 1:
        return sums[0]
    mixed = jnp.stack(sums, axis + 1).reshape(*x.shape[:axis], up * count, *x.shape[axis + 1 :])
    return jax.lax.slice_in_dim(mixed, 0, line.dense(), line.down, axis)


def _forward(x, line: _Pass):
    return _filter(x, line), None


def _backward(line: _Pass, _, cotangent):
    return (_filter(cotangent, line.transposed()),)


_filter.defvjp(_forward, _backward)
