"""A model of latent diffusion of which one part is in memory at a time."""

import shutil

import dalle_toy
import jax
import numpy as np
import pytest
import safetensors.numpy
from test_latent import CAPTIONS, SIZE, compose, config_of, toy, whole  # noqa: F401
from test_latent_adapt import loras  # noqa: F401

import flaxgen
from flaxgen import verbs
from flaxgen.cli import main
from flaxgen.family import drawing
from flaxgen.family.files import WEIGHTS

PICTURE = np.random.default_rng(3).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
MASK = np.zeros((SIZE, SIZE, 1), np.uint8)
MASK[3:12, 4:15] = 255
SLACK = 2048
"""Bytes of keys, latents and states; the smallest part has more."""


@pytest.fixture(scope="module")
def place(toy, tmp_path_factory):  # noqa: F811
    """A model with a refiner."""
    root = tmp_path_factory.mktemp("sequential")
    dalle_toy.write_random(root / "other", config_of(toy, seed=1), strength=1.0)
    assert compose(root / "whole", toy, refiner=root / "other") == 0
    return root / "whole"


@pytest.fixture(scope="module")
def models(place):
    """The model, the same in parts, and the bytes of all arrays that are there then."""
    pair = flaxgen.load(place), flaxgen.load(place, sequential=True)
    return *pair, size_of(jax.live_arrays())


def size_of(tree):
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array))


@pytest.fixture
def stages(monkeypatch):
    """Of each stage the bytes of its own parameters, and of all arrays that are there when it begins."""
    seen, draw_wanted = [], drawing.draw_wanted

    def watched(wanted):
        seen.append((size_of(wanted.params), size_of(jax.live_arrays())))
        return draw_wanted(wanted)

    monkeypatch.setattr(drawing, "draw_wanted", watched)
    return seen


ASKED = {
    "draw": ((CAPTIONS,), {}),
    "vary": ((PICTURE,), {"caption": CAPTIONS[0], "refine_from": 1.0}),
    "inpaint": ((PICTURE, MASK), {"caption": CAPTIONS[0], "refine_from": 1.0}),
    "outpaint": ((PICTURE,), {"caption": CAPTIONS[0], "right": 4, "refine_from": 1.0}),
    "upscale": ((PICTURE,), {"caption": CAPTIONS[0], "refine_from": 1.0}),
}

MORE = ("vary", "outpaint", "upscale")


@pytest.mark.parametrize("verb", ["draw", "inpaint", *(pytest.param(verb, marks=pytest.mark.slow) for verb in MORE)])
def test_a_stage_is_alone_in_memory_and_draws_the_same(verb, models, stages):
    at_once, in_parts, kept = models
    given, more = ASKED[verb]
    drawn = getattr(in_parts, verb)(*given, num=1, **more)
    parts = [size_of(part.params) for part in at_once.parts.values()]
    assert len(stages) >= (5 if verb == "draw" else 4), "of each text, net and decoder; encoder or refiner"
    for own, there in stages:
        assert own in parts
        assert there - kept <= own + SLACK < sum(parts)
    assert size_of(jax.live_arrays()) - kept <= SLACK, "nothing is left"
    np.testing.assert_array_equal(drawn.images, getattr(at_once, verb)(*given, num=1, **more).images)


def test_what_a_request_adds_is_added_whenever_weights_are_read(models, loras, tmp_path):  # noqa: F811
    table = np.asarray(models[0].parts["clip"].params["text"]["tokens"]["embedding"])
    safetensors.numpy.save_file({"<thing>": table[3:5]}, tmp_path / "thing.safetensors")
    files = {"lora": tuple(str(loras / f"{name}.safetensors") for name in ("a", "text"))}
    files["word"] = (str(tmp_path / "thing.safetensors"),)
    drawn = [model.draw(["a <thing>"], num=1, refine_from=1.0, **more).images
             for model, more in ((models[0], {}), (models[0], files), (models[1], files))]  # fmt: skip
    assert (drawn[0] != drawn[1]).any()
    np.testing.assert_array_equal(drawn[1], drawn[2])


def test_commands_write_the_same_file(toy, tmp_path):  # noqa: F811
    given = ["draw", *CAPTIONS, "--model", str(toy / "whole"), "--num", "1", "--out", str(tmp_path / "whole.png")]
    assert main(given) == 0
    assert main(["again", str(tmp_path / "whole.png"), "--sequential", "--out", str(tmp_path / "parts.png")]) == 0
    assert (tmp_path / "whole.png").read_bytes() == (tmp_path / "parts.png").read_bytes()


def test_a_file_is_checked_when_it_is_opened_and_has_to_stay(place, tmp_path):
    shutil.copytree(place, tmp_path / "model")
    file = tmp_path / "model" / "denoiser" / WEIGHTS
    model, tensors = flaxgen.load(tmp_path / "model", sequential=True), safetensors.numpy.load_file(file)
    safetensors.numpy.save_file({name: 2 * value for name, value in tensors.items()}, file)
    with pytest.raises(ValueError, match="has been changed while tensor"):
        model.draw(CAPTIONS, num=1)
    name, value = next(iter(tensors.items()))
    for broken, said in (({name: value[None]}, "has shape"), ({name: value.astype(int)}, "does not fit into")):
        safetensors.numpy.save_file(tensors | broken, file)
        with pytest.raises(ValueError, match=said):
            flaxgen.load(tmp_path / "model", sequential=True)


def test_a_model_of_one_part_has_no_stages(toy, tmp_path, capsys):  # noqa: F811
    given = ["draw", CAPTIONS[0], "--model", str(toy / "net"), "--out", str(tmp_path / "out.png"), "--sequential"]
    assert main(given) == 2
    assert "latent, which has one part: it is for models of several" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [[], ["--sequential"]])
def test_a_full_memory_names_the_way_out(flags, place, tmp_path, monkeypatch, capsys):
    def full(*given, **more):
        raise MemoryError

    monkeypatch.setattr(verbs, "load", full)
    given = ["draw", CAPTIONS[0], "--model", str(place), "--num", "1", "--out", str(tmp_path / "out.png"), *flags]
    assert main(given) == 1
    assert ("(--sequential)" in capsys.readouterr().err) == (not flags)
