"""PSNR and SSIM against scikit-image."""

import numpy as np
import pytest

from flaxgen.metrics.picture import psnr, ssim

metrics = pytest.importorskip("skimage.metrics")
pytestmark = pytest.mark.parity


@pytest.mark.parametrize("data_range", [255, 2.0])
def test_scikit_image(data_range):
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (3, 32, 41, 3)).cumsum(axis=2) // 41
    b = np.clip(a + rng.normal(0, 12, a.shape) * np.arange(1, 4)[:, None, None, None], 0, 255)
    a, b = (x.astype(np.uint8) if data_range == 255 else (x / 127.5 - 1).astype(np.float32) for x in (a, b))
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": -1}
    pairs = list(zip(a, b, strict=True))
    expected = [metrics.structural_similarity(x, y, data_range=data_range, **settings) for x, y in pairs]
    np.testing.assert_allclose(ssim(a, b, data_range), expected, atol=1e-5)
    expected = [metrics.peak_signal_noise_ratio(x, y, data_range=data_range) for x, y in pairs]
    np.testing.assert_allclose(psnr(a, b, data_range), expected, rtol=1e-5)
