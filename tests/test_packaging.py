"""What setup.cfg promises: bounds that are said twice agree, and drawing needs no more than requirements-draw.txt."""

import configparser
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import flaxgen

ROOT = Path(__file__).parents[1]
MODULES = {"tensorflow-datasets": "tensorflow_datasets", "orbax-checkpoint": "orbax.checkpoint"}
"""Names that are not those of the package that is installed."""


def requirements(text):
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return {requirement.name: requirement for requirement in map(Requirement, lines)}


@pytest.fixture(scope="module")
def config():
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "setup.cfg")
    return parser


@pytest.fixture(scope="module")
def needed(config):
    return requirements(config["options"]["install_requires"])


@pytest.fixture(scope="module")
def lean():
    return requirements((ROOT / "requirements-draw.txt").read_text())


def test_bounds_of_a_lean_install_are_those_of_the_package(needed, lean):
    assert {name: str(needed[name].specifier) for name in lean} == {
        name: str(requirement.specifier) for name, requirement in lean.items()
    }


CONDA = {"flatbuffers": "python-flatbuffers", "matplotlib": "matplotlib-base"}
"""Names that conda-forge has for what PyPI calls otherwise."""


def test_the_conda_recipe_asks_for_the_same(config, needed):
    recipe = yaml.safe_load((ROOT / "packaging" / "conda" / "recipe" / "recipe.yaml").read_text())

    def asked(lines):
        return {name: SpecifierSet(bounds) for name, _, bounds in (line.partition(" ") for line in lines)}

    def wanted(requirements):
        return {CONDA.get(name, name.lower()): requirement.specifier for name, requirement in requirements.items()}

    python = SpecifierSet(config["options"]["python_requires"])
    assert asked(recipe["requirements"]["run"]) == {"python": python, **wanted(needed)}
    app = wanted(requirements(config["options.extras_require"]["app"]))
    assert asked(recipe["requirements"]["run_constraints"]) == app
    assert recipe["context"]["version"] == config["metadata"]["version"] == flaxgen.__version__
    script = config["options.entry_points"]["console_scripts"].strip()
    assert recipe["build"]["python"]["entry_points"] == [script]


def test_workflows_hold_no_secret_and_publish_what_was_checked():
    flows = {path.stem: path.read_text() for path in (ROOT / ".github" / "workflows").glob("*.yml")}
    assert {"ci", "publish"} <= flows.keys()
    assert not [name for name, text in flows.items() if "secrets." in text or "password" in text]
    jobs = yaml.safe_load(flows["publish"])["jobs"]
    run = "\n".join(step.get("run", "") for step in jobs["build"]["steps"])
    assert all(part in run for part in ("python -m build", "twine check --strict", "check_dist.py"))
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert {"build", "draw"} == {*jobs["publish"]["needs"]}
    assert ".ci/run" in [step.get("run") for step in yaml.safe_load(flows["ci"])["jobs"]["all"]["steps"]]


def test_accelerators_ask_for_the_jax_of_the_package(config, needed):
    for extra in ("cuda12", "cuda13", "tpu"):
        (jax,) = requirements(config["options.extras_require"][extra]).values()
        assert (jax.name, jax.extras, jax.specifier) == ("jax", {extra}, needed["jax"].specifier)


def test_a_model_is_loaded_with_no_more_than_a_lean_install(needed, lean):
    """What flax itself brings, such as Orbax, may be there; that it draws is `make demo-lean`."""
    heavy = [MODULES.get(name, name) for name in sorted({*needed} - {*lean} - {"optax", "orbax-checkpoint"})]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({heavy}))\n"  # importing what is None fails
        "from flaxgen import verbs, cli\n"
        "cli.make_parser()\n"
        "model = verbs.load(verbs.find(None))\n"
        "assert model.requests\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "transformers" in heavy
    assert "grain" in heavy


def test_types_come_with_the_package(config):
    assert "py.typed" in config["options.package_data"]["flaxgen"].split()
    assert (ROOT / "flaxgen" / "py.typed").is_file()


def test_every_folder_of_modules_is_a_package():
    """setuptools installs no others."""
    folders = {path.parent for path in (ROOT / "flaxgen").rglob("*.py")}
    assert [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []
