import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from flaxgen.gan.augment import bands

SIDE = 20
IMAGE = jax.random.uniform(jax.random.key(0), (SIDE, SIDE, 3), minval=-1, maxval=1)
GAINS = jnp.array([0.7, 2.0, 1.0, 3.0])
amplify = jax.jit(bands.amplify)


def keys():
    """The same ones every time, and each time fresh."""
    return jax.random.split(jax.random.key(1), 2048)


def test_the_bands_sum_to_the_identity():
    bank = bands.filter_bank()
    delta = np.zeros(bank.shape[1])
    delta[bank.shape[1] // 2] = 1
    np.testing.assert_allclose(bank.sum(axis=0), delta, atol=1e-12)
    np.testing.assert_allclose(bank, bank[:, ::-1], atol=1e-12)


def test_each_band_is_an_octave():
    """Band b from the top has half the power at half the frequencies of the one above, and all at its own middle."""
    response = np.abs(np.fft.rfft(bands.filter_bank(), 512))
    np.testing.assert_allclose(response[:, 0], [1, 0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(response[:, -1], [0, 0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(response[[3, 2, 1], [128, 64, 32]], [0.5, 0.5, 0.5], atol=0.06)
    assert list(response.argmax(axis=0)[[10, 45, 90, 200]]) == [0, 1, 2, 3]


def test_amplifying_against_scipy():
    taps = np.asarray(GAINS, float) @ bands.filter_bank()
    expected = np.asarray(IMAGE, float)
    for axis in (0, 1):
        expected = scipy.ndimage.convolve1d(expected, taps, axis=axis, mode="mirror")
    np.testing.assert_allclose(amplify(IMAGE, GAINS), expected, atol=1e-5)


def test_gains_of_one_are_the_identity_and_inverses_undo():
    """Constant rows are of the lowest band, and stripes a pixel wide of the highest."""
    np.testing.assert_allclose(amplify(IMAGE, jnp.ones(4)), IMAGE, atol=2e-6)
    stripes = jnp.broadcast_to((-1.0) ** jnp.arange(SIDE)[None, :, None], IMAGE.shape)
    changed = amplify(stripes, GAINS)
    np.testing.assert_allclose(changed, 0.7 * 3.0 * stripes, atol=1e-5)
    np.testing.assert_allclose(amplify(changed, 1 / GAINS), stripes, atol=1e-5)


def test_pictures_keep_the_power_they_are_expected_to_have():
    """Of a picture with a spectrum of 1 / f, where one band alone is drawn."""
    draw = jax.jit(jax.vmap(bands.draw_gains, (0, None)))
    gains, drawn = draw(keys(), jnp.float32(0.1))
    assert float(drawn.mean()) == pytest.approx(1 - 0.9**4, abs=0.04)
    same = np.isclose(gains[:, :, None], gains[:, None, :], rtol=1e-5).sum(axis=(1, 2))
    alone = np.asarray(gains)[same == 10]  # three of four are alike: 3 * 3 + 1 pairs
    assert len(alone) > 300
    np.testing.assert_allclose(alone**2 @ [10 / 13, 1 / 13, 1 / 13, 1 / 13], np.ones(len(alone)), rtol=1e-5)
    odd = np.log2(alone / np.sort(alone, axis=1)[:, 1:2]).sum(axis=1)
    assert odd.std() == pytest.approx(1, abs=0.12)
    gains, drawn = draw(keys(), jnp.float32(0.0))
    assert not drawn.any()
    np.testing.assert_allclose(gains, np.ones((2048, 4)), rtol=1e-6)
