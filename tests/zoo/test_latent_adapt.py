"""LoRAs and words of one's own in a model of latent diffusion."""

import dataclasses

import compilations
import jax
import numpy as np
import pytest
import safetensors.numpy
from test_latent import CAPTIONS, toy, whole  # noqa: F401

from flaxgen.cli import main
from flaxgen.weights.lora import Factors, write_lora
from flaxgen.zoo.latent.adapt import read_word, strength_of

KERNEL = "down_0_attention_0/block_0/cross_attention/query/kernel"


@pytest.fixture(scope="module")
def loras(whole, tmp_path_factory):  # noqa: F811
    """Two files that move the net, and one that moves the text encoder."""
    root, rng = tmp_path_factory.mktemp("loras"), np.random.default_rng(0)
    targets = {"unet": whole.parts["denoiser"].config.net, "clip": whole.parts["clip"].config.net}
    places = {"a": ("unet", KERNEL, 8, 8), "b": ("unet", KERNEL, 8, 8), "text": ("clip", TEXT, 16, 16)}
    for name, (part, path, inputs, outputs) in places.items():
        down, up = rng.normal(size=(inputs, 2)), rng.normal(size=(2, outputs))
        factors = Factors(down.astype(np.float32), up.astype(np.float32), np.float32(0.5))
        write_lora(root / f"{name}.safetensors", {part: {path: factors}}, targets)
    return root


TEXT = "text/transformer/block_0/attention/query/kernel"


def test_loras_move_the_weights_by_their_strengths_and_compile_nothing(whole, loras):  # noqa: F811
    plain = whole.draw(CAPTIONS, num=1).images
    given = [f"{loras / 'a.safetensors'}:{s}" for s in (0.8, 0.0)] + [f"{loras / 'b.safetensors'}:0.5"]
    assert (whole.draw(CAPTIONS, num=1, lora=(given[1],)).images == plain).all()
    both = whole.draw(CAPTIONS, num=1, lora=(given[0], given[2])).images
    assert (both != plain).any()
    assert (whole.draw(CAPTIONS, num=1, lora=(f"{loras / 'text.safetensors'}",)).images != plain).any()

    def kernel(tree):
        return tree["down_0_attention_0"]["block_0"]["cross_attention"]["query"]

    denoiser = whole.parts["denoiser"]
    params = jax.tree.map(np.array, dict(denoiser.params))
    for name, strength in (("a", 0.8), ("b", 0.5)):
        tensors = safetensors.numpy.load_file(loras / f"{name}.safetensors")
        down, up = (next(v for k, v in tensors.items() if f"lora_{x}" in k).astype(np.float64) for x in "AB")
        kernel(params)["kernel"] = (kernel(params)["kernel"] + strength * (up @ down).T).astype(np.float32)
    by_hand = dataclasses.replace(
        whole, parts={**whole.parts, "denoiser": dataclasses.replace(denoiser, params=params)}
    )
    np.testing.assert_allclose(by_hand.draw(CAPTIONS, num=1).images.astype(int), both.astype(int), atol=1)

    with compilations.counted() as seen:
        whole.draw(CAPTIONS, num=1, lora=(f"{loras / 'a.safetensors'}:0.3", f"{loras / 'b.safetensors'}:-0.2"))
    assert seen == []


def test_a_word_of_ones_own_is_read_as_its_vectors(whole, tmp_path):  # noqa: F811
    """Vectors of a word that is known give the picture of that word."""
    clip = whole.parts["clip"]
    table = np.asarray(clip.params["text"]["tokens"]["embedding"])
    ids = clip.tokenizer.pieces("a red circle")
    safetensors.numpy.save_file({"<thing>": table[ids]}, tmp_path / "thing.safetensors")
    safetensors.numpy.save_file({"emb_params": table[ids]}, tmp_path / "thing2.safetensors")
    expected = whole.draw(["a red circle"], num=1).images
    for file, caption in (("thing", "<thing>"), ("thing2", "thing2")):
        drawn = whole.draw([caption], num=1, word=(str(tmp_path / f"{file}.safetensors"),)).images
        np.testing.assert_array_equal(drawn, expected)


def test_what_is_wrong_with_files_is_said_in_one_line(toy, whole, loras, tmp_path, capsys):  # noqa: F811
    safetensors.numpy.save_file({"<x>": np.zeros((1, 3), np.float32)}, tmp_path / "narrow.safetensors")
    safetensors.numpy.save_file(
        {"lora_unet_nowhere.lora_down.weight": np.zeros((1, 3), np.float32)}, tmp_path / "other.safetensors"
    )
    out = ["--out", str(tmp_path / "out.png"), "--num", "1"]
    for flags, said in (
        (["--word", str(tmp_path / "narrow.safetensors")], "vectors 3 wide, this model's text encoder has 16"),
        (["--lora", str(tmp_path / "other.safetensors")], "'lora_unet_nowhere.lora_down.weight' has no place"),
        (["--lora", str(loras / "a.safetensors") + ":much"], "expected FILE or FILE:STRENGTH"),
        (["--lora", str(tmp_path / "none.safetensors")], "none.safetensors"),
    ):
        assert main(["draw", "a red circle", "--model", str(toy / "whole"), *out, *flags]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert "Traceback" not in error
    with pytest.raises(ValueError, match="pickles are never read"):
        read_word(tmp_path / "x.pt")


def test_strengths():
    assert [strength_of(said)[1] for said in ("a.safetensors", "a.safetensors:0.8", "C:/x.safetensors", "b:-1")] == [
        1, 0.8, 1, -1,
    ]  # fmt: skip
