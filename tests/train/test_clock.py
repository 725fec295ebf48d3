"""Rates, estimates and early previews, by a clock that the test moves."""

import pytest

from flaxgen.train.clock import Clock, is_preview_due


@pytest.fixture
def now(monkeypatch):
    """The seconds that the clock reads; add to now[0]."""
    seconds = [100.0]
    monkeypatch.setattr("flaxgen.train.clock.perf_counter", lambda: seconds[0])
    return seconds


def test_rates_count_images_and_waiting(now):
    def slow():
        for i in range(3):
            now[0] += 0.5
            yield i

    clock, batches = Clock(batch_size=8), slow()
    for _ in range(3):
        clock.next(batches)
        now[0] += 1.5
    assert clock.rates() == {"images_per_second": 4.0, "input_wait": 0.25}
    with pytest.raises(ValueError, match="the data ended"):
        clock.next(batches)


def test_a_pause_is_no_training(now):
    clock = Clock(batch_size=8)
    for step in range(4):
        clock.next(iter([step]))
        now[0] += 5
        with clock.pause():
            now[0] += 3600
    assert clock.rates()["images_per_second"] == 8 / 5
    assert [clock.forecast(86_400) for _ in range(4)][2] == "this run takes about 6.7 days here: 86400 steps of 6.67 s"


def test_a_run_of_more_than_a_day_is_announced_once_and_without_its_compilation(now):
    clock = Clock(batch_size=8)
    now[0] += 500
    clock.measure()
    said = []
    for step in range(10):
        now[0] += 4
        said.append(clock.forecast(50_000 - step))
    assert said == [None, None, "this run takes about 2.3 days here: 49998 steps of 4 s"] + 7 * [None]


def test_a_run_of_less_than_a_day_is_not_announced(now):
    clock = Clock(batch_size=8)
    for step in range(100):
        now[0] += 4
        assert clock.forecast(21_000 - step) is None


def test_the_first_line_comes_after_half_a_minute_and_once(now):
    clock, due = Clock(batch_size=8), []
    for _ in range(6):
        now[0] += 12
        due.append(clock.is_first_line_due(logged=False))
    assert due == [False, False, True, False, False, False]


def test_no_first_line_where_figures_were_logged(now):
    clock = Clock(batch_size=8)
    assert not clock.is_first_line_due(logged=True)
    now[0] += 60
    assert not clock.is_first_line_due(logged=False)


@pytest.mark.parametrize(
    ("every", "due"),
    [
        (1000, [0, 15, 62, 250, 1000, 2000]),
        (64, [0, 1, 4, 16, *range(64, 2001, 64)]),
        (5, [0, 1, *range(5, 2001, 5)]),
        (1, list(range(2001))),
        (0, []),
    ],
)
def test_previews_come_early_then_regularly(every, due):
    assert [step for step in range(2001) if is_preview_due(step, every)] == due
