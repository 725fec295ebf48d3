import numpy as np
import pytest

from flaxgen.diffusion import schedules, times
from flaxgen.diffusion.times import TIME_GRIDS


def test_linspace_is_respacing_inclusive_of_both_ends():
    """The seven steps of a published upsampler."""
    grid = times.linspace(7, 1000)
    assert (np.round(grid[:-1] * 1000) - 1).tolist() == [999, 832, 666, 500, 333, 166, 0]


@pytest.mark.parametrize("name", TIME_GRIDS)
@pytest.mark.parametrize(("steps", "timesteps"), [(1, 0), (7, 0), (50, 50), (49, 50), (250, 1000)])
def test_grids_fall_strictly_and_end_at_zero(name, steps, timesteps):
    grid = TIME_GRIDS[name](schedules.cosine(timesteps), steps, timesteps)
    assert grid.shape == (steps + 1,)
    assert grid.dtype == np.float32
    assert grid[0] <= 1
    assert grid[-1] == 0
    assert (np.diff(grid) < 0).all()
    if timesteps and name not in ("karras", "linspace_exact", "flow"):
        np.testing.assert_allclose(grid * timesteps, np.round(grid * timesteps), atol=1e-4)


@pytest.mark.parametrize("name", ["trailing", "linspace", "quadratic"])
def test_grids_start_at_pure_noise(name):
    assert TIME_GRIDS[name](schedules.cosine(0), 7, 0)[0] == TIME_GRIDS[name](schedules.cosine(1000), 7, 1000)[0] == 1


def test_leading_ends_on_the_first_entry_and_quadratic_lingers_there():
    assert np.round(times.leading(5, 1000) * 1000).tolist() == [801, 601, 401, 201, 1, 0]
    assert np.round(times.quadratic(50, 1000)[-4:] * 1000).tolist() == [4, 2, 1, 0]
    np.testing.assert_allclose(times.quadratic(4, 0), [1, 9 / 16, 1 / 4, 1 / 16, 0])


def test_open_grids_lack_the_cleanest_of_one_step_more():
    """Where all of a table is taken there is not one more."""
    assert np.round(TIME_GRIDS["leading_open"](None, 4, 1000) * 1000).tolist() == [801, 601, 401, 201, 0]
    assert np.round(TIME_GRIDS["linspace_open"](None, 3, 1000) * 1000).tolist() == [1000, 667, 334, 0]
    np.testing.assert_array_equal(TIME_GRIDS["linspace_open"](None, 9, 9), times.linspace(9, 9))


def test_linspace_exact_is_not_rounded():
    np.testing.assert_allclose(times.linspace_exact(4, 9) * 9, [9, 1 + 16 / 3, 1 + 8 / 3, 1, 0], rtol=1e-6)


def test_offsets_and_a_noisy_end():
    grid = times.leading(5, 1000)
    assert np.round(times.later(grid, 1, 1000) * 1000).tolist() == [802, 602, 402, 202, 2, 0]
    assert np.round(times.to_first(grid, 1000) * 1000).tolist() == [801, 601, 401, 201, 1, 1]
    for offset, timesteps in ((1, 5), (-1, 1000), (1, 0)):
        with pytest.raises(ValueError, match=f"offset={offset} leaves the table of {timesteps} timesteps"):
            times.later(times.leading(5, timesteps), offset, timesteps)
    with pytest.raises(ValueError, match="timesteps=0 is continuous"):
        times.to_first(times.leading(5, 0), 0)


def test_karras_sigmas_are_the_papers():
    """[Karras22, eq. 5] at its 18 steps."""
    i = np.arange(18)
    sigmas = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose(times.karras(schedules.edm(0), 18, 0)[:-1] * 80, sigmas, rtol=1e-5)


@pytest.mark.parametrize(("name", "first"), [("linear", 157.4), ("cosine", 80.0)])
def test_karras_spans_the_table_unless_its_end_is_too_far(name, first):
    schedule = schedules.SCHEDULES[name](1000)
    grid = times.karras(schedule, 10, 1000)
    alpha, sigma = schedule(grid[0].item())
    assert float(sigma / alpha) == pytest.approx(first, rel=1e-3)
    assert grid[-2] == pytest.approx(1 / 1000, rel=1e-4)


@pytest.mark.parametrize("name", TIME_GRIDS)
@pytest.mark.parametrize(("steps", "message"), [(0, "steps=0 must be"), (51, "more than the schedule's 50 timesteps")])
def test_a_wrong_number_of_steps_is_named(name, steps, message):
    with pytest.raises(ValueError, match=message):
        TIME_GRIDS[name](schedules.cosine(50), steps, 50)


def test_a_consistency_model_is_asked_at_times_that_it_was_distilled_on():
    assert np.round(times.consistency(4, 1000) * 1000).tolist() == [1000, 760, 500, 260, 0]
    assert np.round(times.consistency(3, 1000) * 1000).tolist() == [1000, 680, 340, 0]


def test_flow_times_are_those_of_the_published_scheduler():
    """Of shift 3, in which the last one is shifted twice."""
    straight = schedules.rectified_flow(0)
    grid = times.shift_time(TIME_GRIDS["flow"](times.shifted(straight, 3.0), 4, 0).astype(np.float64), 3.0)
    first = 3 * 0.001 / 1.002
    even = np.linspace(1, first, 4)
    np.testing.assert_allclose(grid[:-1], 3 * even / (1 + 2 * even), rtol=1e-6)
    np.testing.assert_allclose(TIME_GRIDS["flow"](straight, 3, 0), [1, 0.5005, 0.001, 0], rtol=1e-6)


def test_a_shift_multiplies_noise_over_signal():
    straight = schedules.rectified_flow(0)
    moved = times.shifted(straight, 3.0)
    for t in (0.1, 0.5, 0.9):
        (alpha, sigma), (other_alpha, other_sigma) = straight(t), moved(t)
        assert float(other_sigma / other_alpha) == pytest.approx(3 * float(sigma / alpha), rel=1e-5)
        assert float(other_alpha + other_sigma) == pytest.approx(1)
    for other in (schedules.linear(1000), schedules.shift(straight, 2.0)):
        with pytest.raises(ValueError, match="shift=3 moves times of straight paths"):
            times.shifted(other, 3.0)
