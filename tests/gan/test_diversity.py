"""The two figures that tell of lost modes, on batches whose modes are known."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.gan.diversity import LARGEST, diversity, spread

BATCH = 512
diversity, spread = jax.jit(diversity), jax.jit(spread)


def clusters(modes, seed):
    """Points of the plane in some of eight clusters on a circle."""
    rng = np.random.default_rng(seed)
    angle = rng.choice(modes, BATCH) * (math.pi / 4)
    centres = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return jnp.asarray(centres + 0.1 * rng.normal(size=(BATCH, 2)), jnp.float32)


REAL = clusters(range(8), 0)


def pictures(points):
    """16 pixels a side: a plane wave of each coordinate, and noise that an average over squares takes out."""
    x = jnp.linspace(-1, 1, 16)
    waves = points[:, :1, None] * x[None, None] + points[:, 1:, None] * x[None, :, None]
    checks = jnp.where((jnp.arange(16)[:, None] + jnp.arange(16)[None]) % 2 == 0, 1.0, -1.0)
    strength = jnp.sin(1e4 * points[:, 0])
    return (waves + 3 * strength[:, None, None] * checks[None])[..., None]


def test_spread_is_the_mean_square_distance_of_pairs():
    """Of a generator that draws one example it is 0, of one that draws the data 1."""
    other = 0.3 * clusters([0, 1, 4], 1)

    def mean_square(points):
        return np.mean(np.square(points[:, None] - points[None]).sum(-1))

    expected = math.sqrt(mean_square(np.asarray(other)) / mean_square(np.asarray(REAL)))
    assert float(spread(other, REAL)) == pytest.approx(expected, rel=1e-5)
    assert float(spread(REAL, REAL)) == pytest.approx(1)
    assert float(spread(jnp.repeat(REAL[:1], BATCH, 0), REAL)) < 1e-3


def test_diversity_counts_the_real_examples_that_are_nearest():
    """By brute force, each half against the other."""
    fake = clusters([0, 1, 4], 1)
    half = BATCH // 2

    def count(queries, among):
        distances = np.square(np.asarray(queries)[:, None] - np.asarray(among)[None]).sum(-1)
        return len(set(distances.argmin(1))) - 1

    found = count(fake[:half], REAL[half:]) + count(fake[half:], REAL[:half])
    expected = count(REAL[:half], REAL[half:]) + count(REAL[half:], REAL[:half])
    assert float(diversity(fake, REAL)) == pytest.approx(found / expected, rel=1e-5)


@pytest.mark.parametrize("shown", [lambda points: points, pictures])
def test_lost_modes_lower_diversity(shown):
    """Also where they leave the spread as it is: two that lie opposite each other, or four of eight."""
    real = shown(REAL)
    kept = [range(8), range(6), (0, 2, 4, 6), (0, 4), (0,)]
    figures = [float(diversity(shown(clusters(modes, 1)), real)) for modes in kept]
    assert figures[0] == pytest.approx(1, abs=0.1)
    assert all(after < before - 0.05 for before, after in itertools.pairwise(figures)), figures
    assert figures[3] < 0.5
    assert float(spread(clusters((0, 4), 1), REAL)) == pytest.approx(1, abs=0.05)


def test_fakes_that_are_one_or_far_away_have_no_diversity():
    """The mean picture is near to every other, and still only one."""
    assert float(diversity(jnp.repeat(REAL[:1], BATCH, 0), REAL)) == 0
    assert float(diversity(0.001 * REAL, REAL)) < 0.1
    assert float(diversity(100 + REAL, REAL)) < 0.1


def test_batches_of_any_size():
    """One example has nothing to be compared with; of more than LARGEST the first are."""
    assert float(diversity(REAL[:1], REAL[1:2])) == 0
    assert np.isfinite(float(diversity(REAL[:3], REAL[3:6])))
    twice = jnp.concatenate([REAL, 0 * REAL])
    assert LARGEST == BATCH
    np.testing.assert_array_equal(diversity(twice, twice), diversity(REAL, REAL))
