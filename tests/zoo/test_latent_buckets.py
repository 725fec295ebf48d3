"""Latent diffusion that learns from pictures of several sizes, each batch of one of them."""

import dataclasses
import json

import dalle_toy
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_weights
import unclip_toy
from PIL import Image
from test_latent import NET, config_of
from test_latent import toy as latent_toy  # noqa: F401

from flaxgen import parallel, verbs
from flaxgen.data import Data, Order, batches, open_source
from flaxgen.family.denoising import Objective
from flaxgen.zoo import latent
from flaxgen.zoo.latent import words
from flaxgen.zoo.latent.config import WAVES
from flaxgen.zoo.latent.control_runs import ControlConfig
from flaxgen.zoo.latent.model import make_loss, text_encoders
from flaxgen.zoo.latent.text import condition_of, read_captions, telling_sizes

BUCKETS = ((16, 16), (12, 20), (20, 12))
SHAPES = [(height // 4, width // 4) for height, width in BUCKETS]
SIZES = [(16, 20), (30, 60), (20, 18), (70, 24), (40, 80), (48, 48), (24, 40), (90, 40)] * 2
"""(height, width) of the pictures; 6, 6 and 4 are nearest to each of the buckets."""
TOLD = dataclasses.replace(NET, vector_dim=unclip_toy.DIM + 6 * WAVES)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    lines = []
    for i, size in enumerate(SIZES):
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(folder / f"{i:02d}.png")
        lines.append(json.dumps({"file_name": f"{i:02d}.png", "text": f"a red circle {i}"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return Data(source="folder", path=str(folder), image_size=16, threads=0)


@pytest.fixture(scope="module")
def config(latent_toy, data):  # noqa: F811
    """A run whose net reads sizes."""
    return config_of(latent_toy, data=data, buckets=BUCKETS, net=TOLD, sizes=6, steps=4)


@pytest.fixture(scope="module")
def files(config):
    return latent.FAMILY.prepare(config, {})


@pytest.fixture(scope="module")
def source(config, files):
    return latent.FAMILY.open_source(latent.FAMILY, config, files)


def test_latents_are_those_of_each_picture_in_its_bucket(config, files, source):
    pictures, model = open_source(config.data, BUCKETS), verbs.load(config.autoencoder)
    scales = json.loads(files["latents.json"])
    every = []
    for i in range(len(source)):
        bucket = int(pictures[i]["bucket"])
        assert source[i]["latent"].shape[:2] == SHAPES[bucket]
        assert source.groups.kinds[i] == bucket
        expected = model.encode(pictures[i]["image"][None])[0]
        scaled = (expected - np.asarray(scales["mean"])) / np.asarray(scales["std"])
        np.testing.assert_allclose(source[i]["latent"], scaled, atol=1e-4)
        every.append(expected.reshape(-1, 3))
    np.testing.assert_allclose(scales["mean"], np.concatenate(every).mean(0), rtol=1e-4)
    np.testing.assert_allclose(scales["std"], np.concatenate(every).std(0), rtol=1e-4)
    np.testing.assert_array_equal(np.bincount(source.groups.kinds), [6, 6, 4])


def test_a_net_reads_the_sizes_of_each_picture(config, source):
    np.testing.assert_array_equal(source[1]["sizes"], [30, 60, 0, 2, 12, 20])
    np.testing.assert_array_equal(source[7]["sizes"], [90, 40, 3, 0, 20, 12])
    states = read_captions(text_encoders(config), config.text, ["a red circle 1"])
    expected = condition_of(config, states, (30.0, 60.0, 0.0, 2.0, 12.0, 20.0))["vector"]
    empty = np.zeros_like(expected)
    for given in (source[1]["vector"][None], empty):  # a caption that is hidden hides no sizes
        inputs = telling_sizes(lambda batch, key, given=given: (batch["latent"], {"vector": jnp.asarray(given)}))
        batch = {name: jnp.asarray(value)[None] for name, value in source[1].items()}
        told = np.asarray(inputs(batch, jax.random.key(0))[1]["vector"])
        np.testing.assert_allclose(told[:, unclip_toy.DIM :], expected[:, unclip_toy.DIM :], atol=1e-5)
        np.testing.assert_array_equal(told[:, : unclip_toy.DIM], given[:, : unclip_toy.DIM])


def test_the_loss_is_told_them(config, files, source):
    keys, example = jax.random.key_data(jax.random.split(jax.random.key(0), 1)), source[1]
    plain = dataclasses.replace(config, objective=Objective())
    params = random_weights.draw_like(latent.FAMILY.abstract_params(plain))
    batch = {name: jnp.asarray(value)[None] for name, value in example.items()}
    loss = jax.jit(make_loss(plain, files))
    found = [float(loss(params, {**batch, "sizes": sizes}, jax.random.wrap_key_data(keys))[0])
             for sizes in (batch["sizes"], batch["sizes"] + 7)]  # fmt: skip
    assert found[0] != found[1]


def test_a_word_is_told_the_sizes_of_each_picture_too(config):
    given = {name: getattr(config, name) for name in ("buckets", "net", "sizes", "context")}
    own = words.WordConfig(**dalle_toy.RUN | given, steps=1)
    init, make_step = words.WORD.training(own)
    spec, key = words.batch_spec(own), jax.random.key(0)
    assert spec["sizes"].shape == (8, 6)
    jax.eval_shape(make_step(None), jax.eval_shape(init, key), spec, key)


class Counting:
    """A plan, and how many programs its train step is."""

    def __init__(self):
        self._steps: list = []
        self.plan = parallel.jit_plan()._replace(compile_step=self._compile)

    def _compile(self, make_step):
        self._steps.append(parallel.jit_plan().compile_step(make_step))
        return self._steps[-1]

    @property
    def programs(self):
        return [step._cache_size() for step in self._steps]


@pytest.mark.slow
def test_a_run_resumes_bit_for_bit_with_one_program_a_bucket(config, source, tmp_path, capsys):
    counting, order = Counting(), Order(config.seed, config.batch_size)
    whole = verbs.train(config, tmp_path / "whole", counting.plan)
    taken = batches(source, order, start_step=0, fields=("latent",), threads=0)
    shapes = {next(taken)["latent"].shape for _ in range(config.steps)}
    assert counting.programs == [len(shapes)]
    assert len(shapes) > 1
    assert capsys.readouterr().err.count("another shape") == len(shapes) - 1
    verbs.train(dataclasses.replace(config, steps=2), tmp_path / "parts")
    resumed = verbs.train(config, tmp_path / "parts")
    jax.tree.map(np.testing.assert_array_equal, whole.params, resumed.params)
    logs = [[json.loads(line)["loss"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
            for name in ("whole", "parts")]  # fmt: skip
    assert logs[0] == logs[1]
    verbs.train(dataclasses.replace(config, steps=2), tmp_path / "mesh", parallel.mesh_plan(data=4, fsdp=2))
    lines = (tmp_path / "mesh" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["loss"] for line in lines] == pytest.approx(logs[0][:2], rel=1e-5)
    with pytest.raises(ValueError, match="holds another experiment: buckets"):
        verbs.train(dataclasses.replace(config, buckets=BUCKETS[:2]), tmp_path / "parts")


BAD = {
    "multiple": ({"buckets": ((16, 16), (14, 16))}, r"buckets has 14x16 \(height x width\): expected multiples of 4"),
    "twice": ({"buckets": ((16, 16), (16, 16))}, "expected sizes above 0, each once"),
    "prior": ({"buckets": BUCKETS, "prior_data": dalle_toy.DATA}, "buckets and prior_data do not go together"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_said(name, latent_toy):  # noqa: F811
    changes, said = BAD[name]
    with pytest.raises(ValueError, match=said):
        latent.FAMILY.prepare(config_of(latent_toy, **changes), {})


def test_a_controlnet_learns_from_squares():
    with pytest.raises(ValueError, match="trained on squares"):
        ControlConfig(**dalle_toy.RUN, steps=1, net=NET, buckets=BUCKETS)
