"""`flaxgen info` of an experiment, for a mesh that is not here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flaxgen.cli import main

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
EXPERIMENT = str(EXPERIMENTS / "ddpm_scurve.py")


def test_an_experiment_on_more_devices_than_there_are(capsys):
    assert main(["info", EXPERIMENT, "--mesh", "data=8,fsdp=32"]) == 0
    out = capsys.readouterr().out
    assert "of training state" in out
    assert "data=8, fsdp=32: 256 devices" in out
    assert "net.features = 2" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.py"], "experiment nowhere.py does not exist"),
        ([EXPERIMENT, "--mesh", "8x32"], "--mesh 8x32: expected data=N,fsdp=M"),
        ([EXPERIMENT, "--mesh", "data=0"], "data=0, fsdp=1: expected 1 or more of both"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, message, capsys):
    assert main(["info", *arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert message in lines[0]


def test_what_levels_hold_is_named_as_set_takes_it(capsys):
    assert main(["info", str(EXPERIMENTS / "emoji" / "net.py")]) == 0
    said = capsys.readouterr().out
    assert "net.attention.0 = None" in said
    assert "net.attention.1.heads = 4" in said
    assert "{" not in said


@pytest.mark.parametrize("arguments", [["models"], ["completion", "bash"]])
def test_whoever_reads_no_further_sees_no_error(arguments):
    command = [sys.executable, "-m", "flaxgen", *arguments]
    read, write = os.pipe()
    os.close(read)
    with open(write, "wb") as unread:
        done = subprocess.run(command, stdout=unread, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (141, "")
