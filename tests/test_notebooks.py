"""The notebooks: pairs agree, their first cell installs rightly, and every cell of each runs (slow)."""

import importlib.util
import json
import os
import subprocess
import sys
import types
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SECONDS = 1200
"""That a cell may take where others compute too."""
STRICT = """\
import warnings
warnings.simplefilter("error")
warnings.filterwarnings("ignore", module="ipykernel|jupyter_client|zmq|traitlets|IPython|asyncio")
"""


def _script():
    spec = importlib.util.spec_from_file_location("notebook_pairs", ROOT / "scripts" / "notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PAIRS = _script()


def cells_of(name):
    return PAIRS.read_script((PAIRS.FOLDER / f"{name}.py").read_text("utf-8"))


def test_there_are_eight_pairs():
    notebooks = sorted(path.stem for path in PAIRS.FOLDER.glob("*.ipynb"))
    assert notebooks == PAIRS.names()
    assert [name[:2] for name in notebooks] == [f"{i}_" for i in range(1, 9)]


@pytest.mark.parametrize("name", PAIRS.names())
def test_a_pair_agrees_and_begins_like_all_others(name):
    """Where this fails, run scripts/notebooks.py."""
    cells = cells_of(name)
    assert PAIRS.read_script(PAIRS.write_script(cells)) == cells
    assert PAIRS.with_first_cells(name, cells) == cells
    assert (PAIRS.FOLDER / f"{name}.ipynb").read_text("utf-8") == PAIRS.to_notebook(cells)


@pytest.mark.parametrize("name", PAIRS.names())
def test_a_notebook_holds_no_outputs_and_names_files_that_are_there(name):
    notebook = json.loads((PAIRS.FOLDER / f"{name}.ipynb").read_text("utf-8"))
    assert not any(cell.get("outputs") for cell in notebook["cells"])
    text = "".join("".join(cell["source"]) for cell in notebook["cells"])
    named = {word.strip("`()[],.;:") for word in text.split() if word.startswith(("`docs/", "[`experiments/"))}
    assert all((ROOT / word.split("`")[0]).exists() for word in named), named


# The first cell, on machines that are not at hand


class Machine:
    """What the first cell finds and does: devices by the beginnings of their names, and whether flaxgen is there."""

    def __init__(self, monkeypatch, *, devices=(), installed=False, colab=True, backend="cpu"):
        self.ran, self.restarted = [], []
        find_spec = importlib.util.find_spec
        monkeypatch.setattr(
            "glob.glob", lambda pattern: [d for d in devices if d.startswith(pattern.split("[")[0].rstrip("*"))]
        )
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name: find_spec(name) if installed or name != "flaxgen" else None
        )
        monkeypatch.setattr(subprocess, "run", lambda command, check: self.ran.append(command))
        fake = types.ModuleType("jax")
        device = types.SimpleNamespace(device_kind="a chip")
        fake.default_backend, fake.device_count, fake.devices = lambda: backend, lambda: 1, lambda: [device]
        monkeypatch.setitem(sys.modules, "jax", fake)
        if colab:
            monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
        else:
            monkeypatch.delitem(sys.modules, "google.colab", raising=False)
        monkeypatch.delenv("FLAXGEN_SOURCE", raising=False)

    def run(self, repository="someone/flaxgen"):
        text = PAIRS.FIRST.read_text("utf-8").replace("OWNER/flaxgen", repository)
        kernel = types.SimpleNamespace(do_shutdown=lambda restart: self.restarted.append(restart))
        exec(compile(text, "first_cell", "exec"), {"get_ipython": lambda: types.SimpleNamespace(kernel=kernel)})


@pytest.mark.parametrize(
    ("devices", "extra"), [((), "demo"), (("/dev/nvidia0",), "demo,cuda12"), (("/dev/vfio/0",), "demo,tpu")]
)
def test_colab_gets_the_jax_of_its_device_and_restarts(monkeypatch, devices, extra):
    machine = Machine(monkeypatch, devices=devices)
    machine.run()
    [[*_, wanted]] = machine.ran
    assert wanted == f"flaxgen[{extra}] @ git+https://github.com/someone/flaxgen"
    assert machine.restarted == [True]


def test_where_flaxgen_is_installed_nothing_is_done(monkeypatch, capsys):
    machine = Machine(monkeypatch, devices=("/dev/nvidia0",), installed=True, colab=False)
    machine.run()
    assert machine.ran == machine.restarted == []
    assert capsys.readouterr() == ("", "")


def test_a_colab_whose_jax_does_not_see_its_device_is_told(monkeypatch):
    Machine(monkeypatch, devices=("/dev/accel0",), installed=True, backend="tpu").run()
    with pytest.raises(RuntimeError, match="runs on the cpu of a machine with a tpu"):
        Machine(monkeypatch, devices=("/dev/accel0",), installed=True, backend="cpu").run()


def test_without_a_public_repository_it_says_so(monkeypatch):
    machine = Machine(monkeypatch)
    with pytest.raises(ValueError, match="no public repository"):
        machine.run(repository="OWNER/flaxgen")
    assert machine.ran == []


# Everything else


def kernel_environment():
    """That of a user on a CPU: none of what conftest.py sets for tests, but for what shortens compiling."""
    flags = "--xla_backend_optimization_level=0"
    if tuple(map(int, metadata.version("jaxlib").split(".")[:2])) < (0, 12):
        flags += " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    return {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": path, "PYTHONWARNINGS": "default"}


@pytest.mark.slow
@pytest.mark.timeout(2 * SECONDS)
@pytest.mark.parametrize("name", PAIRS.names())
def test_every_cell_runs(name, tmp_path):
    """In a process of its own, with warnings as errors; and pictures are shown."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(PAIRS.FOLDER / f"{name}.ipynb", 4)
    nbformat.validate(notebook)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(STRICT, id="strict"))
    client = nbclient.NotebookClient(
        notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute(env=kernel_environment())
    shown = [output for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    assert sum("image/png" in output["data"] for output in shown) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("name", PAIRS.names())
def test_jupytext_reads_the_same_cells(name):
    jupytext = pytest.importorskip("jupytext")
    read = jupytext.read(PAIRS.FOLDER / f"{name}.py").cells
    assert [(cell.cell_type, cell.source) for cell in read] == [tuple(cell) for cell in cells_of(name)]
