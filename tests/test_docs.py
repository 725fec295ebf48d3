"""The code in README.md and docs/ runs as it is written, against a model directory of the shape that it speaks of."""

import re
from pathlib import Path

import gan_toy
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_weights
import unet_toy
from saving import write_model

from flaxgen import parallel, verbs
from flaxgen.data import Data
from flaxgen.diffusion import samplers, times
from flaxgen.family.denoising import Objective
from flaxgen.family.sampling import Sampling
from flaxgen.zoo.diffusion import Config

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A folder with models/digits: a tiny net of the interface that `experiments/ddpm_digits.py` trains."""
    config = Config(
        seed=0,
        steps=1,
        batch_size=8,
        data=Data(source="digits", image_size=8, channels=1),
        net=unet_toy.unet(**unet_toy.GREY, num_classes=11),
        objective=Objective(condition_dropout=0.1),
        sampling=Sampling(steps=2),
    )
    folder = tmp_path_factory.mktemp("workspace")
    params = random_weights.draw_like(verbs.family_of(config).abstract_params(config))
    write_model(folder / "models" / "digits", config, params, 1)
    return folder


def blocks(path: str) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", (ROOT / path).read_text(), flags=re.S))


def test_guide(workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    names: dict = {}
    exec(compile(blocks("docs/guide.md"), "guide.md", "exec"), names)
    for name in ("images", "painted", "varied", "noise"):
        assert names[name].shape == (4, 8, 8, 1)
        assert jnp.isfinite(names[name]).all(), name
    assert (names["painted"][:, :4] == 0).all()
    assert names["frames"].shape == (5, 4, 8, 8, 1)
    assert jnp.isfinite(names["metrics"]["loss"])
    assert int(names["state"].step) == 1


def test_readme(workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    names: dict = {}
    exec(compile(blocks("README.md"), "README.md", "exec"), names)
    assert names["images"].shape == (4, 8, 8, 1)
    assert jnp.isfinite(names["images"]).all()
    schedule, denoise = names["model"].schedule, names["denoise"]
    walks = (names["renewing"](schedule, share=0.0), samplers.ddim(schedule), names["renewing"](schedule))
    grid = times.trailing(5, 1000)
    ours, theirs, renewed = (samplers.sample(w, denoise, names["x_T"], grid, jax.random.key(1)) for w in walks)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)  # with nothing renewed it is DDIM
    assert jnp.abs(renewed - theirs).max() > 0.01


def test_gan(tmp_path, monkeypatch):
    model = gan_toy.make_model("style", parallel.make_plan("jit"))
    write_model(tmp_path / "models" / "stylegan2", model.config, model.params, model.step)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(blocks("docs/gan.md"), "gan.md", "exec"), names)
    assert names["truncated"].shape == (5, 8, 8, 8, 3)
    assert names["mixed"].shape == (5, 5, 8, 8, 3)
    assert names["moved"].shape == (3, 5, 8, 8, 3)


@pytest.mark.parametrize("path", ["README.md", "CONTRIBUTING.md", *(f"docs/{page.name}" for page in PAGES)])
def test_paths_named_in_prose_exist(path):
    named = re.findall(r"(?:docs|experiments|tests|flaxgen)/[\w/]+\.(?:py|md)", (ROOT / path).read_text())
    missing = [name for name in named if not (ROOT / name).exists() and "NAME" not in name]
    assert not missing


def test_references_are_listed():
    """Every [Key22] in a docstring is in docs/references.md."""
    known = set(re.findall(r"^\| (\w+) \|", (ROOT / "docs" / "references.md").read_text(), flags=re.M))
    text = "\n".join(
        path.read_text() for folder in ("flaxgen", "experiments") for path in (ROOT / folder).rglob("*.py")
    )
    cited = set(re.findall(r"[\[;] ?([A-Z][a-zá-ž]+\d\d[a-z]?)\b", text))
    assert len(cited) > 10
    assert cited <= known
