"""Principal components beside an SVD, and buckets beside their bounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.tokens.quantise import (
    Quantiser,
    decode,
    draw_dots,
    encode,
    encode_dots,
    fit_pca,
    fit_quantiser,
    from_codes,
    project,
    reconstruct,
    to_codes,
)

COUNT, WIDTH = 400, 6
RNG = np.random.default_rng(0)
MIX = RNG.normal(size=(WIDTH, WIDTH))
EMBEDDINGS = (RNG.normal(size=(COUNT, WIDTH)) @ MIX + 3.0).astype(np.float32)
DOTS = RNG.gamma(2.0, size=COUNT)


@pytest.fixture(scope="module")
def full():
    return fit_quantiser(EMBEDDINGS, DOTS, WIDTH)


def test_components_are_those_of_the_svd():
    pca = fit_pca(EMBEDDINGS, 4)
    wide = EMBEDDINGS.astype(np.float64)
    _, _, rows = np.linalg.svd(wide - wide.mean(0, keepdims=True), full_matrices=False)
    np.testing.assert_allclose(pca.mean, wide.mean(0), rtol=1e-12)
    np.testing.assert_allclose(pca.components.T @ pca.components, np.eye(4), atol=1e-12)
    np.testing.assert_allclose(np.abs((rows[:4] * pca.components.T).sum(1)), np.ones(4), rtol=1e-9)
    assert (pca.components[np.abs(pca.components).argmax(0), np.arange(4)] > 0).all()


def test_fewer_components_lose_the_variance_of_the_others():
    pca = fit_pca(EMBEDDINGS, WIDTH)
    variances = np.linalg.eigvalsh(np.cov(EMBEDDINGS, rowvar=False, bias=True))[::-1]
    mean = jnp.asarray(pca.mean, jnp.float32)
    for dims in (1, 3, WIDTH):
        components = jnp.asarray(pca.components[:, :dims], jnp.float32)
        values = project(jnp.asarray(EMBEDDINGS), mean, components)
        lost = np.square(reconstruct(values, mean, components) - EMBEDDINGS).sum(1).mean()
        assert lost == pytest.approx(variances[dims:].sum(), rel=1e-4, abs=1e-8)
        assert np.var(values[:, -1]) == pytest.approx(variances[dims - 1], rel=1e-4)


@pytest.mark.parametrize("buckets", [1, 2, 16, 1024])
def test_a_value_is_at_most_half_a_bucket_from_its_code(buckets):
    low, high = jnp.array([-1.0, 2.0, 0.0]), jnp.array([1.0, 5.0, 1e-3])
    values = low[None] + jnp.linspace(0.0, 1.0, 101)[:, None] * (high - low)[None]
    codes = to_codes(values, low, high, buckets)
    assert codes.dtype == jnp.int32
    assert (int(codes.min()), int(codes.max())) == (0, buckets - 1)
    assert (jnp.diff(codes, axis=0) >= 0).all()
    half = np.asarray(high - low) / buckets / 2
    assert (np.abs(from_codes(codes, low, high, buckets) - values) <= half[None] * (1 + 1e-3)).all()


def test_every_code_comes_back_from_its_centre(full):
    buckets = 64
    codes = jnp.broadcast_to(jnp.arange(buckets)[:, None], (buckets, WIDTH))
    centres = from_codes(codes, full.low, full.high, buckets)
    np.testing.assert_array_equal(to_codes(centres, full.low, full.high, buckets), codes)
    np.testing.assert_array_equal(encode(full, decode(full, codes, buckets), buckets), codes)


def test_what_lies_outside_takes_the_nearest_bucket():
    low, high = jnp.array([0.0]), jnp.array([1.0])
    assert to_codes(jnp.array([[-5.0], [5.0], [jnp.inf]]), low, high, 8)[:, 0].tolist() == [0, 7, 7]


def test_a_component_that_never_varies_comes_back_exactly():
    low = high = jnp.array([0.25])
    codes = to_codes(jnp.array([[0.25]]), low, high, 8)
    assert from_codes(codes, low, high, 8).tolist() == [[0.25]]


@pytest.mark.parametrize("buckets", [32, 1024])
def test_embeddings_come_back_within_the_buckets(buckets, full):
    codes = jax.jit(encode, static_argnums=2)(full, jnp.asarray(EMBEDDINGS), buckets)
    back = jax.jit(decode, static_argnums=2)(full, codes, buckets)
    bound = np.linalg.norm(np.asarray(full.high - full.low) / buckets / 2)
    worst = np.linalg.norm(back - EMBEDDINGS, axis=1).max()
    assert 0.1 * bound < worst <= bound * (1 + 1e-3)


def test_all_buckets_are_reached_and_no_training_example_leaves_them(full):
    codes = encode(full, jnp.asarray(EMBEDDINGS), 8)
    assert (codes.min(0) == 0).all()
    assert (codes.max(0) == 7).all()


def test_a_quantiser_is_a_tree_of_arrays(full):
    again = Quantiser(**full._asdict())
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(full), strict=True):
        assert one is other
        assert one.dtype == jnp.float32


def test_dots_are_drawn_from_the_upper_half(full):
    buckets = 1024
    codes = np.asarray(jax.jit(draw_dots, static_argnums=2)(full, jax.random.split(jax.random.key(0), 4_000), buckets))
    known = np.asarray(encode_dots(full, jnp.asarray(DOTS, jnp.float32), buckets))
    assert codes.min() >= np.median(known) - 1
    for share in (0.25, 0.5, 0.75):
        at = np.quantile(known, 0.5 + share / 2)
        assert (codes < at).mean() == pytest.approx(share, abs=0.05)


def test_dots_keep_their_order(full):
    ordered = jnp.asarray(np.sort(DOTS), jnp.float32)
    codes = encode_dots(full, ordered, 16)
    assert (int(codes[0]), int(codes[-1])) == (0, 15)
    assert (jnp.diff(codes) >= 0).all()


@pytest.mark.parametrize(
    ("rows", "dots", "dims", "message"),
    [
        (EMBEDDINGS, DOTS, WIDTH + 1, "7 principal components of 400 embeddings 6 wide"),
        (EMBEDDINGS[:3], DOTS[:3], 4, "4 principal components of 3 embeddings"),
        (EMBEDDINGS, DOTS, 0, "0 principal components"),
        (EMBEDDINGS * np.nan, DOTS, 2, "embeddings to quantise hold NaN"),
        (EMBEDDINGS, DOTS * np.inf, 2, "dot products to quantise hold NaN"),
    ],
)
def test_what_is_wrong_is_named(rows, dots, dims, message):
    with pytest.raises(ValueError, match=message):
        fit_quantiser(rows, dots, dims)
