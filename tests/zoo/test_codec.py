"""Autoencoders as codecs: scales of latents, pictures of any size, and tiles."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_weights
from PIL import Image

import flaxgen
from flaxgen.cli import main
from flaxgen.data import Data
from flaxgen.family.codec import scaled, unscaled
from flaxgen.nets.dense_autoencoder import DenseAutoencoder
from flaxgen.nets.vqvae import VqVae
from flaxgen.weights.autoencoder_config import Latents
from flaxgen.zoo.autoencoder import FAMILY, Bottleneck, Config, Gaussian
from flaxgen.zoo.autoencoder.config import check_size
from flaxgen.zoo.autoencoder.training import make_codec

NET = VqVae(image_size=16, factor=2, channels=4, residual_channels=2, depth=1, latent_channels=2)
CONFIG = Config(seed=0, steps=1, batch_size=1, data=Data("digits"), net=NET, bottleneck=Bottleneck())
LARGE = (1, 176, 128, 3)


@pytest.fixture(scope="module")
def model():
    """With weights that make pictures within [-1, 1], where nothing is cut."""
    params = random_weights.draw_like(FAMILY.abstract_params(CONFIG))
    return FAMILY.trained(CONFIG, jax.tree.map(jnp.asarray, params))


@pytest.fixture(scope="module")
def directory(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "model"
    FAMILY.write_model(path, CONFIG, model.params, 0)
    return path


def large():
    return np.random.default_rng(0).integers(0, 256, LARGE, dtype=np.uint8)


def test_in_tiles_a_net_that_looks_near_says_what_it_says_of_the_whole(model):
    """This one reads 3 cells around, and of tiles of 48 cells the outer 3 count nothing."""
    whole, cut = model.encode(large()), model.encode(large(), tile=96)
    assert whole.shape == (1, 88, 64, 2)
    assert whole.std() > 0.05
    np.testing.assert_allclose(cut, whole, atol=1e-5)
    np.testing.assert_allclose(model.decode(whole, tile=96), model.decode(whole), atol=1e-5)
    assert np.abs(model.encode(large(), tile=8) - whole).max() > 1e-3


@pytest.mark.parametrize(
    ("latents", "meant"),
    [
        (Latents(), lambda z: z),
        (Latents(scaling_factor=0.3611, shift_factor=0.1159), lambda z: (z - 0.1159) * 0.3611),
        (
            Latents(scaling_factor=0.5, latents_mean=(1.0, 2.0), latents_std=(4.0, 0.25)),
            lambda z: (z - np.array([1, 2], "f4")[None, None, None]) / np.array([4, 0.25], "f4")[None, None, None] / 2,
        ),
    ],
    ids=["none", "shift", "channels"],
)
def test_a_codec_scales_its_latents_and_undoes_it(model, latents, meant):
    """[Rombach22; Podell23] as diffusers' pipelines write it."""
    z = model.encode(large()[:, :16, :16])
    assert z.shape == (1, 8, 8, 2)
    np.testing.assert_allclose(scaled(latents, jnp.asarray(z)), meant(z), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(unscaled(latents, scaled(latents, jnp.asarray(z))), z, rtol=1e-5, atol=1e-6)
    config = dataclasses.replace(CONFIG, latents=latents)
    codec = FAMILY.trained(config, model.params).codec
    x = jnp.asarray(large()[:, :16, :16], jnp.float32) / 127.5 - 1
    found = codec.encode(model.params, x)
    np.testing.assert_allclose(found, meant(z), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(codec.decode(model.params, found), model.decode(z), atol=1e-5)


def test_a_codec_works_in_tiles_too(model):
    x = jnp.asarray(large(), jnp.float32) / 127.5 - 1
    codec = make_codec(CONFIG, tile=96)
    z = jax.jit(codec.encode)(model.params, x)
    np.testing.assert_allclose(z, model.encode(large()), atol=1e-5)
    np.testing.assert_allclose(jax.jit(codec.decode)(model.params, z), model.decode(np.asarray(z)), atol=1e-5)
    with pytest.raises(ValueError, match=r"tile=7: expected 0 \(none\), or a multiple of 2 pixels from 8 on"):
        make_codec(CONFIG, tile=7)


def save(path, height, width):
    Image.fromarray(large()[0, :height, :width]).save(path)
    return str(path)


def test_whole_pictures_are_reconstructed_at_their_own_size(directory, tmp_path, capsys):
    """In tiles or at once, which here is the same to the last digit of a byte."""
    picture, found = save(tmp_path / "a.png", 128, 112), []
    for i, more in enumerate((["--whole"], ["--whole", "--tile", "96"], [])):
        out = tmp_path / f"{i}.npz"
        assert main(["reconstruct", str(directory), picture, *more, "--out", str(out)]) == 0
        found.append(np.load(out)["samples"].astype(int))
    assert [x.shape for x in found] == [(1, 128, 112, 3), (1, 128, 112, 3), (1, 16, 16, 3)]
    assert np.abs(found[0] - found[1]).max() <= 1
    assert "psnr" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("sizes", "flags", "message"),
    [
        ([(33, 40)], ["--whole"], "of 40x33: the sides have to be multiples of 2, the nearest are 40x32 or 40x34"),
        ([(32, 40), (40, 32)], ["--whole"], "the pictures are of different sizes, 32x40, 40x32"),
        ([(32, 40)], ["--whole", "--tile", "9"], "expected 0 (none), or a multiple of 2 pixels from 8 on"),
        ([(32, 40)], ["--tile", "8"], "ask for"),
        ([], ["--whole"], "is for pictures that are named"),
    ],
)
def test_what_cannot_be_reconstructed_is_one_line(directory, tmp_path, capsys, sizes, flags, message):
    named = [save(tmp_path / f"{i}.png", *size) for i, size in enumerate(sizes)]
    assert main(["reconstruct", str(directory), *named, *flags, "--out", str(tmp_path / "out.png")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_dense_net_takes_one_size_alone():
    net = DenseAutoencoder(image_size=8, in_channels=1, latent_channels=2, moments=True)
    config = dataclasses.replace(CONFIG, net=net, bottleneck=Gaussian())
    with pytest.raises(ValueError, match="a picture of 16x8: this net takes 8x8 alone"):
        check_size(config, 8, 16)


def test_the_api_takes_the_same(directory, tmp_path):
    model = flaxgen.load(directory)
    drawn = model.perform(
        next(kind for kind in model.requests if kind.verb == "reconstruct")(
            images=(save(tmp_path / "a.png", 64, 48),), whole=True, tile=16
        )
    )
    assert drawn.images.shape == (1, 64, 48, 3)
