"""An evaluation by two processes is that of one, also when both were stopped on the way."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


def run(out: Path, folder: Path, processes: int, *more: str) -> list[int]:
    """Two devices in all; the exit codes."""
    out.mkdir(exist_ok=True)
    flags = f"--xla_force_host_platform_device_count={2 // processes}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    script = str(Path(__file__).with_name("evaluate_process.py"))
    started = [
        subprocess.Popen(
            [sys.executable, script, str(out), port, str(processes), str(i), str(folder), *more], env=environment
        )
        for i in range(processes)
    ]
    return [process.wait(timeout=400) for process in started]


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-6)), key


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    folder, rng = tmp_path / "pictures", np.random.default_rng(0)
    folder.mkdir()
    for i in range(50):
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / f"{i}.png")
    assert run(tmp_path / "one", folder, 1) == [0]
    expected = json.loads((tmp_path / "one" / "result-0.json").read_text())
    assert all(code != 0 for code in run(tmp_path / "two", folder, 2, "2"))
    assert run(tmp_path / "two", folder, 2) == [0, 0]
    for number in range(2):
        assert_close(json.loads((tmp_path / "two" / f"result-{number}.json").read_text()), expected)
