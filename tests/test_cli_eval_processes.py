"""`flaxgen eval` as two processes: the figures of one process."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]


def evaluate(out: Path, devices: int, *more: str) -> subprocess.Popen:
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    command = [sys.executable, "-m", "flaxgen", "eval", "--out", str(out), "--parallel", "mesh", *more]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    rng = np.random.default_rng(0)
    for name, brightness in (("real", 0), ("fake", 40)):
        (tmp_path / name).mkdir()
        for i in range(40):
            picture = rng.integers(0, 200, (4, 4, 3), dtype=np.uint8) + np.uint8(brightness)
            Image.fromarray(picture).save(tmp_path / name / f"{i}.png")
    (tmp_path / "fake" / "7.png").write_bytes(b"broken")
    asked = ["--real", str(tmp_path / "real"), "--fake", str(tmp_path / "fake"), "--batch", "8"]
    alone = evaluate(tmp_path / "one.json", 2, *asked)
    said = alone.communicate(timeout=300)[1]
    assert alone.returncode == 0, said
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    given = ["--coordinator", address, "--num-processes", "2", "--process-id"]
    both = [evaluate(tmp_path / "two.json", 1, *asked, *given, str(i)) for i in range(2)]
    said = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert ["wrote" in out for out, _ in said] == [True, False], "one process speaks"
    found, expected = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("two", "one"))
    assert found.keys() == expected.keys()
    assert found["replaced"] == 1
    for name, value in expected.items():
        assert found[name] == (pytest.approx(value, rel=1e-6) if isinstance(value, float) else value), name
    assert not list(tmp_path.glob("*progress*"))
