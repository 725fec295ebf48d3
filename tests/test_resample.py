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
    found = jax.jit(lambda x: upfirdn2d(x, kernel, **options))(X)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("taps", [(1, 3, 3, 1), (1, 2, 1), (1, 4, 6, 4, 1, 0)])
def test_sizes_and_levels(taps):
    """A constant picture stays one away from its borders, at any size."""
    kernel, flat = setup_filter(taps), jnp.ones((1, 16, 14, 1))

    @jax.jit
    def run(flat):
        larger = upsample2d(flat, kernel), upsample2d(flat, kernel, up=4)
        return *larger, downsample2d(flat, kernel), filter2d(flat, kernel), filter2d(flat, np.outer(kernel, kernel))

    for y, size in zip(run(flat), ((32, 28), (64, 56), (8, 7), (16, 14), (16, 14)), strict=True):
        assert y.shape == (1, *size, 1)
        if size[0] <= 16:
            np.testing.assert_allclose(y[0, 3:-3, 3:-3], 1, atol=1e-6)


def test_upsampling_keeps_the_level():
    flat = jnp.ones((1, 8, 8, 1))
    np.testing.assert_allclose(upsample2d(flat, setup_filter())[0, 2:-2, 2:-2], 1, atol=1e-6)


def test_a_separable_filter_is_its_square():
    line = setup_filter()

    @jax.jit
    def run(x):
        functions = (upsample2d, downsample2d, filter2d)
        return [[f(x, kernel, padding=2) for f in functions] for kernel in (line, np.outer(line, line))]

    for found, square in zip(*run(X), strict=True):
        np.testing.assert_allclose(found, square, atol=1e-6)


@pytest.mark.parametrize(("kernel", "up", "down"), [(SQUARE, 1, 1), (LINE, 3, 1), (WIDE, 1, 3), (LINE, 2, 3)])
def test_its_derivative_is_its_transpose(kernel, up, down):
    """<A x, y> = <x, A^T y>, and A^T^T = A, as second derivatives ask for."""

    def run(x):
        return upfirdn2d(x, kernel, up=up, down=down, padding=(3, 2, -1, 4))

    @jax.jit
    def both(x, y):
        out, transpose = jax.vjp(run, x)
        back, again = jax.vjp(lambda y: transpose(y)[0], y)
        return out, back, again(x)[0]

    y = RNG.normal(size=jax.eval_shape(run, X).shape).astype(np.float32)
    out, back, again = both(X, y)
    assert np.vdot(back, X) == pytest.approx(np.vdot(out, y), rel=1e-4)
    np.testing.assert_allclose(again, out, atol=1e-5)


@pytest.mark.parametrize(
    ("kernel", "message"),
    [(np.ones((1, 2, 3), np.float32), "1 or 2 dimensions"), (np.ones((9, 2), np.float32), "5 rows after padding")],
)
def test_filters_that_do_not_fit_are_refused(kernel, message):
    with pytest.raises(ValueError, match=message):
        upfirdn2d(jnp.asarray(X), kernel)
