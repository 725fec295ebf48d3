"""Runs and model directories of version 0.1.0, as it wrote them, are read and draw what they drew there.

`tests/saved/v0.1.0` holds a run of points (two steps, one checkpoint), a diffusion model of digits, a classifier, a
StyleGAN2 and an unCLIP without its second upsampler, all tiny and untrained, and in `drawn.npz` what that version drew.
"""

import dataclasses
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from flaxgen import parallel, verbs
from flaxgen.data import Data

OLD = Path(__file__).parents[1] / "saved" / "v0.1.0"


@pytest.fixture(scope="module")
def drawn():
    with np.load(OLD / "drawn.npz") as stored:
        return dict(stored)


def test_all_kinds_are_loaded():
    families = {verbs.load(path).kind for path in OLD.iterdir() if path.is_dir()}
    assert families == {"diffusion", "classifier", "gan", "unclip"}
    assert set(verbs.load(OLD / "unclip").parts) == {"clip", "prior", "ar_prior", "decoder", "upsampler_1"}


@pytest.mark.parametrize(("name", "num"), [("run", 4), ("gan", 2)])
def test_samples_are_those_of_then(name, num, drawn):
    again = verbs.load(OLD / name).generate(jax.random.key(0), num)
    np.testing.assert_allclose(again, drawn[name], atol=1e-4)


def test_a_diffusion_model_draws_what_it_drew(drawn):
    model = verbs.load(OLD / "diffusion")
    sampling = dataclasses.replace(model.config.sampling, steps=2)
    np.testing.assert_allclose(model.generate(jax.random.key(0), 2, sampling=sampling), drawn["diffusion"], atol=1e-4)


def test_an_unclip_draws_what_it_drew(drawn):
    again = verbs.load(OLD / "unclip").draw("a red circle", num=1, steps=2)
    assert np.abs(np.asarray(again).astype(int) - drawn["unclip"].astype(int)).max() <= 1


def test_a_run_is_resumed(tmp_path):
    shutil.copytree(OLD / "run", tmp_path / "run")
    config, _ = verbs.read_config(tmp_path / "run")
    state = verbs.train(dataclasses.replace(config, steps=4), tmp_path / "run", parallel.make_plan("jit"))
    assert int(state.step) == 4


def test_a_run_goes_on_with_the_filter_it_began_with(tmp_path, capfd):
    run = tmp_path / "run"
    shutil.copytree(OLD / "run", run)
    config, _ = verbs.read_config(run)
    assert config.data.filter == "box"
    data = dataclasses.replace(config.data, filter=Data.filter)  # as its experiment file has it now
    for _ in range(2):  # the second time `filter` is in its config.json
        verbs.train(dataclasses.replace(config, data=data), run, parallel.make_plan("jit"))
        assert "goes on with data.filter=box, as it began; new runs have bicubic" in capfd.readouterr().err
        assert verbs.read_config(run)[0].data == config.data
    other = dataclasses.replace(config, data=dataclasses.replace(data, filter="lanczos"))
    with pytest.raises(ValueError, match=r"data\.filter is 'box' there and 'lanczos' here"):
        verbs.train(other, run, parallel.make_plan("jit"))
