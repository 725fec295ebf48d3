"""What a state holds beside parameters is saved with it: statistics every time, frozen weights once."""

import itertools
import shutil
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from codebook import BATCH, TARGETS, codebook_training
from saved import DAMAGES, abstract_of, assert_bit_equal

from flaxgen import parallel
from flaxgen.train import loop
from flaxgen.train.checkpoint import Checkpoints, read, steps_in
from flaxgen.train.manifest import read_manifest
from flaxgen.train.run import Run
from flaxgen.train.state import init_state
from flaxgen.types import Experiment, Held


def holding(step, frozen=2.0):
    """A state with statistics and frozen weights."""
    held = Held({"counts": jnp.full(3, float(step))}, {"base": jnp.full((4, 3), frozen)})
    state = init_state({"w": jnp.full((2, 2), float(step))}, optax.adam(1e-3), held)
    return state._replace(step=jnp.int32(step))


@pytest.fixture
def frozen_saved(tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, holding(step))
    return tmp_path


def test_frozen_weights_are_saved_once_and_come_back_with_every_step(frozen_saved):
    names = [path.name for path in frozen_saved.iterdir() if path.name.startswith("frozen-")]
    assert len(names) == 1
    assert steps_in(frozen_saved) == [2, 3]
    assert not any("frozen" in name for name in read_manifest(frozen_saved / "3").leaves)
    with Checkpoints(frozen_saved, keep=2) as checkpoints:
        restored = checkpoints.restore(abstract_of(holding(0, frozen=0.0)))
        assert restored is not None
        assert_bit_equal(restored[1], holding(3))
        checkpoints.save(4, holding(4))
    assert [path.name for path in frozen_saved.iterdir() if path.name.startswith("frozen-")] == names
    restored = Checkpoints(frozen_saved, keep=2).restore(abstract_of(holding(0)))
    assert restored is not None
    assert_bit_equal(restored[1], holding(4))


def test_what_is_held_is_read_by_name(frozen_saved):
    step, fields = read(frozen_saved, ("params", "held"))
    assert step == 3
    assert_bit_equal(fields["held"], holding(3).held._asdict())
    assert_bit_equal(read(frozen_saved, ("params",))[1], {"params": holding(3).params})


def test_nothing_held_is_read_as_nothing(tmp_path):
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, init_state({"w": jnp.ones(2)}, optax.adam(1e-3)))
    assert read(tmp_path, ("held",)) == (1, {"held": {}})


@pytest.mark.parametrize("damage", [*DAMAGES, "replaced"])
def test_damaged_frozen_weights_are_found_out(frozen_saved, damage, tmp_path_factory, capfd):
    """Also where all files are good, but those of another run."""
    (frozen,) = frozen_saved.glob("frozen-*")
    if damage == "replaced":
        other = tmp_path_factory.mktemp("other")
        with Checkpoints(other, keep=2) as checkpoints:
            checkpoints.save(1, holding(1, frozen=5.0))
        shutil.rmtree(frozen)
        shutil.copytree(next(other.glob("frozen-*")), frozen)
    else:
        (path,) = frozen.glob("state/ocdbt.process_0/d/*")
        DAMAGES[damage](path)
    with pytest.raises(ValueError, match="no checkpoint can be loaded"):
        Checkpoints(frozen_saved, keep=2).restore(abstract_of(holding(0)))
    assert f"3 is skipped: its frozen weights in {frozen.name} cannot be used: " in capfd.readouterr().err


def test_frozen_weights_that_the_experiment_has_and_the_run_has_not(frozen_saved, tmp_path_factory):
    plain = holding(0)._replace(held=holding(0).held._replace(frozen=()))
    with pytest.raises(ValueError, match="has frozen weights, the experiment has none: was its config changed"):
        Checkpoints(frozen_saved, keep=2).restore(abstract_of(plain))
    other = holding(0)._replace(held=holding(0).held._replace(frozen={"base": jnp.zeros((4, 2))}))
    with pytest.raises(ValueError, match=r"frozen/base is float32\[4,3\], the experiment has float32\[4,2\]"):
        Checkpoints(frozen_saved, keep=2).restore(abstract_of(other))


class Version010(NamedTuple):
    """TrainState as version 0.1.0 saved it."""

    step: jax.Array
    params: dict
    ema_params: dict
    opt_state: tuple


def test_a_state_of_version_0_1_0_is_loaded(tmp_path):
    state = init_state({"w": jnp.arange(6.0).reshape(2, 3)}, optax.adam(1e-3))
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(5, Version010(*state[:4]))
    restored = Checkpoints(tmp_path, keep=1).restore(abstract_of(state))
    assert restored is not None
    assert_bit_equal(restored[1], state)


PLANS = {"jit": parallel.jit_plan, "pmap": parallel.pmap_plan, "mesh": lambda: parallel.mesh_plan(data=4, fsdp=2)}


@pytest.mark.parametrize("plan", PLANS)
def test_a_run_with_statistics_and_frozen_weights_resumes_bit_for_bit(tmp_path, plan):
    def train(workdir, steps):
        def batches(start):
            for step in itertools.count(start):
                yield {"x": np.roll(TARGETS, step, 1) + np.float32(step)}

        settings = Run(seed=0, steps=steps, batch_size=BATCH, log_every=2, checkpoint_every=4, preview_every=0)
        experiment = Experiment(*codebook_training(accumulate=1), source=[{}], batch_fields=("x",))
        return loop.run(experiment, settings, tmp_path / workdir, PLANS[plan](), batches)

    whole = train("whole", 9)
    train("parts", 5)
    assert_bit_equal(train("parts", 9), whole)
    assert len(list((tmp_path / "parts" / "checkpoints").glob("frozen-*"))) == 1
