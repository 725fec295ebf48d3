import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import correlate1d

from flaxgen.metrics.picture import psnr, ssim

ssim_jit, psnr_jit = (jax.jit(metric, static_argnums=2) for metric in (ssim, psnr))


def pictures(seed: int = 0, noise: float = 20.0) -> tuple[np.ndarray, np.ndarray]:
    """Bytes: slopes and flat parts, and the same with noise that differs from picture to picture."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:24, :30]
    a = np.stack([4 * y + 3 * x, 250 - 2 * x, np.where(x < 15, 30, 220)], axis=-1)[None].repeat(3, axis=0)
    b = a + noise * np.arange(1, 4)[:, None, None, None] * rng.normal(size=a.shape)
    return a.astype(np.uint8), np.clip(b, 0, 255).astype(np.uint8)


def by_definition(a: np.ndarray, b: np.ndarray, data_range: float) -> float:
    """[Wang04, eq. 13] of one channel in float64, with centred moments."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    window = np.exp(-(np.subtract.outer(np.arange(11), 5) ** 2) / (2 * 1.5**2))
    window /= window.sum()

    def mean(x):
        return correlate1d(correlate1d(x, window, axis=0), window, axis=1)[5:-5, 5:-5]

    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    var_a, var_b = mean(a**2) - mean(a) ** 2, mean(b**2) - mean(b) ** 2
    cov = mean(a * b) - mean(a) * mean(b)
    top = (2 * mean(a) * mean(b) + c1) * (2 * cov + c2)
    return (top / ((mean(a) ** 2 + mean(b) ** 2 + c1) * (var_a + var_b + c2))).mean()


def test_ssim_by_its_definition():
    a, b = pictures()
    expected = [
        np.mean([by_definition(x[..., c], y[..., c], 255) for c in range(3)]) for x, y in zip(a, b, strict=True)
    ]
    np.testing.assert_allclose(ssim_jit(a, b, 255), expected, atol=1e-5)
    assert expected[0] > expected[1] > expected[2]


def test_ssim_of_constants_by_hand():
    """Without variance only the luminance is left: (2 a b + c1) / (a^2 + b^2 + c1)."""
    a, b = np.full((1, 12, 12, 1), 0.2, np.float32), np.full((1, 12, 12, 1), 0.6, np.float32)
    assert float(ssim_jit(a, b, 1)[0]) == pytest.approx((0.24 + 1e-4) / (0.4 + 1e-4), abs=1e-5)


def test_equal_pictures():
    a, _ = pictures()
    np.testing.assert_array_equal(psnr(a, a, 255), np.full(3, np.inf))
    np.testing.assert_allclose(ssim_jit(a, a, 255), 1, atol=1e-6)


def test_both_are_symmetric_and_know_no_unit():
    a, b = pictures()
    unit_a, unit_b = (jnp.asarray(x / 127.5 - 1, jnp.float32) for x in (a, b))
    np.testing.assert_allclose(psnr_jit(unit_a, unit_b, 2), psnr_jit(a, b, 255), rtol=1e-5)
    for metric in (psnr_jit, ssim_jit):
        np.testing.assert_allclose(metric(a, b, 255), metric(b, a, 255), rtol=1e-5)
    shifted = [jnp.asarray(x, jnp.float32) / 255 for x in (a, b)]
    np.testing.assert_allclose(ssim_jit(*shifted, 1.0), ssim_jit(a, b, 255), atol=1e-5)


def test_psnr_by_hand():
    """One level off everywhere is 20 log10 255 dB; a quarter of the pixels off by two levels is the same."""
    a = np.full((2, 4, 4, 3), 100, np.uint8)
    b = a.copy()
    b[0] += 1
    b[1, :2, :2] += 2
    np.testing.assert_allclose(psnr(a, b, 255), 20 * np.log10(255), rtol=1e-6)


def test_bytes_do_not_wrap():
    a, b = np.zeros((1, 12, 12, 1), np.uint8), np.full((1, 12, 12, 1), 255, np.uint8)
    assert float(psnr_jit(a, b, 255)[0]) == pytest.approx(0, abs=1e-6)
    assert float(ssim_jit(a, b, 255)[0]) == pytest.approx(1e-4 / (1 + 1e-4), rel=1e-3)


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_bad_input_is_named(metric):
    a = np.zeros((1, 12, 12, 3), np.uint8)
    with pytest.raises(ValueError, match=r"of their own shape, got \(1, 12, 12, 3\) and \(1, 12, 11, 3\)"):
        metric(a, a[:, :, :11], 255)
    with pytest.raises(ValueError, match="data_range=0 must be above 0"):
        metric(a, a, 0)


def test_ssim_needs_room_for_its_window():
    a = np.zeros((1, 12, 10, 3), np.uint8)
    with pytest.raises(ValueError, match="11 pixels a side or more, got 12x10"):
        ssim(a, a, 255)
