"""Autoencoders of other projects: in, used, and out again byte for byte; and what is refused."""

import dataclasses
import json

import numpy as np
import pytest
import random_weights
from PIL import Image

import flaxgen
from flaxgen.cli import main
from flaxgen.interchange.autoencoders import config_for
from flaxgen.nets.autoencoder import Autoencoder
from flaxgen.nets.dalle_vae import DalleVae
from flaxgen.nets.tiny_autoencoder import TinyAutoencoder
from flaxgen.weights import dalle_vae
from flaxgen.weights.autoencoder import abstract_params, export_autoencoder
from flaxgen.weights.autoencoder_config import Latents
from flaxgen.weights.taming import export_taming
from flaxgen.zoo.autoencoder import FAMILY, Bottleneck, Codebook, Gaussian, Gumbel

SMALL = Autoencoder(image_size=16, channels=32, multipliers=(1, 2), depth=1, latent_channels=2)
VQ = SMALL.clone(moments=False, code_channels=3)
TINY = TinyAutoencoder(channels=8, encoder_depth=(1, 1), decoder_depth=(1, 1), latent_channels=2)
DVAE = DalleVae(image_size=8, channels=4, depth=1, codes=5, bottleneck=4)
SCALED = Latents(scaling_factor=0.3611, shift_factor=0.1159, force_upcast=True)


def weights(net, codes=0):
    return random_weights.draw_like(abstract_params(net, codes))


def write_flava(net, params, folder):
    dalle_vae.export_flava(net, params, folder)
    dalle_vae.export_openai(net, params, folder, ("decoder",))


CASES = {
    "kl": ("diffusers", lambda to: export_autoencoder(SMALL, weights(SMALL), SCALED, to), Gaussian(beta=1e-6)),
    "vq": (
        "diffusers",
        lambda to: export_autoencoder(VQ, weights(VQ, 7), Latents(scaling_factor=0.18215), to),
        Codebook(codes=7, update="gradient", restart=0.0),
    ),
    "tiny": (
        "diffusers",
        lambda to: export_autoencoder(TINY, weights(TINY), Latents(shift_factor=0.0), to),
        Bottleneck(),
    ),
    "taming vqgan": (
        "taming",
        lambda to: export_taming(VQ, weights(VQ, 7), to / "autoencoder.safetensors"),
        Codebook(codes=7, update="gradient", restart=0.0),
    ),
    "first stage": (
        "taming",
        lambda to: export_taming(SMALL, weights(SMALL), to / "autoencoder.safetensors"),
        Gaussian(beta=1e-6),
    ),
    "dvae": ("openai", lambda to: dalle_vae.export_openai(DVAE, weights(DVAE), to), Gumbel(codes=5)),
    "flava": ("transformers", lambda to: write_flava(DVAE, weights(DVAE), to), Gumbel(codes=5)),
}


@pytest.fixture(scope="module", params=CASES)
def imported(request, tmp_path_factory):
    """Another project's folder, the model directory made of it for pictures of 16 pixels, and its layout."""
    layout, write, bottleneck = CASES[request.param]
    there, model = (tmp_path_factory.mktemp(request.param.replace(" ", "_")) / name for name in ("there", "model"))
    there.mkdir()
    write(there)
    assert main(["import", str(there), str(model), "--set", "size=16"]) == 0
    return there, model, layout, bottleneck


def test_the_files_come_back_byte_for_byte(imported, tmp_path, capsys):
    there, model, layout, _ = imported
    assert main(["export", str(model), str(tmp_path / "back"), "--layout", layout]) == 0
    back = {path.name: path.read_bytes() for path in (tmp_path / "back").iterdir()}
    assert back.keys() == {path.name for path in there.iterdir()}
    for path in there.iterdir():
        if path.name == "config.json" and layout == "diffusers":
            ours, theirs = json.loads(back[path.name]), json.loads(path.read_bytes())
            assert {**ours, "sample_size": 0} == {**theirs, "sample_size": 0}
        else:
            assert back[path.name] == path.read_bytes(), path.name
    assert ("net.image_size=16 is in no tensor" in capsys.readouterr().err) == (layout in ("taming", "openai"))


def test_the_bottleneck_follows_from_the_weights(imported):
    there, model, _, bottleneck = imported
    config = FAMILY.read_config(model)[0]
    assert config.bottleneck == bottleneck
    assert (config.net.image_size, config.data.image_size) == (16, 16)
    assert config.latents.scaling_factor == (0.3611 if "kl" in there.parent.name else config.latents.scaling_factor)


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path)
    return str(path)


@pytest.mark.parametrize("imported", ["vq", "tiny", "dvae"], indirect=True)
def test_what_is_imported_encodes_and_decodes(imported, picture, tmp_path):
    """And what is encoded and decoded is what is reconstructed."""
    model = str(imported[1])
    drawn, codes, decoded = (str(tmp_path / f"{name}.npz") for name in ("drawn", "codes", "decoded"))
    assert main(["reconstruct", model, picture, "--out", drawn]) == 0
    assert main(["encode", model, picture, "--out", codes]) == 0
    assert main(["decode", model, codes, "--out", decoded]) == 0
    ours, theirs = (np.load(path)["samples"] for path in (drawn, decoded))
    assert ours.shape == (1, 16, 16, 3)
    assert ours.std() > 0
    np.testing.assert_array_equal(ours, theirs)


def test_a_single_file_is_a_model_too(tmp_path):
    export_taming(VQ, weights(VQ, 7), tmp_path / "last.safetensors")
    verbs_target = tmp_path / "model"
    assert main(["import", str(tmp_path / "last.safetensors"), str(verbs_target), "--set", "size=16"]) == 0
    assert flaxgen.load(verbs_target).config.bottleneck.num_codes == 7


def test_the_autoencoder_of_a_pipeline_is_taken_alone(tmp_path, capsys):
    export_autoencoder(SMALL, weights(SMALL), SCALED, tmp_path / "pipeline" / "vae")
    index = {"_class_name": "StableDiffusionPipeline", "vae": ["diffusers", "AutoencoderKL"]}
    (tmp_path / "pipeline" / "model_index.json").write_text(json.dumps(index))
    assert main(["import", str(tmp_path / "pipeline"), str(tmp_path / "model")]) == 0
    assert "is a pipeline: taking its autoencoder, vae/, alone" in capsys.readouterr().err
    assert FAMILY.read_config(tmp_path / "model")[0].latents == SCALED


def refused(arguments, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_what_cannot_be_imported_is_one_line(tmp_path, capsys):
    (tmp_path / "last.ckpt").write_bytes(b"\x80\x02")
    assert "is a pickle, which is never read" in refused(
        ["import", str(tmp_path / "last.ckpt"), str(tmp_path / "a")], capsys
    )
    dalle_vae.export_flava(DVAE, weights(DVAE), tmp_path / "flava")
    said = refused(["import", str(tmp_path / "flava"), str(tmp_path / "a")], capsys)
    assert "is DALL-E's encoder alone: put decoder.safetensors beside it" in said
    export_autoencoder(SMALL, weights(SMALL), SCALED, tmp_path / "vae")
    said = refused(["import", str(tmp_path / "vae"), str(tmp_path / "a"), "--set", "net.channels=64"], capsys)
    assert "--set net.channels=64: the weights are those of another net" in said


@pytest.mark.parametrize(
    ("case", "layout", "message"),
    [
        ("dvae", "diffusers", "a DalleVae has no counterpart in diffusers, only Autoencoder or TinyAutoencoder"),
        ("tiny", "taming", "a TinyAutoencoder has no counterpart in CompVis' code, only Autoencoder"),
        ("kl", "openai", "a Autoencoder has no counterpart in DALL-E's code, only DalleVae"),
        ("kl", "nvlabs", "--layout nvlabs is for gan"),
    ],
)
def test_what_another_project_has_not_is_one_line(case, layout, message, tmp_path, capsys):
    (tmp_path / "there").mkdir()
    CASES[case][1](tmp_path / "there")
    assert main(["import", str(tmp_path / "there"), str(tmp_path / "model")]) == 0
    capsys.readouterr()
    said = refused(["export", str(tmp_path / "model"), str(tmp_path / "back"), "--layout", layout], capsys)
    assert message in said
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize(
    ("bottleneck", "message"),
    [
        (Codebook(codes=7, normalise=True), "bottleneck.normalise=True is in no layout"),
        (Bottleneck(), "a Bottleneck bottleneck is not in this layout, only Gaussian or Codebook"),
    ],
)
def test_bottlenecks_that_no_other_project_has_are_not_exported(bottleneck, message, tmp_path, capsys):

    params = weights(VQ, 7 if bottleneck.num_codes else 0)

    config = dataclasses.replace(config_for(VQ, params), bottleneck=bottleneck)
    FAMILY.write_model(tmp_path / "model", config, params, 0)
    for layout in ("diffusers", "taming"):
        said = refused(["export", str(tmp_path / "model"), str(tmp_path / "back"), "--layout", layout], capsys)
        assert message in said
