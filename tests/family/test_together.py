"""Tasks that draw together: the bits of each alone, whoever it is drawn with and whatever happens to those."""

import jax
import numpy as np
import pytest
from test_stretches import make_draw

from flaxgen import parallel
from flaxgen.family.drawing import compile_draw, draw_many, watched
from flaxgen.family.together import together

calls: list[int] = []
_by_row = jax.jit(jax.vmap(lambda scale, row: scale * row["x"] + jax.random.normal(row["key"]), (None, 0)))


@pytest.fixture(autouse=True)
def _no_calls():
    calls.clear()


def program(scale, inputs):
    """Each row from its own key; a negative one cannot be drawn."""
    calls.append(len(inputs["x"]))
    if (inputs["x"] < 0).any():
        raise ValueError("negative")
    return _by_row(scale, inputs)


def task(seed, num, *, scale=2.0, stages=1, start=0.0):
    def draw():
        x = np.full(num, start, np.float32)
        for stage in range(stages):
            key = jax.random.fold_in(jax.random.key(seed), stage)
            x = np.abs(draw_many(program, np.float32(scale), key, {"x": x}, num=num, batch=4))
        return x

    return draw


def test_rows_of_several_fill_batches_and_keep_their_bits():
    tasks = [task(seed, num) for seed, num in ((1, 1), (2, 2), (3, 6), (4, 1))]
    alone = [one() for one in tasks]
    calls.clear()
    for mine, expected in zip(together(tasks), alone, strict=True):
        np.testing.assert_array_equal(mine, expected)
    assert calls == [4, 4, 4], "ten rows in three batches"


def test_what_is_not_alike_is_drawn_by_itself():
    tasks = [task(1, 1), task(2, 1, scale=3.0), task(3, 1)]
    alone = np.stack([one() for one in tasks])
    calls.clear()
    np.testing.assert_array_equal(np.stack(together(tasks)), alone)
    assert calls == [4, 4]


def test_stages_meet_and_who_is_done_holds_nobody_up():
    tasks = [task(0, 1), task(1, 2, stages=3), task(2, 1, stages=3)]
    alone = [one() for one in tasks]
    calls.clear()
    for mine, expected in zip(together(tasks), alone, strict=True):
        np.testing.assert_array_equal(mine, expected)
    assert calls == [4, 4, 4]


def test_one_that_fails_takes_nobody_along():
    def broken():
        raise KeyError("mine")

    good = task(4, 1)
    alone = good()
    first, wrong, other, last = together([good, broken, task(0, 1, start=-5.0), good])
    assert isinstance(wrong, KeyError)
    assert str(other) == "negative"
    np.testing.assert_array_equal([first, last], [alone, alone])


def test_one_that_is_cancelled_leaves_and_the_others_see_their_own():
    draw, seen = compile_draw(parallel.jit_plan(), make_draw("ddim"), ("test",)), {1: [], 2: [], 3: []}

    def member(num, ends=None):
        def watch(step, steps, x0):
            seen[num].append((step, len(x0)))
            if step == ends:
                raise InterruptedError

        def walked():
            with watched(watch):
                return draw_many(draw, np.float32(1), jax.random.key(num), {}, num=num, batch=8)

        return walked

    alone = {num: member(num)() for num in (1, 3)}
    for steps in seen.values():
        steps.clear()
    first, second, third = together([member(1), member(2, ends=4), member(3)])
    assert isinstance(second, InterruptedError)
    assert seen[2] == [(2, 2), (4, 2)]
    assert seen[1] == [(step, 1) for step in (*range(2, 25, 2), 25)]
    assert seen[3] == [(step, 3) for step in (*range(2, 25, 2), 25)]
    np.testing.assert_array_equal(first, alone[1])
    np.testing.assert_array_equal(third, alone[3])


def test_when_all_are_cancelled_nothing_more_is_drawn():
    draw, steps = compile_draw(parallel.jit_plan(), make_draw("ddim"), ("test",)), []

    def end(step, *_):
        steps.append(step)
        raise InterruptedError

    def walked():
        with watched(end):
            return draw_many(draw, np.float32(1), jax.random.key(0), {}, num=1, batch=2)

    assert [type(one) for one in together([walked, walked])] == [InterruptedError] * 2
    assert steps == [2, 2]
