"""Decoder beside Karlo's two models in diffusers, UnCLIPTextProjModel and UNet2DConditionModel, as the pipeline calls
them: the same output, and the same files back."""

import json

import jax
import numpy as np
import pytest

from flaxgen.weights import store
from flaxgen.weights.decoder import STEM, abstract_params, export_decoder, import_decoder
from flaxgen.weights.decoder_config import decoder_from_configs

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
text_proj = pytest.importorskip("diffusers.pipelines.deprecated.unclip.text_proj")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
]

KARLO = {  # kakaobrain/karlo-v1-alpha, decoder/config.json
    "sample_size": 64,
    "in_channels": 3,
    "out_channels": 6,
    "layers_per_block": 3,
    "down_block_types": ("ResnetDownsampleBlock2D", *3 * ("SimpleCrossAttnDownBlock2D",)),
    "up_block_types": (*3 * ("SimpleCrossAttnUpBlock2D",), "ResnetUpsampleBlock2D"),
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "block_out_channels": (320, 640, 960, 1280),
    "cross_attention_dim": 1536,
    "class_embed_type": "identity",
    "attention_head_dim": 64,
    "resnet_time_scale_shift": "scale_shift",
}
TINY = KARLO | {
    "sample_size": 16,
    "layers_per_block": 1,
    "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
    "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "block_out_channels": (32, 64),
    "cross_attention_dim": 20,
    "attention_head_dim": 8,
    "norm_num_groups": 8,
}
PROJECTION = {"clip_embeddings_dim": 24, "clip_extra_context_tokens": 4}
CASES = {
    "tiny": ({}, {}),
    "other_tokens_and_time": ({"time_embedding_dim": 56, "cross_attention_dim": 33}, {"clip_extra_context_tokens": 3}),
    "additive_time_no_variance": (
        {"resnet_time_scale_shift": "default", "out_channels": 3, "flip_sin_to_cos": False, "freq_shift": 1},
        {},
    ),
    "attention_everywhere_no_middle": (
        {
            "down_block_types": 2 * ("SimpleCrossAttnDownBlock2D",),
            "up_block_types": 2 * ("SimpleCrossAttnUpBlock2D",),
            "mid_block_type": None,
        },
        {},
    ),
    "karlo_at_a_tenth": (
        {key: KARLO[key] for key in ("layers_per_block", "down_block_types", "up_block_types", "sample_size")}
        | {"block_out_channels": (32, 64, 96, 128), "attention_head_dim": 32, "norm_num_groups": 32},
        {"clip_embeddings_dim": 76},
    ),
}


def make_models(unet_config, projection_config):
    unet = diffusers.UNet2DConditionModel(**unet_config).eval()
    time_width = unet_config.get("time_embedding_dim", 4 * unet_config["block_out_channels"][0])
    widths = {"time_embed_dim": time_width, "cross_attention_dim": unet_config["cross_attention_dim"]}
    return unet, text_proj.UnCLIPTextProjModel(**widths, **projection_config).eval()


def random_models(name):
    """Models without a tensor at 0 or 1, so that no wrong rule can pass unseen."""
    torch.manual_seed(0)
    unet_changes, projection_changes = CASES[name]
    models = make_models(TINY | unet_changes, PROJECTION | projection_changes)
    with torch.no_grad():
        for model in models:
            for value in model.parameters():
                value.add_(0.1 * torch.randn_like(value))
    return models


def their_output(unet, projection, given):
    """What UnCLIPPipeline computes with guidance on: the batch doubled, null images first."""
    x, time, image, text, hidden, mask = (torch.from_numpy(value) for value in given)
    x, text, hidden, mask, time = (torch.cat((value, value)) for value in (x, text, hidden, mask, time))
    with torch.no_grad():
        tokens, added = projection(
            image_embeddings=image,
            prompt_embeds=text,
            text_encoder_hidden_states=hidden,
            do_classifier_free_guidance=True,
        )
        mask = torch.nn.functional.pad(mask, (projection.config.clip_extra_context_tokens, 0), value=True)
        out = unet(
            x.permute(0, 3, 1, 2), time, encoder_hidden_states=tokens, class_labels=added, attention_mask=mask
        ).sample
    return out.permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("name", CASES)
def test_decoder_computes_what_karlo_computes(name, tmp_path):
    models = random_models(name)
    for way, model in zip(("decoder", "text_proj"), models, strict=True):
        model.save_pretrained(tmp_path / way)
    net, params = import_decoder(tmp_path / "decoder", tmp_path / "text_proj")
    rng, size = np.random.default_rng(0), net.unet.image_size
    mask = np.arange(9)[None] < np.array([[9], [4]])
    given = (
        rng.standard_normal((2, size, size, 3)).astype(np.float32),
        np.array([3.0, 871.0], np.float32),
        *rng.standard_normal((2, 2, net.embedding_dim)).astype(np.float32),
        rng.standard_normal((2, 9, net.text_dim)).astype(np.float32),
        mask,
    )
    theirs = their_output(*models, given)
    doubled = [np.concatenate((value, value)) for value in given]
    has_image = np.array([False, False, True, True])
    ours = jax.jit(lambda p, *given: net.apply({"params": p}, *given))(params, *doubled, has_image)
    assert theirs.std() > 0.1
    assert np.abs(theirs[:2] - theirs[2:]).max() > 0.01
    assert np.abs(theirs - np.asarray(ours)).max() <= 1e-4


@pytest.mark.parametrize("name", CASES)
def test_the_same_files_come_back(name, tmp_path):
    """Every byte of the tensors, and every field of the configs."""
    there = {"decoder": tmp_path / "decoder", "text_proj": tmp_path / "text_proj"}
    back = {"decoder": tmp_path / "decoder_back", "text_proj": tmp_path / "text_proj_back"}
    for way, model in zip(there, random_models(name), strict=True):
        model.save_pretrained(there[way])
    net, params = import_decoder(**{f"{way}_folder": folder for way, folder in there.items()})
    export_decoder(net, params, **{f"{way}_folder": folder for way, folder in back.items()})
    for way in there:
        old, new = (store.read_file(folder / f"{STEM}.safetensors") for folder in (there[way], back[way]))
        assert old.keys() == new.keys()
        for key, value in old.items():
            assert (value.dtype, value.shape, value.tobytes()) == (new[key].dtype, new[key].shape, new[key].tobytes())
        old, new = (json.loads((folder / "config.json").read_text()) for folder in (there[way], back[way]))
        assert {k: v for k, v in old.items() if not k.startswith("_")} == {
            k: v for k, v in new.items() if not k.startswith("_")
        }
    diffusers.UNet2DConditionModel.from_pretrained(back["decoder"])
    text_proj.UnCLIPTextProjModel.from_pretrained(back["text_proj"])


def test_karlos_decoder_has_as_many_parameters(tmp_path):
    with torch.device("meta"):
        models = make_models(KARLO, {})
    net = decoder_from_configs(*({k: v for k, v in m.config.items() if not k.startswith("_")} for m in models))
    ours = sum(leaf.size for leaf in jax.tree.leaves(abstract_params(net)))
    assert ours == sum(value.numel() for model in models for value in model.parameters())
    assert [value is not None for value in net.unet.attention] == [False, True, True, True]
