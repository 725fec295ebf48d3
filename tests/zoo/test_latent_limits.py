"""What a model of latent diffusion says where memory is full, pictures are not finite or a text encoder is missing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_latent import CAPTIONS, config_of, toy  # noqa: F401

import flaxgen
from flaxgen.cli import main, memory
from flaxgen.zoo.latent.drawing import Parts
from flaxgen.zoo.latent.requests import DrawLatent, UpscaleLatent
from flaxgen.zoo.latent.whole import Whole


def test_a_full_memory_is_one_line_that_says_what_needs_less(toy, tmp_path, monkeypatch, capsys):  # noqa: F811
    def full(self, latents, tile=0):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes\nand a table")

    monkeypatch.setattr(Parts, "decode", full)
    draw = ["draw", CAPTIONS[0], "--model", str(toy / "whole"), "--num", "1", "--out", str(tmp_path / "out.png")]
    assert main([*draw, "--set", "batch=1"]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("flaxgen")]
    assert line.startswith("flaxgen draw: error: out of memory (RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes)")
    assert "--tile 512" in line
    assert "--width" in line
    assert "batch=1" not in line, "it is 1 already"


def test_only_ways_out_that_are_there_are_said():
    said = memory.ways_out("upscale", UpscaleLatent(image=np.zeros((8, 8, 3), np.uint8), tile=256))
    assert "--set batch=1" in said
    assert "--tile" not in said
    assert "--width" not in said
    config = config_of()
    assert "batch_size=4" in memory.ways_out("train", config)
    assert "accumulate=2" in memory.ways_out("train", config)
    assert "net.remat=true" in memory.ways_out("train", config)
    least = dataclasses.replace(config, batch_size=1, net=config.net.clone(remat=True))
    assert memory.ways_out("train", least) == "more devices (--parallel mesh)"
    assert "--tile" in memory.ways_out("draw", DrawLatent(captions=("a",)))


def test_an_autoencoder_whose_weights_overflow_is_named(toy):  # noqa: F811
    whole = flaxgen.load(toy / "whole")
    vae = whole.parts["autoencoder"]
    large = dataclasses.replace(vae, params=jax.tree.map(lambda x: 3e38 * jnp.sign(x), vae.params))
    model = dataclasses.replace(whole, parts={**whole.parts, "autoencoder": large})
    with pytest.raises(FloatingPointError, match="the autoencoder makes of finite latents what is not finite"):
        model.draw(CAPTIONS, num=1)


def test_a_missing_text_encoder_is_named(toy):  # noqa: F811
    whole = flaxgen.load(toy / "whole")
    denoiser = whole.parts["denoiser"]
    none = {name: part for name, part in whole.parts.items() if name != "clip"}
    wide = dataclasses.replace(denoiser.config, net=denoiser.config.net.clone(token_dim=32))
    short = {**whole.parts, "denoiser": dataclasses.replace(denoiser, config=wide)}
    for parts, missing in ((none, "clip"), (short, "clip_2")):
        model = dataclasses.replace(whole, parts=parts)
        assert isinstance(model, Whole)
        with pytest.raises(ValueError, match=f"lacks the part '{missing}', a text encoder"):
            model.draw(CAPTIONS, num=1)
