import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from flaxgen.diffusion import schedules, times
from flaxgen.diffusion.guidance import classifier_free
from flaxgen.diffusion.samplers import ddim, sample
from flaxgen.diffusion.tiles import cover, tiled, tiled_between, tiled_bind
from flaxgen.types import Denoised

COSINE = schedules.cosine(0)


def noise(*shape: int):
    return jax.random.normal(jax.random.key(0), shape)


def blur(x, radius: int):
    """Means of (2 radius + 1)^2 pixels, zeros beyond the border as nets pad."""
    window = (1, 2 * radius + 1, 2 * radius + 1, 1)
    return jax.lax.reduce_window(x, 0.0, jax.lax.add, window, (1, 1, 1, 1), "SAME") / window[1] ** 2


@pytest.mark.parametrize("overlap", [0, 1, 5, 8])
@pytest.mark.parametrize("size", [1, 15, 16, 17, 31, 32, 40, 53])
def test_every_pixel_counts_once(size, overlap):
    starts, weights = cover(size, 16, overlap)
    assert weights.shape == (len(starts), min(16, size))
    assert (weights >= 0).all()
    assert (np.diff(starts) >= 1).all()
    assert (np.diff(starts) <= 16 - overlap).all()
    total = np.zeros(size)
    for start, weight in zip(starts, weights, strict=True):
        total[start : start + len(weight)] += weight
    np.testing.assert_allclose(total, 1, atol=1e-12)


def test_tiles_cross_smoothly():
    """By hand: of 8 pixels in common 2 count nothing, and sin^2 rises over the 4 in the middle."""
    starts, weights = cover(24, 16, 8)
    np.testing.assert_array_equal(starts, [0, 8])
    rise = np.sin(np.pi / 2 * np.array([0, 0, 1 / 8, 3 / 8, 5 / 8, 7 / 8, 1, 1])) ** 2
    np.testing.assert_allclose(weights[1], [*rise, *[1] * 8], atol=1e-12)
    np.testing.assert_allclose(weights[0], weights[1][::-1], atol=1e-12)


@pytest.mark.parametrize(("height", "width", "overlap"), [(40, 53, 8), (16, 17, 5), (10, 12, 8), (33, 16, 0)])
def test_the_identity_gives_the_picture_back(height, width, overlap):
    x = noise(2, height, width, 3)
    whole = jax.jit(lambda x: tiled(lambda tile, _: tile, tile=16, overlap=overlap)(x, {}))(x)
    np.testing.assert_allclose(whole, x, atol=1e-6)


def test_what_looks_no_further_than_a_quarter_of_the_overlap_is_not_changed():
    """At the borders neither; further out it is, or the test would say nothing."""
    x = noise(1, 40, 52, 2)

    def worst(radius):
        on_tiles = tiled(lambda tile, _: blur(tile, radius), tile=24, overlap=12)
        return float(jnp.abs(jax.jit(on_tiles)(x, {}) - blur(x, radius)).max())

    assert worst(3) < 1e-6
    assert worst(6) > 1e-2


def test_smaller_pictures_are_cut_where_the_large_one_is():
    x, low, same = noise(1, 96, 128, 2), noise(1, 24, 32, 3), noise(1, 96, 128, 1)
    seen = set()

    def upsampler(x, pictures):
        low, same = pictures["low"], pictures["same"]
        seen.add((x.shape, low.shape, same.shape))
        resized = jax.image.resize(low, (*x.shape[:3], 3), "bicubic")
        return {"a": x + resized[..., :2], "b": resized * same}

    whole = jax.jit(tiled(upsampler, tile=64, overlap=32))(x, {"low": low, "same": same})
    assert seen == {((1, 64, 64, 2), (1, 16, 16, 3), (1, 64, 64, 1))}, "a tile at a time"
    expected = upsampler(x, {"low": low, "same": same})
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), whole, expected)


def test_different_tiles_meet_without_a_seam():
    """Each tile is of one colour; between neighbours the sin^2 ramp of 8 pixels climbs less than pi / 16 of the way."""
    x = noise(1, 48, 64, 1)
    whole = jax.jit(tiled(lambda tile, _: jnp.zeros_like(tile) + tile[:, :1, :1], tile=32, overlap=16))(x, {})
    corners = x[0, ::16, ::16, 0][:2, :3]
    span = float(corners.max() - corners.min())
    for axis in (1, 2):
        steps = jnp.abs(jnp.diff(whole, axis=axis))
        assert 0 < float(steps.max()) < np.pi / 16 * span + 1e-6
    assert float(whole.min()) >= float(corners.min()) - 1e-6
    assert float(whole.max()) <= float(corners.max()) + 1e-6


def bind_local(condition):
    """Of pixels around, of the low-resolution picture and of what is the same for all tiles."""

    def denoise(x, t):
        alpha, _ = COSINE(t)
        low = jnp.repeat(jnp.repeat(condition["low_res"], 2, axis=1), 2, axis=2)
        shade = condition["embedding"][:, None, None]
        return Denoised(0.5 * alpha * blur(x, 1) + 0.3 * low + shade, jnp.abs(jnp.tanh(x)))

    return denoise


def test_sampling_by_tiles_with_guidance_is_sampling():
    x, low = noise(2, 20, 28, 1), noise(2, 10, 14, 1)
    cond = {"low_res": low, "embedding": jnp.array([[0.3], [-0.3]])}
    null = {"low_res": low, "embedding": jnp.zeros((2, 1))}

    def draw(bind):
        denoise = classifier_free(bind, cond, null, 2.0)
        return denoise(x, 0.5), sample(ddim(COSINE), denoise, x, times.trailing(4, 0), jax.random.key(0))

    (plain, plain_drawn) = jax.jit(lambda: draw(bind_local))()
    (on_tiles, tiled_drawn) = jax.jit(lambda: draw(tiled_bind(bind_local, tile=16, overlap=8)))()
    np.testing.assert_allclose(on_tiles.x0, plain.x0, atol=1e-6)
    np.testing.assert_allclose(on_tiles.var_mix, plain.var_mix, atol=1e-6)
    np.testing.assert_allclose(tiled_drawn, plain_drawn, atol=1e-5)


def test_pictures_are_drawn_one_by_one_under_vmap():
    x = noise(3, 1, 20, 24, 1)
    predict = oracles.gaussian_denoiser(COSINE, 0.3, 0.5)
    denoise = tiled_bind(lambda _: predict, tile=16, overlap=8, pictures=())({})
    whole = jax.jit(jax.vmap(lambda x, t: denoise(x, t).x0))(x, jnp.array([0.2, 0.5, 0.9]))
    for i, t in enumerate((0.2, 0.5, 0.9)):
        np.testing.assert_allclose(whole[i], predict(x[i], t).x0, atol=1e-6)


@pytest.mark.parametrize(("tile", "overlap"), [(16, 9), (16, -1), (0, 0)])
def test_an_overlap_out_of_range_is_named(tile, overlap):
    with pytest.raises(ValueError, match=f"overlap={overlap} must be 0 to {tile // 2}"):
        tiled(lambda x, _: x, tile=tile, overlap=overlap)


def test_pictures_that_cannot_be_cut_are_named():
    x = noise(1, 32, 48, 1)
    on_tiles = tiled(lambda x, _: x, tile=18, overlap=8)
    with pytest.raises(ValueError, match="'low' of 8x13 must be a whole number of times smaller than x of 32x48"):
        on_tiles(x, {"low": noise(1, 8, 13, 1)})
    with pytest.raises(ValueError, match="'low' is 4 times smaller than x: make tile and overlap multiples of 4"):
        on_tiles(x, {"low": noise(1, 8, 12, 1)})
    with pytest.raises(ValueError, match="on tiles of 18x18 a function must give pictures of that size"):
        tiled(lambda x, _: x[:, ::2, ::2], tile=18, overlap=8)(x, {})
    with pytest.raises(ValueError, match="cut 'low_res', but the condition has only"):
        tiled_bind(bind_local, tile=16, overlap=8)({"embedding": jnp.zeros((1, 1))})


@pytest.mark.parametrize(("reads", "makes"), [(2, 1), (1, 2), (3, 2)])
def test_a_local_function_of_another_size_is_the_same_in_tiles(reads, makes):
    """Means of cells, and pixels repeated: each depends on its own cell alone, whatever tile it is seen in."""
    x = jax.random.normal(jax.random.key(0), (2, 9 * reads, 14 * reads, 3))

    def cells(x):
        mean = x.reshape(2, x.shape[1] // reads, reads, x.shape[2] // reads, reads, 3).mean((2, 4))
        return mean.repeat(makes, 1).repeat(makes, 2)

    found = tiled_between(cells, tile=4, overlap=2, reads=reads, makes=makes)(x)
    assert found.shape == (2, 9 * makes, 14 * makes, 3)
    np.testing.assert_allclose(found, cells(x), atol=1e-6)


def test_functions_of_another_size_see_one_tile_at_a_time():
    """What each tile says of itself, its mean, meets without a jump; a picture no larger than a tile is one call."""
    x = jnp.arange(32.0).reshape(1, 1, 32, 1)
    seen = []

    def mean(x):
        seen.append(x.shape)
        return jnp.broadcast_to(x.mean(), (1, 1, x.shape[2] * 2, 1))

    found = np.asarray(tiled_between(mean, tile=16, overlap=8, makes=2)(x)).reshape(-1)
    assert {shape[2] for shape in seen} == {16}
    assert (found[0], found[-1]) == (7.5, 23.5)
    assert 0 < np.diff(found).max() < 4
    assert tiled_between(mean, tile=32, overlap=8)(x).shape == (1, 1, 64, 1)
    with pytest.raises(ValueError, match="x of 1x32 is not cut into cells of 3 pixels"):
        tiled_between(mean, tile=16, overlap=8, reads=3)(x)
