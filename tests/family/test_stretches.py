"""A walk in stretches is the walk: the same steps with the same keys, seen between them, and ended by who watches."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from flaxgen import cache, parallel
from flaxgen.diffusion import schedules
from flaxgen.diffusion.samplers import SAMPLERS, in_stretches, make_grid, sample
from flaxgen.family.drawing import STRETCHES, compile_draw, draw_many, watched

COSINE = schedules.cosine(0)
TIMES = np.linspace(0.9, 0.1, 26).astype(np.float32)


def make_draw(name, times=TIMES):
    def draw(params, inputs):
        x_T = params * jax.random.normal(inputs["key"], (1, 4))
        denoise = oracles.gaussian_denoiser(COSINE, 0.3, 0.5)
        return sample(SAMPLERS[name](COSINE), denoise, x_T, times, jax.random.fold_in(inputs["key"], 1))[0] + 1

    return draw


@pytest.mark.parametrize("name", ["ddpm", "dpmpp_2m"])
@pytest.mark.parametrize("times", [TIMES, make_grid(TIMES)], ids=["table", "grid"])
def test_who_watches_sees_the_steps_and_changes_nothing(name, times):
    draw = compile_draw(parallel.make_plan("jit"), make_draw(name, times), ("test", name))
    key, seen = jax.random.key(0), []
    given = {"num": 3, "batch": 2}
    plain = draw_many(draw, jnp.float32(2), key, {}, **given)
    with watched(lambda step, steps, x0: seen.append((step, steps, np.asarray(x0)))):
        stretched = draw_many(draw, jnp.float32(2), key, {}, **given)
    np.testing.assert_allclose(stretched, plain, rtol=1e-6)
    steps = [step for step, _, _ in seen]
    assert steps == [*range(2, 25, 2), 25] * 2
    assert len(steps) <= 2 * (STRETCHES + 1)
    assert {(count, x0.shape) for _, count, x0 in seen} == {(25, (2, 1, 4))}
    assert np.ptp([x0[0, 0, 0] for _, _, x0 in seen[:5]]) > 0
    np.testing.assert_array_equal(draw_many(draw, jnp.float32(2), key, {}, **given), plain)


def test_the_second_process_traces_no_stretch(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_tell_jax", lambda folder: None)
    monkeypatch.setattr(cache, "_current", None)
    folder, traced, drawn, walk = cache.begin({cache.VARIABLE: str(tmp_path)}).folder, [], [], make_draw("dpmpp_2m")

    def draw(params, inputs):
        traced.append(1)
        return walk(params, inputs)

    for _ in range(2):
        compiled = compile_draw(parallel.make_plan("jit"), draw, ("test",))
        with watched(lambda step, steps, x0: None):
            drawn.append(draw_many(compiled, jnp.float32(2), jax.random.key(0), {}, num=2, batch=2))
        assert len(list(folder.iterdir())) == 2
        traced.append(0)
    first = traced.index(0)
    assert traced[first + 1 :] == [0]
    assert min(path.stat().st_size for path in folder.iterdir()) > cache.DIGEST
    np.testing.assert_array_equal(*drawn)


def test_who_watches_ends_it():
    draw = compile_draw(parallel.make_plan("jit"), make_draw("ddim"), ("test",))

    def end(step, steps, x0):
        raise KeyboardInterrupt

    with watched(end), pytest.raises(KeyboardInterrupt):
        draw_many(draw, jnp.float32(2), jax.random.key(0), {}, num=2, batch=2)


def test_what_does_not_walk_once_has_no_stretches():
    once, (a, b) = make_draw("ddim"), jax.random.split(jax.random.key(0))

    def twice(params, inputs):
        return once(params, {"key": a}) + once(params, {"key": b})

    for draw in (lambda params, inputs: params, twice):
        with pytest.raises(ValueError, match="has no stretches"):
            in_stretches(draw)(jnp.float32(1), {}, None, 0, 0)
