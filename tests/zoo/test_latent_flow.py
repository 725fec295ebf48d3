"""Latent diffusion along straight paths by an MMDiT, as in Stable Diffusion 3: two text encoders, and a T5 or zeros."""

import dataclasses
import json

import dalle_toy
import jax
import numpy as np
import pytest
import random_weights
import safetensors.numpy
import tokenizers
import unclip_toy
from saving import write_model
from test_latent import CAPTIONS, CHANNELS, SIDE, SIZE, VAE
from test_latent import NET as UNET

import flaxgen
from flaxgen import parallel, verbs
from flaxgen.cli import main
from flaxgen.data import Data
from flaxgen.family.denoising import Objective
from flaxgen.family.process import Process
from flaxgen.family.sampling import Sampling
from flaxgen.nets.controlnet import ControlNet
from flaxgen.nets.dit import DiT
from flaxgen.nets.mmdit import MMDiT
from flaxgen.nets.t5 import T5Encoder
from flaxgen.weights import lora_names
from flaxgen.zoo import latent, t5
from flaxgen.zoo.latent.config import FLOW, FLOW_SOLVERS
from flaxgen.zoo.latent.control import check_fits
from flaxgen.zoo.latent.prompts import bare
from flaxgen.zoo.latent.text import States, condition_of, read_captions

WIDE, PLACES = 2 * unclip_toy.WIDTH + 4, 6
NET = MMDiT(
    image_size=SIDE, in_channels=CHANNELS, out_channels=CHANNELS, width=16, depth=2, heads=2, token_dim=WIDE,
    vector_dim=2 * unclip_toy.DIM, max_places=4,
)  # fmt: skip
T5 = T5Encoder(vocab_size=40, width=WIDE, depth=1, heads=2, head_width=4, mlp_width=8)
SAMPLING = Sampling(**FLOW_SOLVERS["euler"], steps=3, guidance=2.0, threshold="none", shift=3.0, batch=8)


def config_of(toy=None, **changes):
    places = {"autoencoder": "vae", "clip": "clip", "clip_2": "clip_2", "t5": "t5"}
    config = latent.Config(
        **dalle_toy.RUN,
        steps=2,
        net=NET,
        context=unclip_toy.CONTEXT,
        text=latent.Text(skip=0, pooled="all", t5_places=PLACES),
        process=FLOW,
        objective=Objective(times="logit_normal", shift=3.0, condition_dropout=0.1),
        sampling=SAMPLING,
        **({} if toy is None else {name: str(toy / place) for name, place in places.items()}),
    )
    return dataclasses.replace(config, **changes)


def tokenizer():
    """T5's kind: pieces, and an end behind them."""
    words = ["<pad>", "</s>", "<unk>", "▁a", "▁red", "▁blue", "▁circle", "▁square", "▁"]
    codec = tokenizers.Tokenizer(tokenizers.models.Unigram([(word, -float(i)) for i, word in enumerate(words)], 2))
    codec.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    codec.post_processor = tokenizers.processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return codec.to_str()


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """An autoencoder, two CLIPs, a T5 and the net, as model directories of random weights, and models of them."""
    root = tmp_path_factory.mktemp("flow")
    for name, config in (("vae", VAE), ("clip", unclip_toy.CLIP_CONFIG), ("clip_2", unclip_toy.CLIP_CONFIG)):
        dalle_toy.write_random(root / name, config)
    config = t5.Config(seed=0, steps=1, batch_size=1, data=Data(source="folder"), net=T5)
    params = random_weights.draw_like(t5.FAMILY.abstract_params(config))
    write_model(root / "t5", config, params, 0, {t5.TOKENIZER: tokenizer().encode()})
    params = random_weights.draw_like(latent.FAMILY.abstract_params(config_of()))
    write_model(
        root / "net", config_of(root), jax.tree.map(lambda x: 3 * x, params), 0, {}
    )  # like one that is imported
    given = {"autoencoder": "vae", "denoiser": "net", "clip": "clip", "clip_2": "clip_2"}
    for target, more in (("whole", {"t5": "t5"}), ("without", {})):
        parts = (f"{part}={root / place}" for part, place in (given | more).items())
        assert main(["compose", str(root / target), *parts]) == 0
    return root


def test_a_t5_is_read_and_may_be_missing(toy):
    whole, without = (flaxgen.load(toy / name) for name in ("whole", "without"))
    drawn = [model.draw(CAPTIONS, num=1).images for model in (whole, without)]
    assert all(images.shape == (2, SIZE, SIZE, 3) for images in drawn)
    assert (drawn[0] != drawn[1]).any()
    np.testing.assert_array_equal(whole.draw(CAPTIONS[:1], num=1).images[0], drawn[0][0])
    weighted = whole.draw([f"({CAPTIONS[0]}:1.4)"], num=1).images[0]
    assert (weighted != drawn[0][0]).any()


def test_states_stand_one_after_the_other(toy):
    """CLIPs side by side on channels, zeros up to the width, then T5's; of the embeddings both."""
    clips, reader = [verbs.load(toy / name) for name in ("clip", "clip_2")], verbs.load(toy / "t5")
    config = config_of(toy)
    states = read_captions(clips, config.text, CAPTIONS, reader)
    fields, width = condition_of(config, states), unclip_toy.WIDTH
    assert fields["tokens"].shape == (2, unclip_toy.CONTEXT + PLACES, WIDE)
    for i, clip in enumerate(clips):
        own = clip.encode_text(CAPTIONS)
        np.testing.assert_allclose(
            fields["tokens"][:, : unclip_toy.CONTEXT, i * width : (i + 1) * width], own.hidden, atol=1e-5
        )
        part = fields["vector"][:, i * unclip_toy.DIM : (i + 1) * unclip_toy.DIM]
        own = np.asarray(own.embedding)
        cosines = (part * own).sum(-1) / np.linalg.norm(part, axis=-1) / np.linalg.norm(own, axis=-1)
        np.testing.assert_allclose(cosines, 1, rtol=1e-5)
    assert (fields["tokens"][:, : unclip_toy.CONTEXT, 2 * width :] == 0).all()
    np.testing.assert_array_equal(fields["tokens"][:, unclip_toy.CONTEXT :], reader.encode_text(CAPTIONS, PLACES))
    nothing = condition_of(config, read_captions(clips, config.text, CAPTIONS))
    assert (nothing["tokens"][:, unclip_toy.CONTEXT :] == 0).all()


def test_captions_of_a_t5_end_and_are_cut_and_padded(toy):
    reader = verbs.load(toy / "t5")
    ids = reader.tokens(["a red circle", "", "a red circle a blue square"], 5)
    assert ids.tolist() == [[3, 4, 6, 1, 0], [1, 0, 0, 0, 0], [3, 4, 6, 3, 1]]
    assert bare("a (red:1.3) [circle] BREAK blue") == "a red circle blue"
    with pytest.raises(ValueError, match="is no T5's"):
        t5.read_pieces(verbs.load(toy / "clip").tokenizer.to_json())


def test_what_does_not_belong_together_is_refused(toy, tmp_path, capsys):
    other = config_of(toy, net=NET.clone(token_dim=WIDE + 1))
    dalle_toy.write_random(tmp_path / "net", other)
    parts = [f"{name}={toy / name}" for name in ("clip", "clip_2", "t5")]
    whole = [*parts, f"autoencoder={toy / 'vae'}", f"denoiser={tmp_path / 'net'}"]
    assert main(["compose", str(tmp_path / "model"), *whole]) == 2
    assert f"t5 has states {WIDE} wide, and the denoiser reads {WIDE + 1}" in capsys.readouterr().err
    with pytest.raises(ValueError, match="the text encoders' states are wider"):
        condition_of(config_of(net=NET.clone(token_dim=4)), States(*np.zeros((4, 1, 2, 8), np.float32)))
    with pytest.raises(ValueError, match=r"text\.t5_places=0"):
        config_of(toy, text=latent.Text())
    with pytest.raises(ValueError, match=r"objective\.shift=3\.0 moves times of straight paths"):
        config_of(toy, process=Process())
    with pytest.raises(ValueError, match="steers a UNet, and the denoiser is a MMDiT"):
        check_fits(ControlNet(UNET, hint_widths=(4, 4)), NET, 4)
    with pytest.raises(ValueError, match="max_places=4: draw a smaller one"):
        flaxgen.load(toy / "without").draw(["a"], num=1, height=48, width=48)
    with pytest.raises(ValueError, match="a DiT takes no LoRA here"):
        lora_names.places({"unet": DiT(4, 3, 3)})


def test_a_lora_of_its_layout_moves_it(toy, tmp_path):
    """diffusers' names of SD 3: down @ up is added to the kernel, transposed."""
    name, rng = "transformer.transformer_blocks.0.attn.add_k_proj", np.random.default_rng(0)
    down, up = (rng.normal(size=shape).astype(np.float32) for shape in ((2, 16), (16, 2)))
    tensors = {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    safetensors.numpy.save_file(tensors, tmp_path / "a.safetensors")
    model = flaxgen.load(toy / "without")
    moved = model.draw(["a red circle"], num=1, lora=(f"{tmp_path / 'a.safetensors'}:0.5",)).images
    net = verbs.load(toy / "net")
    params = jax.tree.map(np.array, dict(net.params))
    params["block_0"]["token_attention"]["key"]["kernel"] += 0.5 * (up @ down).T
    model.parts["denoiser"] = dataclasses.replace(net, params=params)
    wanted = model.draw(["a red circle"], num=1).images
    assert np.abs(wanted.astype(int) - moved.astype(int)).max() <= 1
    assert (flaxgen.load(toy / "without").draw(["a red circle"], num=1).images != moved).any()


@pytest.mark.slow
def test_a_run_learns_and_draws_as_its_composed_model(toy, tmp_path):
    """A net that begins at 0 is wrong by noise less data, each of deviation 1."""
    verbs.train(config_of(toy), tmp_path / "run", parallel.make_plan("jit"))
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(1 < line["loss"] < 3 for line in lines)
    parts = [f"{name}={toy / name}" for name in ("clip", "clip_2", "t5")]
    whole = [*parts, f"autoencoder={toy / 'vae'}", f"denoiser={tmp_path / 'run'}"]
    assert main(["compose", str(tmp_path / "model"), *whole]) == 0
    drawn = [flaxgen.load(tmp_path / place).draw(CAPTIONS, num=1).images for place in ("run", "model")]
    np.testing.assert_array_equal(*drawn)
    assert main(["compose", str(tmp_path / "less"), *(part for part in whole if not part.startswith("t5="))]) == 2
