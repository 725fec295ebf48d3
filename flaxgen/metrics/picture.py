"""How far pictures are from the ones they should be, pixel by pixel: PSNR and SSIM."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

Pictures = Float[Array | np.ndarray, "_ _ _ _"] | UInt8[Array | np.ndarray, "_ _ _ _"]
"""[B H W C]; the shapes of two are compared by hand, so that a difference has a message of its own."""
RADIUS = 5
SIGMA = 1.5
K1, K2 = 0.01, 0.03


def psnr(a: Pictures, b: Pictures, data_range: float | int) -> Float[Array, " B"]:
    """10 log10(data_range^2 / mean squared error) in dB, of each pair; infinite for equal pictures.

    `data_range` is the span of the values: 255 for bytes, 2 for [-1, 1].

    Raises:
        ValueError: if the shapes differ or data_range is not above 0.
    """
    a, b = _pair(a, b, data_range)
    return 10 * jnp.log10(data_range**2 / jnp.mean((a - b) ** 2, axis=(1, 2, 3)))


def ssim(a: Pictures, b: Pictures, data_range: float | int) -> Float[Array, " B"]:
    """Structural similarity, at most 1, of each pair [Wang04, eq. 13]: means over pixels and channels.

    As published: moments in a Gaussian window of 11 x 11 pixels and sigma 1.5 where all of it lies in the picture,
    K1 = 0.01, K2 = 0.03. `data_range` as for `psnr`. Colours are channels of equal weight.

    Raises:
        ValueError: as for `psnr`, or if a side is shorter than the window.
    """
    a, b = _pair(a, b, data_range)
    if min(a.shape[1:3]) < 2 * RADIUS + 1:
        raise ValueError(
            f"SSIM needs pictures of {2 * RADIUS + 1} pixels a side or more, got {a.shape[1]}x{a.shape[2]}"
        )
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    # variances are differences of squares, which lose fewer digits about the centre
    center_a, center_b = (jnp.mean(image, axis=(1, 2), keepdims=True) for image in (a, b))
    x, y = a - center_a, b - center_b
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = _windowed(jnp.stack([x, y, x * x, y * y, x * y]))
    var_x, var_y, cov = mean_xx - mean_x**2, mean_yy - mean_y**2, mean_xy - mean_x * mean_y
    mean_x, mean_y = mean_x + center_a, mean_y + center_b
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return jnp.mean(luminance * (2 * cov + c2) / (var_x + var_y + c2), axis=(1, 2, 3))


def _windowed(pictures: Float[Array, "N B H W C"]) -> Float[Array, "N B h w C"]:
    """Means in the Gaussian window, where it fits."""
    weights = np.exp(-(np.arange(-RADIUS, RADIUS + 1) ** 2) / (2 * SIGMA**2))
    weights = (weights / weights.sum()).astype(np.float32)
    for axis in (2, 3):
        size = pictures.shape[axis] - 2 * RADIUS
        taps = [jax.lax.slice_in_dim(pictures, k, k + size, axis=axis) for k in range(2 * RADIUS + 1)]
        pictures = sum((weight * tap for weight, tap in zip(weights, taps, strict=True)), jnp.zeros_like(taps[0]))
    return pictures


def _pair(a: Pictures, b: Pictures, data_range: float | int) -> tuple[Float[Array, "B H W C"], Float[Array, "B H W C"]]:
    if a.shape != b.shape:
        raise ValueError(f"pictures are compared with pictures of their own shape, got {a.shape} and {b.shape}")
    if not data_range > 0:
        raise ValueError(f"data_range={data_range} must be above 0: 255 for bytes, 2 for [-1, 1]")
    return jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32)
