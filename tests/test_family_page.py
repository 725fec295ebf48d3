"""docs/family.md as it stands: a family of a package of its own, known by an entry point, does all that the others
do."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

PAGE = Path(__file__).parents[1] / "docs" / "family.md"
MOST_LINES, MOST_CODE = 120, 110


def blocks(language):
    found = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return [block for kind, block in found if kind == language]


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The page's files in a folder, installed as pip would."""
    folder = tmp_path_factory.mktemp("package")
    net, family, experiment = blocks("python")
    (folder / "tiny_vae").mkdir()
    (folder / "tiny_vae" / "__init__.py").write_text("")
    (folder / "tiny_vae" / "net.py").write_text(net)
    (folder / "tiny_vae" / "family.py").write_text(family)
    (folder / "digits.py").write_text(experiment)
    (project,) = blocks("toml")
    group = re.search(r'\[project\.entry-points\."(.*?)"\]\n(.*)', project)
    info = folder / "tiny_vae-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny_vae\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(f"[{group[1]}]\n{group[2].replace(chr(34), '')}\n")
    return folder


def run(folder, *arguments, program="flaxgen"):
    path = os.pathsep.join([str(folder), str(Path(__file__).parents[1])])
    environment = {**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, *(["-c"] if program == "-c" else ["-m", program]), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_a_family_is_short():
    assert len(PAGE.read_text().splitlines()) <= MOST_LINES
    assert sum(len(block.splitlines()) for block in blocks("python")) <= MOST_CODE


@pytest.mark.slow  # each command is a process
def test_every_command_of_the_page(package):
    commands = [line.split()[1:] for line in blocks("")[0].splitlines()]
    for arguments in commands:
        done = run(package, *arguments)
        assert done.returncode == 0, done.stderr
    assert "vae with a TinyVae, at step 300 of 300" in done.stdout
    with Image.open(package / "digits.png") as sheet:
        assert sheet.size[0] > 8 * 64
    assert list((package / "runs" / "vae" / "previews").iterdir())
    again = run(package, "again", "digits/003.png", "--out", "again.png")
    assert again.returncode == 0, again.stderr
    assert (package / "again.png").read_bytes() == (package / "digits" / "003.png").read_bytes()
    code = "import flaxgen; model = flaxgen.load('models/vae'); print(model); print(model.sample(num=2))"
    done = run(package, code, program="-c")
    assert "vae model at step 300" in done.stdout, done.stderr
    assert "2 pictures of 8x8x1" in done.stdout
