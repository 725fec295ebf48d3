"""ADA's resampling against the same steps from PyTorch's own parts, in the order of NVlabs' pipeline."""

import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.gan.augment import geometry
from flaxgen.gan.augment.geometry import compose, rotation, scaling, translation

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.parity

SIDE, PAD, OUT = 24, 23, 24 + 6
INSIDE = slice(6, 18)
"""Where every map below reads pixels of the picture itself, not of its mirror images, which are made differently."""
STRETCH = scaling(jnp.asarray(0.9), jnp.asarray(1.1))
MAPS = {
    "shift": translation(jnp.array([1.3, -2.6])),
    "scale": scaling(jnp.asarray(0.8), jnp.asarray(0.8)),
    "turn": rotation(jnp.asarray(0.6)),
    "all": compose(scaling(-1, 1), STRETCH, rotation(jnp.asarray(2.0)), translation(jnp.ones(2))),
}


def filtered(x, taps, stride: int):
    """Along rows and columns, each channel alone; the taps as they are."""
    channels = x.shape[1]
    line = taps.expand(channels, 1, -1)
    x = torch.nn.functional.conv2d(x, line[:, :, :, None], groups=channels, stride=(stride, 1))
    return torch.nn.functional.conv2d(x, line[:, :, None], groups=channels, stride=(1, stride))


def reference(image: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """Pad by the side, zeros between pixels, filter, sample an affine grid, filter back and drop every other pixel."""
    taps = torch.tensor(geometry.KERNEL)
    x = torch.tensor(image).permute(2, 0, 1)[None]
    x = torch.nn.functional.pad(x, [PAD] * 4, mode="reflect")
    fine = torch.zeros(1, x.shape[1], 2 * x.shape[2], 2 * x.shape[3])
    fine[:, :, ::2, ::2] = x
    fine = filtered(torch.nn.functional.pad(fine, [6, 5, 6, 5]), 2 * taps.flip(0), 1)
    # places are shares of half a grid's side, 2 * OUT fine pixels in the result; a shift by 1 is 2 fine pixels
    theta = inverse[:2] * np.array([2 * OUT, 2 * OUT, 4], np.float32) / fine.shape[2]
    grid = torch.nn.functional.affine_grid(
        torch.tensor(theta)[None], [1, x.shape[1], 2 * OUT, 2 * OUT], align_corners=False
    )
    moved = torch.nn.functional.grid_sample(fine, grid, align_corners=False)
    return filtered(moved[:, :, 1:-1, 1:-1], taps, 2)[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("name", MAPS)
def test_resampling(name, monkeypatch):
    """NVlabs' pipeline leaves the filter's delay in; without our correction of it the two agree."""
    monkeypatch.setattr(geometry, "DELAY", 0.0)
    image = np.random.default_rng(0).uniform(-1, 1, (SIDE, SIDE, 3)).astype(np.float32)
    ours = np.asarray(geometry.resample(jnp.asarray(image)[None], MAPS[name][None])[0])
    theirs = reference(image, np.asarray(MAPS[name]))
    np.testing.assert_allclose(ours[INSIDE, INSIDE], theirs[INSIDE, INSIDE], atol=1e-4)
