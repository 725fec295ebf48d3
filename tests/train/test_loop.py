"""A run that is interrupted, resumed or goes wrong, in this process."""

import itertools
import json
import signal

import jax
import numpy as np
import pytest
from toy_run import Toy, toy_batches, toy_experiment

from flaxgen import parallel
from flaxgen.train import loop
from flaxgen.train.checkpoint import newest_good, steps_in
from flaxgen.train.manifest import find_fault
from flaxgen.train.run import Run

PLANS = {
    "jit": parallel.jit_plan,
    "pmap": lambda: parallel.pmap_plan(4),
    "mesh": lambda: parallel.mesh_plan(data=4, fsdp=2),
}


def toy(steps, **fields):
    given = {"seed": 0, "batch_size": 8, "log_every": 5, "checkpoint_every": 10, "preview_every": 0, **fields}
    return Toy(steps=steps, **given)


def run(config, workdir, plan="jit", make_batches=None, extras=loop.Extras()):  # noqa: B008 (immutable)
    batches = make_batches or toy_batches(config)
    return loop.run(toy_experiment(config), config, workdir, PLANS[plan](), batches, extras)


def logged(workdir):
    """What is logged of the numbers, without how fast they came."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"], row["grad_norm"]) for row in rows]


def assert_bit_equal(state, expected):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state), jax.device_get(expected))


def signalling(config, step, *signals):
    """Batches that send this process signals while the batch of `step` is asked for."""

    def batches(start):
        for at, batch in enumerate(toy_batches(config)(start), start + 1):
            for number in signals if at == step else ():
                signal.raise_signal(number)
            yield batch

    return batches


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The state and the directory of 40 steps that nothing interrupts."""
    workdir = tmp_path_factory.mktemp("whole")
    return run(toy(40), workdir), workdir


@pytest.mark.parametrize("plan", ["jit", "mesh", pytest.param("pmap", marks=pytest.mark.slow)])
def test_twelve_steps_and_28_are_40(tmp_path, plan, monkeypatch):
    """Parameters, EMA, optimizer and logged losses, bit for bit."""
    monkeypatch.setattr(parallel, "MIN_SHARDED", 64)
    whole = run(toy(40), tmp_path / "whole", plan)
    run(toy(12), tmp_path / "parts", plan)
    assert [step for step, *_ in logged(tmp_path / "parts")] == [5, 10, 12]
    assert_bit_equal(run(toy(40), tmp_path / "parts", plan), whole)
    assert logged(tmp_path / "parts") == logged(tmp_path / "whole")
    assert [step for step, *_ in logged(tmp_path / "whole")] == [5, 10, 15, 20, 25, 30, 35, 40]
    assert steps_in(tmp_path / "parts" / "checkpoints") == [20, 30, 40]


@pytest.mark.parametrize("steps", [10, 12])
def test_a_run_that_is_done_stays_done(tmp_path, steps, capfd):
    """Also where its last line is none of those that are logged every five steps."""
    state = run(toy(steps), tmp_path)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    capfd.readouterr()
    assert_bit_equal(run(toy(steps), tmp_path), state)
    assert capfd.readouterr().err == f"{tmp_path} is already at step {steps} of {steps}: nothing to do\n"
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    assert steps_in(tmp_path / "checkpoints")[-1] == steps
    with pytest.raises(ValueError, match=f"at step {steps} already: expected --steps {steps} or more, got 8"):
        run(toy(8), tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize(("signals", "code"), [((signal.SIGTERM, signal.SIGTERM), 143), ((signal.SIGINT,), 130)])
def test_a_signal_saves_the_step_it_came_in(tmp_path, whole, signals, code, capfd):
    config, handlers = toy(40), [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(SystemExit) as stop:
        run(config, tmp_path, make_batches=signalling(config, 7, *signals))
    assert stop.value.code == code
    assert newest_good(tmp_path / "checkpoints") == 7
    assert f"stopped by {signals[0].name} after step 7" in capfd.readouterr().err
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers
    assert_bit_equal(run(config, tmp_path), whole[0])
    assert logged(tmp_path) == logged(whole[1])


def test_the_answer_to_a_signal_is_said_once(tmp_path, capfd):
    with pytest.raises(SystemExit):
        run(toy(40), tmp_path, make_batches=signalling(toy(40), 7, signal.SIGTERM, signal.SIGTERM))
    said = capfd.readouterr().err
    assert said.count("stopping after this step") == 1
    assert "SIGTERM: stopping after this step; Ctrl-C once more ends at once" in said


def test_figures_are_shown_before_the_first_line_of_a_slow_run(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("flaxgen.train.clock.FIRST_LINE", 0.0)
    run(toy(10, log_every=10), tmp_path)
    said = capfd.readouterr().err
    assert said.count("step 1: loss ") == 1
    assert "step 2: loss" not in said
    assert [step for step, *_ in logged(tmp_path)] == [10]


def test_a_run_of_days_says_so(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("flaxgen.train.clock.MEASURED", (3, 0.0))
    monkeypatch.setattr("flaxgen.train.clock.DAY", 1e-9)
    run(toy(10), tmp_path)
    assert capfd.readouterr().err.count("days here: 6 steps of") == 1


def test_a_second_run_in_the_directory_is_refused_and_the_first_loses_nothing(tmp_path, whole):
    """The second begins while the first is saving."""
    config, refused = toy(40), []

    def batches(start):
        for at, batch in enumerate(toy_batches(config)(start), start + 1):
            if at == 11:
                (tmp_path / "checkpoints" / "saving-99").mkdir()
                with pytest.raises(ValueError, match="is being trained in by process") as error:
                    run(config, tmp_path)
                refused.append(error)
                assert (tmp_path / "checkpoints" / "saving-99").exists(), "the first one's unfinished checkpoint"
            yield batch

    assert_bit_equal(run(config, tmp_path, make_batches=batches), whole[0])
    assert len(refused) == 1
    assert not (tmp_path / "lock").exists()


def test_a_second_interrupt_does_not_wait(tmp_path):
    config = toy(40)
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path, make_batches=signalling(config, 7, signal.SIGINT, signal.SIGINT))
    assert steps_in(tmp_path / "checkpoints") == []


@pytest.mark.parametrize(("nan_at", "log_every"), [(15, 1), (15, 100), (20, 100)])
def test_a_loss_that_is_no_number_stops_the_run_before_it_is_saved(tmp_path, log_every, nan_at):
    """Also where it would not be logged before the save, and where the step of the save itself is the first bad one."""
    with pytest.raises(
        FloatingPointError, match=rf"(loss|grad_norm) is nan at step {nan_at if log_every == 1 else 20}"
    ):
        run(toy(40, nan_at=nan_at, log_every=log_every), tmp_path)
    assert steps_in(tmp_path / "checkpoints") == [10]
    assert find_fault(tmp_path / "checkpoints" / "10") is None
    assert all(step < nan_at for step, *_ in logged(tmp_path))


def test_a_run_that_diverges_stops_and_keeps_its_last_good_checkpoint(tmp_path):
    """From step 13 on; what is saved every 5 steps is not, once the loss is 1e12 times what it was."""
    config = toy(100, checkpoint_every=5, diverged_steps=20)

    def batches(start):
        for at, batch in enumerate(toy_batches(config)(start), start + 1):
            yield {"x": batch["x"] * (1e6 if at > 12 else 1)}

    with pytest.raises(FloatingPointError, match=r"loss is .*e\+\d\d at step 32, and has been more than 1000 times"):
        run(config, tmp_path, make_batches=batches)
    assert steps_in(tmp_path / "checkpoints") == [5, 10]
    assert find_fault(tmp_path / "checkpoints" / "10") is None


def test_a_wrong_learning_rate_is_found_out(tmp_path):
    with pytest.raises(FloatingPointError, match="at step 51, and has been more than 1000 times its running value"):
        run(toy(400, rate=1e4, log_every=100, checkpoint_every=100), tmp_path)
    assert steps_in(tmp_path / "checkpoints") == []


def test_a_state_that_is_no_number_is_not_saved_though_the_loss_was_one(tmp_path):
    config = toy(40)
    experiment = toy_experiment(config)

    def make_step(axis_name):
        step = experiment.make_train_step(axis_name)

        def poisoned(state, batch, key):
            state, metrics = step(state, batch, key)
            nan = jax.numpy.where(state.step == 10, jax.numpy.nan, 1.0)
            return state._replace(params={"w": state.params["w"] * nan}), metrics

        return poisoned

    broken = experiment._replace(make_train_step=make_step)
    with pytest.raises(FloatingPointError, match="params/w is nan after step 10"):
        loop.run(broken, config, tmp_path, parallel.jit_plan(), toy_batches(config))
    assert steps_in(tmp_path / "checkpoints") == []


def test_a_damaged_checkpoint_is_trained_over(tmp_path, capfd):
    config = toy(20)
    whole = run(config, tmp_path)
    (tmp_path / "checkpoints" / "20" / "state" / "manifest.ocdbt").unlink()
    assert_bit_equal(run(config, tmp_path), whole)
    assert "state/manifest.ocdbt is missing" in capfd.readouterr().err
    assert newest_good(tmp_path / "checkpoints") == 20
    assert [step for step, *_ in logged(tmp_path)] == [5, 10, 15, 20]


def test_previews_counters_and_trackers(tmp_path, capfd):
    told = []
    extras = loop.Extras(lambda: {"skipped": 2.0}, (lambda step, metrics: told.append((step, metrics)),))
    run(toy(12, preview_every=5), tmp_path, extras=extras)
    drawn = sorted(path.name for path in (tmp_path / "previews").iterdir())
    assert drawn == [f"step-{step:06d}.png" for step in (0, 1, 5, 10, 12)]
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["skipped"]) for row in rows] == [(5, 2.0), (10, 2.0), (12, 2.0)]
    assert all(row["images_per_second"] > 0 and 0 <= row["input_wait"] <= 1 for row in rows)
    assert [step for step, _ in told] == [5, 10, 12]
    said = capfd.readouterr().err
    assert "compiling the train step: jit on 1 cpu, batch 8" in said
    assert "compiled, and took the first step, in" in said


def test_the_state_is_evaluated_every_so_often_and_at_last(tmp_path, whole):
    """Where nothing else is logged too; a run that goes on has the same lines."""
    asked = []

    def evaluate(state):
        asked.append(int(state.step))
        return {"eval/norm": float(np.linalg.norm(state.ema_params["w"]))}

    extras = loop.Extras(evaluate_every=4, evaluate=evaluate)
    assert_bit_equal(run(toy(40), tmp_path / "once", extras=extras), whole[0])
    assert asked == list(range(4, 41, 4))
    run(toy(12), tmp_path / "twice", extras=extras)
    run(toy(40), tmp_path / "twice", extras=extras)

    def figures(name):
        rows = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        return {row["step"]: row.get("eval/norm") for row in rows}

    assert figures("once") == figures("twice")
    assert sorted(figures("once")) == sorted({*range(4, 41, 4), *range(5, 41, 5)})
    assert [step for step, norm in figures("once").items() if norm is not None] == asked[:10]


def test_a_profile_is_written(tmp_path):
    run(toy(6), tmp_path, extras=loop.Extras(profile=True))
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_a_loader_is_closed_and_may_not_end(tmp_path):
    config, closed = toy(10), []

    def batches(start):
        try:
            yield from itertools.islice(toy_batches(config)(start), 3)
        finally:
            closed.append(start)

    with pytest.raises(ValueError, match="the data ended before the run"):
        run(config, tmp_path, make_batches=batches)
    assert closed == [0]


def test_a_batch_that_the_devices_do_not_divide(tmp_path):
    with pytest.raises(ValueError, match="batch_size=10 is not divisible by the 8 devices of mesh"):
        run(toy(10, batch_size=10), tmp_path, "mesh")
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(
    "fields",
    [
        {"steps": 0},
        {"batch_size": -8},
        {"log_every": 0},
        {"seed": -1},
        {"keep_checkpoints": True},
        {"diverged_steps": -1},
    ],
)
def test_settings_out_of_range_are_named(fields):
    (name,) = fields
    with pytest.raises(ValueError, match=f"{name}={fields[name]!r} is out of range: expected an integer") as error:
        Run(**{"seed": 0, "steps": 10, "batch_size": 8, **fields})
    assert "\n" not in str(error.value)
