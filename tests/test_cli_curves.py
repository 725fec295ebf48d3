"""`flaxgen plot` and `flaxgen watch`."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from flaxgen.cli import main
from flaxgen.measure.curves import BARS, bars, make_lines, make_page, read_run


def write_run(folder, losses, **config):
    (folder / "previews").mkdir(parents=True)
    config = {"type": "Diffusion", "steps": 100, "batch_size": 4, "net": {"width": 8}, **config}
    (folder / "config.json").write_text(json.dumps({"flaxgen": "0", "config": config}))
    lines = [json.dumps({"step": 10 * i + 10, "loss": loss, "images_per_second": 2.0}) for i, loss in enumerate(losses)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    for step in range(0, 100, 10):
        Image.fromarray(np.full((4, 4, 3), step, np.uint8)).save(folder / "previews" / f"step-{step:06d}.png")
    return folder


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "a <b>", [3.0, 2.0, 1.0])


def test_curves_are_read_and_a_line_that_is_being_written_is_left_out(run):
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "eval/fid": 7.5}\n{"step": 50, "lo')
    told = read_run(run)
    assert list(told.curves) == ["loss", "eval/fid", "images_per_second"]
    assert told.curves["loss"] == ([10, 20, 30], [3.0, 2.0, 1.0])
    assert told.curves["eval/fid"] == ([40], [7.5])
    assert (told.step, told.steps, told.is_done) == (40, 100, False)


def test_a_page_of_two_runs_needs_nothing_else(run, tmp_path):
    other = write_run(tmp_path / "other", [5.0], net={"width": 16})
    page = make_page([read_run(run), read_run(other)])
    assert page.count("<svg") == 2
    assert "a &lt;b&gt;" in page
    assert "a <b>" not in page
    assert re.search(r"<td>net.width</td><td>8</td><td>16</td>", page)
    assert "<td>steps</td>" not in page
    assert page.count("data:image/png;base64,") == 12
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert make_page([read_run(run), read_run(other)]) == page


def test_lines_of_a_terminal(run):
    told = read_run(run)._replace(name="run", age=3.0)
    lines = make_lines(told)
    assert lines[0] == "run: step 30 of 100 (30%), told 3 s ago, 2 min to go"
    assert lines[1].split() == ["loss", "1", "█▅▁"]


def test_bars():
    assert bars([0.0, 1.0], 8) == BARS[0] + BARS[-1]
    assert bars([float(i) for i in range(16)], 8) == BARS
    assert bars([1.0, float("nan"), 1.0], 8) == f"{BARS[0]}?{BARS[0]}"
    assert bars([2.0] * 5, 3) == BARS[0] * 3


def test_commands(run, tmp_path, capsys):
    out = tmp_path / "page.html"
    assert main(["plot", str(run), "--out", str(out)]) == 0
    assert out.read_text().startswith("<!doctype html>")
    assert main(["watch", str(run), "--once"]) == 0
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 100, "loss": 0.5}\n')
    assert main(["watch", str(run), "--every", "0.01"]) == 0
    printed = capsys.readouterr().out
    assert "step 30 of 100" in printed
    assert "step 100 of 100 (100%)" in printed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plot", "{}/nowhere"], "is no run directory, which has config.json and metrics.jsonl"),
        (["watch", "{}/empty"], "metrics.jsonl has no line yet: wait for the first `log_every` steps"),
        (["watch", "{}/empty", "--every", "0"], "--every 0.0: expected seconds above 0"),
    ],
)
def test_bad_input_is_one_line(arguments, said, tmp_path, capsys):
    write_run(tmp_path / "empty", [])
    assert main([argument.format(tmp_path) for argument in arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert said in lines[0]
