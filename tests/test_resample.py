"""FIR resampling beside scipy, and what its filters must keep."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from flaxgen.resample import downsample2d, filter2d, setup_filter, upfirdn2d, upsample2d

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 5, 7, 3)).astype(np.float32)
SQUARE, WIDE, LINE = (RNG.normal(size=shape).astype(np.float32) for shape in ((4, 4), (2, 5), (6,)))


def by_scipy(x, kernel, *, up=1, down=1, padding=(0, 0, 0, 0), gain=1.0, flip=False):
    """What upfirdn2d says it does, a channel at a time in float64."""
    kernel = np.outer(kernel, kernel) if kernel.ndim == 1 else kernel
    kernel = gain * np.float64(kernel[::-1, ::-1] if flip else kernel)
    b, h, w, c = x.shape
    wide = np.zeros((b, h * up, w * up, c))
    wide[:, ::up, ::up] = x
    y0, y1, x0, x1 = padding
    wide = np.pad(wide, ((0, 0), (max(y0, 0), max(y1, 0)), (max(x0, 0), max(x1, 0)), (0, 0)))
    wide = wide[:, max(-y0, 0) : wide.shape[1] - max(-y1, 0), max(-x0, 0) : wide.shape[2] - max(-x1, 0)]
    planes = [[signal.convolve2d(wide[i, :, :, j], kernel, "valid") for j in range(c)] for i in range(b)]
    return np.stack(planes).transpose(0, 2, 3, 1)[:, ::down, ::down]


@pytest.mark.parametrize(
    ("kernel", "options"),
    [
        (SQUARE, {}),
        (SQUARE, {"up": 2, "padding": (2, 1, 2, 1), "gain": 4.0}),
        (SQUARE, {"down": 2, "padding": (1, 1, 1, 1), "flip": True}),
        (WIDE, {"up": 3, "down": 2, "padding": (4, 0, 1, 2)}),
        (WIDE, {"up": 2, "padding": (-3, 1, 0, -2)}),
        (LINE, {"up": 2, "down": 3, "padding": (3, -1, 5, 2), "gain": 2.0}),
        (LINE, {"up": 2, "padding": (-1, 0, -4, 0), "flip": True}),
    ],
)
def test_upfirdn2d_is_scipys(kernel, options):
    expected = by_scipy(X, kernel, **options)
    np.testing.assert_allclose(upfirdn2d(jnp.asarray(X), kernel, **options), expected, atol=1e-5)


@pytest.mark.parametrize("taps", [(1, 3, 3, 1), (1, 2, 1), (1, 4, 6, 4, 1, 0)])
def test_sizes_and_levels(taps):
    """A constant picture stays one away from its borders, at any size."""
    kernel, flat = setup_filter(taps), jnp.ones((1, 16, 8, 1))
    for y, size in (
        (upsample2d(flat, kernel), (32, 16)),
        (upsample2d(flat, kernel, up=4), (64, 32)),
        (downsample2d(flat, kernel), (8, 4)),
        (filter2d(flat, kernel), (16, 8)),
        (filter2d(flat, setup_filter(taps, separable=True)), (16, 8)),
    ):
        assert y.shape == (1, *size, 1)
    np.testing.assert_allclose(downsample2d(flat, kernel)[0, 2:-2, 2:-2], 1, atol=1e-6)
    np.testing.assert_allclose(filter2d(flat, kernel)[0, 3:-3, 3:-3], 1, atol=1e-6)


def test_upsampling_twice_as_large_keeps_the_level():
    flat = jnp.ones((1, 8, 8, 1))
    np.testing.assert_allclose(upsample2d(flat, setup_filter())[0, 2:-2, 2:-2], 1, atol=1e-6)


def test_a_separable_filter_is_its_square():
    square, line = setup_filter(), setup_filter(separable=True)
    x = jnp.asarray(X)
    for function in (upsample2d, downsample2d, filter2d):
        np.testing.assert_allclose(function(x, line, padding=2), function(x, square, padding=2), atol=1e-6)


def test_up_and_down_are_transposes():
    """<down(x), y> = <x, up(y)> / 4 with the filter mirrored, which is how training sees them."""
    x, y = (
        jnp.asarray(RNG.normal(size=(1, 8, 8, 2)), jnp.float32),
        jnp.asarray(RNG.normal(size=(1, 4, 4, 2)), jnp.float32),
    )
    _, transpose = jax.vjp(lambda x: downsample2d(x, SQUARE), x)
    np.testing.assert_allclose(transpose(y)[0], upsample2d(y, SQUARE, flip=True) / 4, atol=1e-5)


@pytest.mark.parametrize(
    ("kernel", "message"),
    [(np.ones((1, 2, 3), np.float32), "1 or 2 dimensions"), (np.ones((9, 2), np.float32), "5 rows after padding")],
)
def test_filters_that_do_not_fit_are_refused(kernel, message):
    with pytest.raises(ValueError, match=message):
        upfirdn2d(jnp.asarray(X), kernel)
