"""A kept program does what the traced one does; whatever does not fit is traced again."""

import functools
import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from saving import write_model

from flaxgen import cache, programs
from flaxgen.data import Data
from flaxgen.nets.mlp import MLP
from flaxgen.parallel import make_plan
from flaxgen.zoo import diffusion

CONFIG = diffusion.Config(seed=0, steps=4, batch_size=8, data=Data("s_curve"), net=MLP(width=8, depth=1))
PARAMS, INPUTS = {"scale": np.float32(3)}, {"x": np.arange(4, dtype=np.float32)}
TRACES = []


class Pair(NamedTuple):
    """A type that JAX does not know how to write."""

    one: jax.Array
    two: jax.Array


def scale(params, inputs):
    TRACES.append(1)
    return {"y": params["scale"] * inputs["x"]}


def init(width, key):
    TRACES.append(1)
    return {"dense": {"kernel": jax.random.normal(key, (width, 2), jnp.bfloat16)}}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where programs are kept during a test, this module's own too."""
    monkeypatch.setattr(cache, "_tell_jax", lambda folder: None)
    monkeypatch.setattr(cache, "_current", None)
    monkeypatch.setattr(programs, "KNOWN", (*programs.KNOWN, __name__))
    TRACES.clear()
    return cache.begin({cache.VARIABLE: str(tmp_path / "cache")}).folder


def traces(key=(CONFIG,), params=PARAMS, inputs=INPUTS) -> int:
    """How often a new process would trace `scale`; checks what it gives."""
    before = len(TRACES)
    fresh = functools.wraps(scale)(lambda *arguments: scale(*arguments))  # JAX remembers what it traced of the other
    found = programs.kept(fresh, key, None)(params, inputs)
    np.testing.assert_array_equal(found["y"], params["scale"] * inputs["x"])
    return len(TRACES) - before


def test_a_kept_program_is_not_traced(folder):
    assert [traces(), traces()] == [1, 0]


def test_what_it_follows_from_is_traced_anew(folder, monkeypatch):
    traces()
    assert traces(key=(replace(CONFIG, net=MLP(width=16, depth=1)),)) == 1
    assert traces(inputs={"x": np.arange(5, dtype=np.float32)}) == 1
    assert traces(inputs={"x": np.arange(4)}) == 1
    assert traces(params={"scale": 3.0}) == 1  # weakly typed
    with jax.default_matmul_precision("highest"):
        assert traces() == 1
    monkeypatch.setattr(programs.metadata, "version", lambda package: "0")
    assert traces() == 1
    monkeypatch.setattr(cache, "_current", cache.current()._replace(source="edited"))
    assert traces() == 1


def test_without_a_key_or_a_cache_nothing_is_kept(folder, monkeypatch):
    assert traces(key=None) == 1
    assert traces(key=(lambda: 0,)) == 1
    monkeypatch.setattr(cache, "_current", None)
    assert traces() == 1
    assert list(folder.iterdir()) == []


def test_code_of_others_is_not_kept(folder, monkeypatch):
    """Their edits would not be seen."""
    monkeypatch.setattr(programs, "KNOWN", ("flaxgen",))
    assert [traces(), traces()] == [1, 1]
    assert list(folder.iterdir()) == []


def test_damaged_programs_are_traced_again(folder):
    traces()
    (file,) = folder.iterdir()
    file.write_bytes(file.read_bytes()[:-9])
    assert [traces(), traces()] == [1, 0]
    cache.write(file.name, b"whole, and no program")
    assert traces() == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda y: Pair(y, y),
        lambda y: (jax.pure_callback(lambda y: y, jax.ShapeDtypeStruct(y.shape, y.dtype), y),) * 2,
    ],
    ids=["a type", "a callback"],
)
def test_what_jax_cannot_write_is_traced(folder, make):
    def draw() -> int:
        def both(params, inputs):
            TRACES.append(1)
            return make(params["scale"] * inputs["x"])

        TRACES.clear()
        one, two = programs.kept(both, (CONFIG,), None)(PARAMS, INPUTS)
        np.testing.assert_array_equal(one, two)
        return len(TRACES)

    assert [draw(), draw()] == [2, 1]  # the second process does not try


def test_shapes_are_kept(folder, monkeypatch):
    """In the process, and on disk for the next one."""
    monkeypatch.setattr(programs, "_shapes", {})
    make = functools.partial(init, 3)
    first, second = programs.shapes(make), programs.shapes(make)
    first["dense"]["kernel"] = None  # what a caller does to its own is nobody else's
    monkeypatch.setattr(programs, "_shapes", {})
    third = programs.shapes(make)
    assert second == third == jax.eval_shape(lambda: init(3, jax.random.key(0)))
    assert len(TRACES) == 2  # one of them here
    assert programs.shapes(functools.partial(init, 4))["dense"]["kernel"].shape == (4, 2)


def test_keys_that_no_name_lasts_for():
    for value in (lambda: 0, functools.partial(lambda: 0), object(), np.zeros(2), Pair(0, 1)):
        with pytest.raises(TypeError, match="name that lasts"):
            programs.describe(value)
    near = (
        CONFIG,
        replace(CONFIG, steps=7),
        CONFIG.net,
        MLP(width=8, depth=2),
        jnp.float32,
        np.dtype(np.float32),
        1.0,
        1,
    )
    assert len({json.dumps(programs.describe(value)) for value in near}) == len(near)


def test_what_lies_on_several_devices_is_left_to_jax(folder):
    inputs = {"x": make_plan("mesh").place_batch({"x": np.arange(8, dtype=np.float32)})["x"]}
    assert [traces(inputs=inputs), traces(inputs=inputs)] == [1, 1]
    assert list(folder.iterdir()) == []


def test_settings_count_within_a_process(folder):
    program = programs.kept(scale, (CONFIG,), None)
    program(PARAMS, INPUTS)
    with jax.default_matmul_precision("highest"):
        program(PARAMS, INPUTS)
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("name", ["pmap", "mesh"])
def test_other_plans_take_a_key(folder, name):
    plan = make_plan(name)
    inputs = {"x": np.arange(plan.devices, dtype=np.float32)}
    found = plan.compile_map(scale, key=(CONFIG,))(PARAMS, inputs)
    np.testing.assert_array_equal(found["y"], 3 * inputs["x"])
    assert list(folder.iterdir()) == []


def test_the_second_process_compiles_nothing_and_draws_the_same(tmp_path):
    params = jax.jit(lambda: diffusion.init_params(CONFIG, jax.random.key(0)))()
    write_model(tmp_path / "model", CONFIG, params, 1)
    code = (
        "import jax, sys\n"
        "from flaxgen.cli import main\n"
        "seen = []\n"
        "jax.monitoring.register_event_listener(lambda event, **_: seen.append(event))\n"
        "assert main(sys.argv[1:]) == 0\n"
        "print(*(seen.count(f'/jax/compilation_cache/cache_{what}') for what in ('misses', 'hits')))"
    )
    environ, drawn, counts = {**os.environ, cache.VARIABLE: str(tmp_path / "cache")}, [], []
    del environ["JAX_COMPILATION_CACHE_DIR"]  # in which an earlier run of the tests may have left these programs
    for out in (tmp_path / "first.npz", tmp_path / "second.npz"):
        command = [sys.executable, "-c", code, "sample", str(tmp_path / "model"), "--num", "4", "--steps", "2"]
        done = subprocess.run([*command, "--out", str(out)], env=environ, capture_output=True, text=True, check=True)
        counts.append([int(count) for count in done.stdout.splitlines()[-1].split()])
        drawn.append(np.load(out)["samples"].tobytes())
    assert drawn[0] == drawn[1]
    assert counts[0][0] > 0
    assert counts[1][0] == 0 < counts[1][1]
    assert len(list((tmp_path / "cache" / "programs").iterdir())) == 2  # the drawing, and the shapes of the parameters
