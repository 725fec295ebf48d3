"""Filters beside NumPy, frequencies beside probabilities, and sequences of chains that are known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.tokens.sampling import keep_top_k, keep_top_p, make_choice, sample_codes

LOGITS = np.random.default_rng(0).normal(0, 2, (4, 12)).astype(np.float32)


def keys(n):
    return jax.random.split(jax.random.key(0), n)


def softmax(logits):
    weights = np.exp(np.asarray(logits, np.float64) - np.max(logits))
    return weights / weights.sum()


def nucleus(logits, p):
    """Which codes the definition keeps: the likeliest, then the next, until their probability reaches p."""
    kept, total, probability = set(), 0.0, softmax(logits)
    for code in np.argsort(-logits):
        if kept and total >= p:
            break
        kept.add(int(code))
        total += probability[code]
    return kept


def kept(filtered):
    return set(np.flatnonzero(np.isfinite(filtered)).tolist())


@pytest.mark.parametrize("k", [0, 1, 3, 12, 50])
def test_top_k_keeps_the_largest(k):
    for logits in LOGITS:
        filtered = np.asarray(keep_top_k(jnp.asarray(logits), k))
        assert kept(filtered) == set(np.argsort(-logits)[: k or None].tolist())
        np.testing.assert_array_equal(filtered[np.isfinite(filtered)], logits[np.isfinite(filtered)])


def test_ties_with_the_last_that_is_kept_stay():
    logits = jnp.array([1.0, 3.0, 1.0, 0.0])
    assert kept(keep_top_k(logits, 2)) == {0, 1, 2}
    assert kept(keep_top_p(logits, 0.8)) == {0, 1, 2}


@pytest.mark.parametrize("p", [0.0, 1e-6, 0.3, 0.5, 0.9, 0.99, 1.0])
def test_top_p_keeps_the_nucleus(p):
    keep = jax.jit(keep_top_p)
    for logits in LOGITS:
        filtered = np.asarray(keep(logits, p))
        assert kept(filtered) == nucleus(logits, p)
        np.testing.assert_array_equal(filtered[np.isfinite(filtered)], logits[np.isfinite(filtered)])


def test_the_nucleus_at_its_edges():
    certain, even, excluded = jnp.array([0.0, 90.0, 0.0]), jnp.zeros(4), jnp.array([0.0, -jnp.inf, 0.0])
    assert kept(keep_top_p(certain, 0.999)) == {1}
    assert kept(keep_top_p(certain, 1.0)) == {0, 1, 2}
    assert kept(keep_top_p(even, 0.1)) == {0, 1, 2, 3}
    assert kept(keep_top_p(excluded, 1.0)) == {0, 2}


@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("temperature", [0.0, 1e-36, 1e-4])
def test_cold_is_the_largest(temperature, scale):
    choose = jax.jit(jax.vmap(make_choice(temperature)))
    codes = choose(scale * LOGITS, keys(4))
    np.testing.assert_array_equal(codes, LOGITS.argmax(1))


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(1.0, 0, 1.0), (2.0, 0, 1.0), (0.5, 0, 1.0), (1.5, 4, 1.0), (1.0, 6, 0.8)]
)
def test_frequencies_are_the_probabilities_of_what_is_kept(temperature, top_k, top_p):
    draws, logits = 20_000, LOGITS[0] / temperature
    largest = np.argsort(-logits)[: top_k or None]
    survivors = np.where(np.isin(np.arange(12), largest), logits, -np.inf)
    survivors = np.where([code in nucleus(survivors, top_p) for code in range(12)], survivors, -np.inf)
    expected = softmax(survivors)
    choose = jax.jit(jax.vmap(make_choice(temperature, top_k=top_k, top_p=top_p), in_axes=(None, 0)))
    codes = choose(LOGITS[0], keys(draws))
    found = np.bincount(codes, minlength=12) / draws
    assert (found[expected == 0] == 0).all()
    assert (np.abs(found - expected) <= 5 * np.sqrt(expected * (1 - expected) / draws)).all()


def test_a_chain_of_certainties_is_followed():
    """Code c is always followed by 3 c + its place mod 7; the caches count the steps and carry the last code."""

    def step(code, place, caches):
        seen, last = caches
        following = (3 * code + place) % 7
        return 100.0 * jax.nn.one_hot(following, 7), (seen + 1, last.at[:, place].set(code))

    start = 100.0 * jax.nn.one_hot(jnp.array([2, 5]), 7), (jnp.zeros((), jnp.int32), jnp.zeros((2, 5), jnp.int32))
    codes = jax.jit(lambda keys: sample_codes(start, step, 6, keys, make_choice()))(keys(2))
    for row, code in zip(codes, (2, 5), strict=True):
        expected = [code]
        for place in range(5):
            expected.append((3 * expected[-1] + place) % 7)
        assert row.tolist() == expected


TRANSITIONS = jnp.asarray(LOGITS[:3, :3])


@functools.partial(jax.jit, static_argnames=("length", "top_k"))
def chain(keys, temperature=1.0, top_p=1.0, length=8, top_k=0):
    """Sequences of the Markov chain with TRANSITIONS that starts at code 0."""

    def step(code, place, caches):
        return TRANSITIONS[code], caches

    start = jnp.broadcast_to(TRANSITIONS[:1], (keys.shape[0], 3)), ()
    return sample_codes(start, step, length, keys, make_choice(temperature, top_k=top_k, top_p=top_p))


def test_transitions_of_a_markov_chain():
    draws = 8_000
    codes = np.asarray(chain(keys(draws)))
    before = np.concatenate((np.zeros((draws, 1), int), codes[:, :-1]), 1)
    expected = np.stack([softmax(row) for row in TRANSITIONS])
    for place in range(8):
        for code in range(3):
            rows = codes[before[:, place] == code, place]
            found = np.bincount(rows, minlength=3) / max(len(rows), 1)
            bound = 5 * np.sqrt(expected[code] * (1 - expected[code]) / max(len(rows), 1))
            assert len(rows) == 0 or (np.abs(found - expected[code]) <= bound).all()


def test_an_example_does_not_depend_on_its_batch():
    codes = chain(keys(6), 2.0)
    np.testing.assert_array_equal(chain(keys(6)[::-1], 2.0), codes[::-1])
    np.testing.assert_array_equal(chain(jnp.concatenate((keys(6)[4:], keys(9)[:4])), 2.0)[:2], codes[4:])
    assert len({tuple(row.tolist()) for row in codes}) > 1


def test_mapped_over_single_keys_the_codes_are_the_same():
    one_by_one = jax.jit(jax.vmap(lambda key: chain(key[None], 2.0)[0]))(keys(6))
    np.testing.assert_array_equal(one_by_one, chain(keys(6), 2.0))


def test_temperature_and_nucleus_do_not_recompile():
    before = chain._cache_size()
    for temperature, top_p in ((1.0, 1.0), (0.0, 0.5), (0.7, 0.9)):
        chain(keys(5), temperature, top_p, top_k=2)
    assert chain._cache_size() == before + 1


def test_one_code_needs_no_step():
    assert chain(keys(3), 0.0, length=1).tolist() == [[int(TRANSITIONS[0].argmax())]] * 3


def test_what_is_wrong_is_named():
    with pytest.raises(ValueError, match="top_k=-1"):
        make_choice(top_k=-1)
    with pytest.raises(ValueError, match="0 codes were asked for"):
        chain(keys(1), length=0)


def test_a_whole_nucleus_is_not_sorted_for_and_draws_the_same():
    """Where it is known to be whole: as a traced number it may be any, and the logits are sorted."""
    logits, draws = jnp.asarray([0.3, -1.0, 2.0, 0.0]), lambda: jax.random.split(jax.random.key(0), 50)
    known = jax.vmap(lambda key: make_choice(0.8)(logits, key))
    traced = lambda keys, p: jax.vmap(lambda key: make_choice(0.8, top_p=p)(logits, key))(keys)  # noqa: E731
    np.testing.assert_array_equal(known(draws()), traced(draws(), jnp.float32(1)))
    assert "sort" not in str(jax.make_jaxpr(known)(draws()))
    assert "sort" in str(jax.make_jaxpr(traced)(draws(), 1.0))
