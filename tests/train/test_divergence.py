"""A wrong learning rate is found out, and what good runs do is not."""

import numpy as np
import pytest

from flaxgen.train.divergence import Divergence


def first_stop(values, ratio=1000.0, steps=50, name="loss"):
    """The step at which a run of these values stops; None if it does not."""
    watch = Divergence(ratio, steps)
    for step, value in enumerate(values, 1):
        try:
            watch.note(step, {name: float(value), "images_per_second": 10.0 ** min(step, 300)})
        except FloatingPointError as error:
            return step if f"{name} is " in str(error) and f" at step {step}, " in str(error) else str(error)
    return None


def draw(count):
    return np.random.default_rng(0).normal(size=count)


GOOD = {
    "noise over four orders of magnitude": np.exp(2 * draw(5000)),
    "learned from 1e6 down to 1e-8": np.geomspace(1e6, 1e-8, 5000) * np.exp(draw(5000)),
    "a loss that begins at zero": 30 * np.minimum(np.arange(5000) / 50, 1) * draw(5000),
    "a loss that falls below zero": 5 - np.arange(5000) / 10 + draw(5000),
    "a lazy penalty in every 16th step": np.where(np.arange(5000) % 16 == 0, 1e6, 1.0),
    "one step in a thousand at 1e12": np.where(np.arange(5000) % 1000 == 7, 1e12, 1.0),
    "a curriculum of harder data": np.repeat([1.0, 20.0, 300.0, 4000.0], 1000),
    "no more than 49 bad steps": np.concatenate([np.ones(100), np.full(49, 1e9), np.ones(100)]),
}


@pytest.mark.parametrize("name", ["loss", "grad_norm", "discriminator_loss"])
@pytest.mark.parametrize("kind", GOOD)
def test_what_good_runs_do_never_stops_one(kind, name):
    assert first_stop(GOOD[kind], name=name) is None


@pytest.mark.parametrize(
    ("values", "stop"),
    [
        (np.concatenate([np.full(200, 0.3), np.full(200, 3e16)]), 250),
        (np.concatenate([[0.3], np.full(200, 3e16)]), 51),
        (np.concatenate([np.full(200, 7.0), np.full(200, -8e3)]), 250),
        (np.full(60, np.nan), 50),
    ],
    ids=["a jump", "from the second step", "to below zero", "never a number"],
)
def test_what_stays_at_a_thousand_times_for_fifty_steps_stops(values, stop):
    assert first_stop(values) == stop


@pytest.mark.parametrize("growth", [1.1, 1.5, 3.0])
def test_steady_growth_is_found_out_too(growth):
    """An arithmetic mean keeps pace with it."""
    values = np.exp(np.minimum(np.log(growth) * np.arange(1000), 600))
    stop = first_stop(values)
    assert stop is not None
    assert stop < 300


def test_a_state_in_a_bad_stretch_is_suspect():
    watch = Divergence(1000.0, 50)
    watch.note(1, {"loss": 2.0})
    assert not watch.is_suspect({"loss": 1999.0, "grad_norm": 1e9})
    assert watch.is_suspect({"loss": 2001.0})


def test_nothing_is_watched_where_that_is_wanted():
    assert first_stop(np.concatenate([[0.3], np.full(200, 3e16)]), steps=0) is None
