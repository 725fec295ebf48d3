"""A codebook against k-means, enumeration and what is known of its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.latents import codebook
from flaxgen.latents.codebook import Averages

RNG = np.random.default_rng(0)
VECTORS = RNG.normal(size=(64, 3)).astype(np.float32)
CODES = RNG.normal(size=(8, 3)).astype(np.float32)
CODES[7] = 50.0  # which none is near
NEAREST = np.argmin(((VECTORS[:, None] - CODES[None]) ** 2).sum(-1), 1)
Z, E, CHOSEN = (jnp.asarray(x) for x in (VECTORS, CODES, NEAREST))


def test_nearest_is_the_one_of_least_distance():
    found = jax.jit(codebook.nearest)(Z.reshape(4, 4, 4, 3), E)
    np.testing.assert_array_equal(found.reshape(-1), NEAREST)
    far = codebook.nearest(Z + 1e3, E + 1e3)  # distances that differ in late digits
    assert np.mean(np.asarray(far) == NEAREST) > 0.98


def test_what_passes_is_the_code_to_the_last_bit_and_its_gradient_is_the_vectors():
    z, q = Z * 1e4, E[CHOSEN]
    np.testing.assert_array_equal(codebook.straight_through(q, z), q)
    gradient = jax.grad(lambda z: (codebook.straight_through(q, z) * Z).sum())(z)
    np.testing.assert_array_equal(gradient, VECTORS)


def test_without_memory_a_step_is_one_of_k_means():
    averages = codebook.follow(codebook.fresh_averages(E), codebook.sums(Z, CHOSEN, 8), 0.0)
    found = codebook.codes_of(averages, E)
    for code in range(8):
        members = VECTORS[code == NEAREST]
        np.testing.assert_allclose(found[code], members.mean(0) if len(members) else CODES[code], rtol=1e-5, atol=1e-6)
    assert (NEAREST != 7).all()


def test_a_code_that_is_never_chosen_stays_where_it_is():
    """Where counts are smoothed, or begin at zero, it would go to the origin or far out."""
    averages, codes = codebook.fresh_averages(E), E
    seen = codebook.sums(Z, CHOSEN, 8)

    @jax.jit
    def step(averages, codes):
        averages = codebook.follow(averages, seen, 0.9)
        return averages, codebook.codes_of(averages, codes)

    for _ in range(1000):
        averages, codes = step(averages, codes)
    np.testing.assert_allclose(codes[7], CODES[7], rtol=1e-4)
    np.testing.assert_allclose(codes[0], VECTORS[NEAREST == 0].mean(0), rtol=1e-4)


def test_sums_of_parts_add_up():
    halves = [codebook.sums(Z[i::2], CHOSEN[i::2], 8) for i in range(2)]
    whole = codebook.sums(Z, CHOSEN, 8)
    for a, b, total in zip(*halves, whole, strict=True):
        np.testing.assert_allclose(a + b, total, rtol=1e-5, atol=1e-5)


def test_dead_codes_begin_again_at_one_vector_of_the_batch():
    keys = jax.random.split(jax.random.key(3), 16)
    share = 8 / 64
    proposed = jax.jit(lambda: codebook.propose(Z, 8, share, keys))()
    alone = np.flatnonzero(np.asarray(proposed.count) == 1)
    assert 0 < len(alone) < 8
    for code in alone:
        assert any(np.allclose(proposed.total[code], vector) for vector in VECTORS)
    averages = Averages(jnp.array([1e-3] * 4 + [9.0] * 4), E * 2)
    again = codebook.restart(averages, proposed, 0.1)
    codes, bound = codebook.codes_of(again, E), 0.1 * float(averages.count.mean())
    for code in range(8):
        restarted = code < 4 and code in alone
        assert float(again.count[code]) == pytest.approx(bound if restarted else float(averages.count[code]))
        if restarted:
            np.testing.assert_allclose(codes[code], proposed.total[code], rtol=1e-5)
        else:
            np.testing.assert_array_equal(again.total[code], averages.total[code])


def test_any_vector_is_as_likely_to_be_proposed():
    """Each of 64 vectors, over 400 draws of keys, with probability 1/4 to one of 16 codes."""
    marks = jnp.eye(64)
    draw = jax.jit(lambda key: codebook.propose(marks, 16, 0.25, jax.random.split(key, 8)))
    total = sum(np.asarray(draw(jax.random.key(i)).total) for i in range(400))
    assert total.sum(0) == pytest.approx(100, abs=40)  # 4.6 standard deviations
    assert total.sum(1) == pytest.approx(400, abs=90)


def test_usage():
    assert float(codebook.perplexity(jnp.full(16, 3.0))) == pytest.approx(16)
    assert float(codebook.perplexity(jnp.array([5.0, 0, 0]))) == pytest.approx(1)
    assert float(codebook.perplexity(jnp.zeros(4))) == pytest.approx(1)
    count = 0.01 * 0.99 ** jnp.array([0.0, 90.0, 120.0])  # once, so many steps ago
    assert float(codebook.share_used(count, 0.99)) == pytest.approx(2 / 3)


def test_unit_vectors():
    np.testing.assert_allclose(jnp.linalg.norm(codebook.unit(Z), axis=-1), 1, rtol=1e-5)
    gradient = jax.grad(lambda z: codebook.unit(z).sum())(jnp.zeros((1, 3)))
    assert np.isfinite(gradient).all()
