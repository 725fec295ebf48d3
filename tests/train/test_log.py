"""The log says each step once, whatever interrupted the run."""

import json
import sys
import types
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto import event_pb2

from flaxgen.train.log import RunLog, rewind, scalars, wandb_tracker


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_metrics_are_one_object_a_step_at_once(tmp_path):
    told = []
    with RunLog(tmp_path, 0, 10, (lambda step, metrics: told.append((step, metrics)),)) as log:
        log.write(5, {"loss": 0.5, "images_per_second": 80.0})
        assert lines(tmp_path / "metrics.jsonl") == [{"step": 5, "loss": 0.5, "images_per_second": 80.0}]
        log.write(10, {"loss": 0.25})
    assert [line["step"] for line in lines(tmp_path / "metrics.jsonl")] == [5, 10]
    assert told == [(5, {"loss": 0.5, "images_per_second": 80.0}), (10, {"loss": 0.25})]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_preview_is_a_picture_file(tmp_path, channels):
    image = np.random.default_rng(0).integers(0, 256, (6, 4, channels)).astype(np.uint8)
    with RunLog(tmp_path, 0, 10) as log:
        log.picture(7, image)
    drawn = np.asarray(Image.open(tmp_path / "previews" / "step-000007.png"))
    np.testing.assert_array_equal(drawn.reshape(image.shape), image)


def test_tensorboard_has_the_curves(tmp_path):
    with RunLog(tmp_path, 0, 10) as log:
        log.write(5, {"loss": 0.5})
    (path,) = (tmp_path / "tensorboard").iterdir()
    content, tags, messages = path.read_bytes(), [], cast(Any, event_pb2)
    while content:
        size = int.from_bytes(content[:8], "little")
        event = messages.Event.FromString(content[12 : 12 + size])
        tags += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
        content = content[12 + size + 4 :]
    assert (5, "loss", 0.5) in tags


@pytest.mark.parametrize(
    ("step", "kept"),
    [(0, []), (3, []), (5, [5]), (7, [5]), (12, [5, 10]), (15, [5, 10, 12, 15]), (99, [5, 10, 12, 15])],
)
def test_rewinding_keeps_what_will_not_be_written_again(tmp_path, step, kept):
    """The line at 12 was the last of a run of 12 steps: a longer run, logging every 5, would not have it."""
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": s, "loss": 1.0}) + "\n" for s in (5, 10, 12, 15)))
    rewind(path, step, logged=step % 5 == 0)
    assert [line["step"] for line in lines(path)] == kept


def test_rewinding_drops_a_torn_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 5, "loss": 1.0}\nnonsense\n[]\n{"step": 10, "lo')
    rewind(path, 10, logged=True)
    assert lines(path) == [{"step": 5, "loss": 1.0}]
    rewind(tmp_path / "none.jsonl", 10, logged=True)


def test_the_first_step_is_not_in_the_estimate_of_what_remains(tmp_path):
    """A minute of compiling, then 10 steps a second."""
    with RunLog(tmp_path, 20, 120) as log:
        bar = log._bar
        bar.start_t -= 60
        bar.last_print_t -= 60
        log.start_measuring()
        shown = bar.format_dict
        assert (shown["n"], shown["initial"], shown["total"]) == (21, 21, 120)
        assert shown["elapsed"] < 1
        bar.start_t -= 1
        for _ in range(10):
            log.advance()
        shown = bar.format_dict
        rate = shown["rate"] or (shown["n"] - shown["initial"]) / shown["elapsed"]
        assert rate == pytest.approx(10, rel=0.2)


def test_first_figures_are_shown_and_not_in_the_file(tmp_path, capfd):
    with RunLog(tmp_path, 0, 10) as log:
        log.show(7, {"grad_norm": 2.0, "loss": 0.123456})
    assert "step 7: loss 0.1235, grad_norm 2\n" in capfd.readouterr().err
    assert (tmp_path / "metrics.jsonl").read_bytes() == b""


def test_metrics_become_numbers():
    assert scalars({"loss": np.float32(0.5), "n": np.int32(3)}) == {"loss": 0.5, "n": 3.0}


def test_wandb_that_is_not_there_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match=r"pip install 'flaxgen\[wandb\]'"):
        wandb_tracker("project", tmp_path, {})


def test_wandb_is_told_of_every_logged_step(tmp_path, monkeypatch):
    told = []
    run = types.SimpleNamespace(log=lambda metrics, step: told.append((step, metrics)))
    fake = types.SimpleNamespace(init=lambda **given: told.append(given) or run)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    wandb_tracker("project", tmp_path / "name", {"seed": 1})(5, {"loss": 0.5})
    assert (told[0]["project"], told[0]["id"], told[0]["config"]) == ("project", "name", {"seed": 1})
    assert told[1:] == [(5, {"loss": 0.5})]


def test_a_log_that_cannot_be_written_names_the_file(tmp_path):
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with (
        pytest.raises(OSError, match=r"could not be written \(No space left on device\)") as error,
        RunLog(tmp_path, 0, 10) as log,
    ):
        log.write(1, {"loss": 1.0})
    assert error.value.filename == str(tmp_path / "metrics.jsonl")
