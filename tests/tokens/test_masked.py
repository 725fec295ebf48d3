"""MaskGIT's masks against enumeration, and filling in by the conditionals of a distribution that is known."""

import itertools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import misfit

from flaxgen.tokens.guidance import guided_predict
from flaxgen.tokens.masked import Rounds, draw_masks, fill_in, masked_counts, masked_loss
from flaxgen.tokens.sampling import Known, known_rows, make_choice

PICTURES = np.asarray(list(itertools.product((0, 1), repeat=4)))
JOINT = np.random.default_rng(0).dirichlet(np.full(16, 0.5))


def keys(num, seed=0):
    return jax.random.split(jax.random.key(seed), num)


def exact_cosine(i, steps):
    """cos(pi i / (2 steps)), as a fraction where it is one."""
    known = {Fraction(0): 1, Fraction(2, 3): Fraction(1, 2), Fraction(1): 0}
    return known.get(Fraction(i, steps), math.cos(math.pi * i / steps / 2))


@pytest.mark.parametrize(("places", "steps"), [(256, 8), (256, 12), (64, 10), (4, 4), (6, 12), (16, 1), (1, 3)])
def test_counts_follow_the_schedule(places, steps):
    counts = masked_counts(places, steps)
    assert counts.shape == (steps, places + 1)
    for m in range(places + 1):
        before = m
        for i in range(steps):
            left = math.floor(m * exact_cosine(i + 1, steps))
            if i + 1 == steps:
                assert counts[i, m] == 0
            elif before > 1:
                assert counts[i, m] == min(max(left, 1), before - 1)
            else:
                assert counts[i, m] == before
            before = counts[i, m]


def test_of_256_codes_in_8_rounds_the_first_round_fills_5_and_the_last_49():
    left = masked_counts(256, 8)[:, 256].tolist()
    assert left == [251, 236, 212, 181, 142, 97, 49, 0]


@pytest.mark.parametrize("least", [0.0, 0.5])
def test_masks_are_as_frequent_as_the_schedule_says(least):
    """Of m places out of 4 all are alike, and cos(pi r / 2) is below s with probability 1 - 2 acos(s) / pi."""
    masks = np.asarray(jax.jit(draw_masks, static_argnums=1)(keys(20_000), 4, least))
    below = [0.0] + [1 - 2 * math.acos(m / 4) / math.pi for m in range(1, 5)]
    if least:
        below[1] = 0.0  # exactly half are at least half
    number = np.diff(below)
    expected = np.array([number[sum(p) - 1] / math.comb(4, sum(p)) if sum(p) else 0.0 for p in PICTURES])
    np.testing.assert_allclose(expected.sum(), 1)
    assert misfit(np.bincount(masks @ [8, 4, 2, 1], minlength=16), expected) < 1


def test_the_loss_is_the_smoothed_cross_entropy_of_what_is_masked():
    rng = np.random.default_rng(1)
    logits, codes = rng.normal(size=(3, 4, 5)).astype(np.float32), rng.integers(0, 5, (3, 4))
    mask = np.array([[1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]], bool)
    log_probs = logits - np.log(np.exp(logits.astype(np.float64)).sum(-1, keepdims=True))
    target = 0.9 * np.eye(5)[codes] + 0.1 / 5
    each = -(target * log_probs).sum(-1)
    expected = [each[0, [0, 2]].mean(), each[1, 3], 0.0]
    np.testing.assert_allclose(jax.jit(masked_loss)(logits, codes, mask), expected, rtol=1e-5)


def oracle(codes):
    """Log-probabilities of JOINT's codes at each place, given what is not masked (2 is) at the others."""
    pictures = jnp.asarray(PICTURES)
    fits = (codes[:, None] == pictures[None]) | (codes[:, None] == 2)
    logits = []
    for place in range(4):
        others = fits.at[:, :, place].set(True).all(-1)
        weights = jnp.where(others, jnp.asarray(JOINT, jnp.float32)[None], 0.0)
        logits.append(jnp.log(weights @ jax.nn.one_hot(pictures[:, place], 2)))
    return jnp.stack(logits, axis=1)


@jax.jit
def filled(keys, noise, temperature, known):
    return fill_in(oracle, Rounds(4, 2, 4, noise), keys, make_choice(temperature), known)


NOTHING = Known(jnp.zeros((8000, 4), jnp.int32), jnp.zeros((8000, 4), bool))


def test_one_code_a_round_at_places_left_to_chance_is_a_draw_of_the_joint_distribution():
    drawn = np.asarray(filled(keys(8000), 1e6, 1.0, NOTHING))
    assert misfit(np.bincount(drawn @ [8, 4, 2, 1], minlength=16), JOINT) < 1


def test_known_places_stay_and_the_rest_follows_them():
    known = known_rows(jnp.broadcast_to(jnp.array([[1, 0], [1, 1]])[None], (8000, 2, 2)), 1)
    drawn = np.asarray(filled(keys(8000), 1e6, 1.0, known))
    expected = JOINT * ((PICTURES[:, 0] == 1) & (PICTURES[:, 1] == 0))
    assert misfit(np.bincount(drawn @ [8, 4, 2, 1], minlength=16), expected / expected.sum()) < 1


def test_noise_cools_from_round_to_round():
    """Three places in three rounds, each writing down how many were filled before it. Under Gumbel noise of scale h the
    surest is place j with probability proportional to p_j^(1/h); h is 2/3 of the noise, then 1/3."""
    sure, noise = np.array([0.9, 0.7, 0.5]), 1.2

    def predict(codes):
        filled = jnp.sum(codes != 3, axis=1)
        others = jnp.asarray(np.log((1 - sure) / 2), jnp.float32)[None, :, None]
        best = jnp.asarray(np.log(sure), jnp.float32)[None, :, None]
        return jnp.where(jax.nn.one_hot(filled, 3)[:, None] > 0, best, others)

    rounds = Rounds(3, 3, 3, noise)
    drawn = np.asarray(jax.jit(lambda keys: fill_in(predict, rounds, keys, make_choice(0.0)))(keys(8000)))
    first, then = sure ** (1 / (noise * 2 / 3)), sure ** (1 / (noise / 3))
    counts, expected = [], []
    for order in itertools.permutations(range(3)):
        counts.append((drawn == np.argsort(order)).all(1).sum())
        a, b, c = order
        expected.append(first[a] / first.sum() * then[b] / (then[b] + then[c]))
    assert sum(counts) == 8000
    assert misfit(np.array(counts), np.array(expected)) < 1


def test_cold_and_without_noise_the_surest_codes_come_first():
    drawn = np.asarray(filled(keys(8000), 0.0, 0.0, NOTHING))
    codes = np.full((1, 4), 2)
    for _ in range(4):
        probable = np.exp(np.asarray(oracle(jnp.asarray(codes))[0]))
        probable /= probable.sum(-1, keepdims=True)
        surest = max(np.flatnonzero(codes[0] == 2), key=lambda place: probable[place].max())
        codes[0, surest] = probable[surest].argmax()
    np.testing.assert_array_equal(drawn, np.broadcast_to(codes, (8000, 4)))


def test_an_example_does_not_depend_on_its_batch():
    drawn = filled(keys(8000), 4.5, 1.0, NOTHING)
    np.testing.assert_array_equal(filled(keys(8000)[::-1], 4.5, 1.0, NOTHING), drawn[::-1])
    known = Known(NOTHING.codes[:1], NOTHING.mask[:1])
    mapped = jax.jit(jax.vmap(lambda key: filled(key[None], 4.5, 1.0, known)[0]))(keys(8000))
    np.testing.assert_array_equal(mapped, drawn)


def test_masks_shrink_as_the_schedule_says_and_nothing_stays_masked():
    """The net tells of what it is given, round by round; examples know 0 and 5 of their 16 places."""
    seen = []

    def predict(codes):
        jax.debug.callback(lambda codes: seen.append(np.asarray(codes)), codes, ordered=True)
        return jnp.zeros((2, 16, 3)) + jnp.arange(3.0)[None, None]

    known = Known(jnp.full((2, 16), 1), jnp.stack((jnp.zeros(16, bool), jnp.arange(16) % 3 == 0)).at[1, 15].set(False))
    drawn = np.asarray(jax.jit(lambda keys: fill_in(predict, Rounds(16, 3, 6), keys, make_choice(), known))(keys(2)))
    jax.effects_barrier()
    assert drawn.min() >= 0
    assert drawn.max() < 3
    for example, unknown in enumerate((16, 11)):
        masked = [int((codes[example] == 3).sum()) for codes in seen]
        assert masked == [unknown, *masked_counts(16, 6)[:-1, unknown].tolist()]
        for before, after in zip(seen, [*seen[1:], drawn], strict=True):
            assert (after[example] == before[example])[before[example] != 3].all()
    assert (drawn[1, known.mask[1]] == 1).all()


def test_guidance_1_is_the_condition():
    def predict(codes):
        half = len(codes) // 2
        return jnp.concatenate((oracle(codes[:half]), jnp.zeros((half, 4, 2))))

    guided = jax.jit(lambda keys: fill_in(guided_predict(predict, 1.0), Rounds(4, 2, 4), keys, make_choice()))
    np.testing.assert_array_equal(guided(keys(8000)), filled(keys(8000), 4.5, 1.0, NOTHING))


def test_no_rounds_are_refused():
    with pytest.raises(ValueError, match="filled in in 0 rounds, expected 1 or more"):
        masked_counts(4, 0)
