"""NVlabs' StyleGAN2 as a user brings it in and out: a state_dict becomes a model that every command takes."""

import json

import gan_toy
import jax
import numpy as np
import pytest
from PIL import Image
from saving import write_model

from flaxgen import parallel
from flaxgen.cli import main
from flaxgen.interchange.nvlabs import DISCRIMINATOR, GENERATOR
from flaxgen.nets.stylegan2_discriminator import Discriminator
from flaxgen.verbs import load
from flaxgen.weights import store, stylegan2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models of StyleGAN2 and of a DCGAN, the first also in NVlabs' layout, and what is not one."""
    folder = tmp_path_factory.mktemp("nvlabs")
    for name in ("style", "dcgan"):
        model = gan_toy.make_model(name, parallel.make_plan("jit"))
        write_model(folder / name, model.config, model.params, model.step)
    assert main(["export", str(folder / "style"), str(folder / "theirs"), "--layout", "nvlabs"]) == 0
    store.write_file(folder / "other.safetensors", {"conv.weight": np.zeros(3, np.float32)})
    (folder / "network.pkl").write_bytes(b"\x80\x04.")
    return folder


def run(*arguments):
    return main([str(part) for part in arguments])


def random_discriminator(net):
    rng = np.random.default_rng(0)
    shapes = stylegan2.abstract_variables(net)
    return jax.tree.map(lambda leaf: np.asarray(rng.normal(size=leaf.shape), np.float32), shapes)


def spoil(folder, tmp_path, **tensors):
    """A copy of the state_dict with other tensors; None removes one."""
    given = {**store.read_file(folder / "theirs" / GENERATOR), **tensors}
    store.write_file(tmp_path / "g.safetensors", {k: v for k, v in given.items() if v is not None})
    return tmp_path / "g.safetensors"


@pytest.mark.smoke
def test_there_and_back(folder, tmp_path, capsys):
    """Bit for bit, from the folder or from the file by itself; what is in no tensor holds defaults."""
    capsys.readouterr()
    assert run("import", folder / "theirs", tmp_path / "a") == 0
    assert run("import", folder / "theirs" / GENERATOR, tmp_path / "b") == 0
    said = capsys.readouterr()
    assert said.out == f"wrote {tmp_path / 'a'}\nwrote {tmp_path / 'b'}\n"
    assert said.err == ""
    before, after = load(folder / "style"), load(tmp_path / "a")
    assert after.config.generator == before.config.generator
    jax.tree.map(np.testing.assert_array_equal, after.params, before.params)
    assert load(tmp_path / "b").config == after.config
    assert run("export", tmp_path / "b", tmp_path / "again", "--layout", "nvlabs") == 0
    theirs = (folder / "theirs" / GENERATOR).read_bytes()
    assert (tmp_path / "again" / GENERATOR).read_bytes() == theirs


def test_every_command_takes_it(folder, tmp_path, capsys):
    """The samples are those of the model that was exported."""
    model, image = tmp_path / "model", tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(image)
    assert run("import", folder / "theirs", model) == 0
    for source, name in ((folder / "style", "before.npz"), (model, "after.npz")):
        assert run("sample", source, "--num", 3, "--truncation", 0.7, "--out", tmp_path / name) == 0
    before, after = (np.load(tmp_path / name)["samples"] for name in ("before.npz", "after.npz"))
    np.testing.assert_array_equal(after, before)
    before, after = (load(source).generate(jax.random.key(0), 3) for source in (folder / "style", model))
    np.testing.assert_allclose(after, before, atol=1e-5)
    walk = ("interpolate", model, "--between", 0, 1, "--frames", 3, "--out", tmp_path / "walk.gif")
    assert run(*walk) == 0
    assert run("project", model, image, "--steps", 1, "--out", tmp_path / "found.png") == 0
    capsys.readouterr()
    assert run("info", model) == 0
    assert capsys.readouterr().out.startswith(f"{model}: gan with a Generator, imported\n")


def test_what_no_tensor_says_can_be_given(folder, tmp_path, capsys):
    unclamped = ("--set", "generator.clamp=0", "discriminator.group=2")
    assert run("import", folder / "theirs", tmp_path / "model", *unclamped) == 0
    config = load(tmp_path / "model").config
    assert (config.generator.clamp, config.discriminator.group) == (0, 2)
    capsys.readouterr()
    assert run("export", tmp_path / "model", tmp_path / "back", "--layout", "nvlabs") == 0
    assert capsys.readouterr().err == (
        f"generator.clamp=0.0 is in no tensor: whoever reads {GENERATOR} has to be told\n"
    )


def test_the_discriminator_beside_it_is_known_and_checked(folder, tmp_path, capsys):
    (tmp_path / GENERATOR).write_bytes((folder / "theirs" / GENERATOR).read_bytes())
    net = Discriminator(8, channel_base=32, channel_max=8, architecture="orig")
    stylegan2.export_discriminator(net, random_discriminator(net), tmp_path / DISCRIMINATOR)
    assert run("import", tmp_path, tmp_path / "model") == 0
    written = json.loads((tmp_path / "model" / "config.json").read_text())
    assert written["config"]["discriminator"]["architecture"] == "orig"
    store.write_file(tmp_path / DISCRIMINATOR, {**store.read_file(tmp_path / DISCRIMINATOR), "b4.more": np.zeros(1)})
    assert run("import", tmp_path, tmp_path / "other") == 2
    assert "tensor 'b4.more' is not part of the model" in capsys.readouterr().err


def test_another_resolution_names_the_first_tensor(folder, tmp_path, capsys):
    larger = ("--set", "generator.image_size=16", "discriminator.image_size=16", "data.image_size=16")
    assert run("import", folder / "theirs", tmp_path / "model", *larger) == 2
    error = capsys.readouterr().err
    assert "tensor 'synthesis.b16.conv0.affine.bias' is missing" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"synthesis.b8.conv1.noise_const": np.zeros((4, 4))}, "'synthesis.b8.conv1.noise_const' has shape (4, 4)"),
        ({"synthesis.b8.conv0.bias": None}, "tensor 'synthesis.b8.conv0.bias' is missing"),
        ({"synthesis.b12.conv1.weight": np.zeros((8, 8, 3, 3))}, "'synthesis.b12.conv1.weight' is not part of"),
        ({"synthesis.b8.resample_filter": np.ones((4, 4))}, "is not the filter of taps 1 3 3 1"),
    ],
)
def test_other_tensors_are_named(folder, tmp_path, capsys, tensors, message):
    given = {name: value if value is None else value.astype(np.float32) for name, value in tensors.items()}
    assert run("import", spoil(folder, tmp_path, **given), tmp_path / "model") == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


BAD = {
    "another net": (
        ["import", "{other.safetensors}"],
        "has no tensor 'synthesis.b4.const': expected the state_dict of",
    ),
    "a pickle": (["import", "{network.pkl}"], "is a pickle, which is never read"),
    "no file": (["import", "{none.safetensors}"], "there is no "),
    "a revision": (["import", "{theirs/generator.safetensors}", "--revision", "main"], "is for Hub ids, but"),
    "a field": (["import", "{theirs}", "--set", "generator.size=8"], "generator.size"),
    "to diffusers": (["export", "{style}", "--layout", "diffusers"], "is a gan model: --layout diffusers is for"),
    "a DCGAN": (["export", "{dcgan}", "--layout", "nvlabs"], "a generator of dcgan has no counterpart in NVlabs' code"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_one_line(folder, tmp_path, capsys, arguments, message):
    command, source, *options = [part.replace("{", f"{folder}/").replace("}", "") for part in arguments]
    assert main([command, source, str(tmp_path / "model"), *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert error.startswith(f"flaxgen {command}: error: ")
