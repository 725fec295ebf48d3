"""`flaxgen train` as two processes: the run of one process, previews included."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
EXPERIMENT = """
from flaxgen.data import Data
from flaxgen.nets.mlp import MLP
from flaxgen.zoo.diffusion import Config
from flaxgen.family.process import Process
from flaxgen.family.sampling import Sampling

def get_config():
    return Config(
        seed=0, steps=4, batch_size=8, log_every=1, preview_every=2, checkpoint_every=2,
        data=Data(source="moons", size=64, threads=0),
        net=MLP(features=2, width=16, depth=1),
        process=Process(schedule="cosine", timesteps=8),
        sampling=Sampling(steps=2, threshold="none", batch=8),
    )
"""


def train(experiment: Path, workdir: Path, devices: int, *more: str) -> subprocess.Popen:
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    command = [sys.executable, "-m", "flaxgen", "train", str(experiment), "--workdir", str(workdir)]
    return subprocess.Popen([*command, "--parallel", "mesh", *more], env=environment, stderr=subprocess.PIPE, text=True)


def train_both(experiment: Path, workdir: Path, *more: str) -> list[subprocess.Popen]:
    """Two processes of one run."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        together = ("--coordinator", f"127.0.0.1:{probe.getsockname()[1]}", "--num-processes", "2")
    return [train(experiment, workdir, 1, *together, "--process-id", str(i), *more) for i in range(2)]


def losses(workdir: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    experiment = tmp_path / "tiny.py"
    experiment.write_text(EXPERIMENT)
    alone = train(experiment, tmp_path / "one", 2)
    said = alone.communicate(timeout=300)[1]
    assert alone.returncode == 0, said
    both = train_both(experiment, tmp_path / "two")
    said = [process.communicate(timeout=300)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-5)
    assert (tmp_path / "two" / "previews" / "step-000004.png").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_process_that_dies_stops_the_other_in_one_line(tmp_path, killed):
    experiment, run = tmp_path / "tiny.py", tmp_path / "run"
    experiment.write_text(EXPERIMENT)
    both = train_both(experiment, run, "--set", "steps=1000000", "checkpoint_every=50", "log_every=50")
    deadline = time.monotonic() + 120
    while not (run / "checkpoints" / "50").exists():
        assert time.monotonic() < deadline, "step 50 was never reached"
        time.sleep(0.1)
    both[killed].kill()
    said = both[1 - killed].communicate(timeout=60)[1]
    both[killed].communicate()
    assert both[1 - killed].returncode == 1
    assert "Traceback" not in said
    last = said.strip().splitlines()[-1]
    assert last.startswith("flaxgen train: error: another process of this run is gone (")
    assert last.endswith("): start all of them again, and the run resumes at its newest checkpoint")
