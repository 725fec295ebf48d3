"""UNet2DModel folders without torch: what fields mean, and what is refused, by name. Numbers: tests/parity."""

import json
import shutil
from dataclasses import fields

import jax
import numpy as np
import pytest

from flaxgen.nets.attention import SelfAttention, SpatialTransformer
from flaxgen.nets.unet import UNet
from flaxgen.weights import store
from flaxgen.weights.unet2d import STEM, abstract_params, export_unet2d, import_unet2d
from flaxgen.weights.unet2d_config import config_from_unet, unet_from_config

ONE = SelfAttention()
TINY = UNet(
    image_size=8, channels=8, multipliers=(1, 2), depth=1, attention=(None, ONE), norm_groups=4, middle="resblocks"
)
CIFAR10 = {  # google/ddpm-cifar10-32/config.json
    "_class_name": "UNet2DModel",
    "_diffusers_version": "0.0.4",
    "act_fn": "silu",
    "attention_head_dim": None,
    "block_out_channels": [128, 256, 256, 256],
    "center_input_sample": False,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "in_channels": 3,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-06,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 32,
    "time_embedding_type": "positional",
    "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
}


def same_fields(one, other):
    return all(getattr(one, f.name) == getattr(other, f.name) for f in fields(one) if f.name not in ("parent", "name"))


def random_params(unet):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32), abstract_params(unet))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    export_unet2d(TINY, random_params(TINY), folder)
    return folder


def test_the_defaults_are_the_published_cifar10_net():
    assert same_fields(unet_from_config(CIFAR10), UNet())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "attention": (None, SelfAttention(head_channels=4)),
            "num_classes": 5,
            "learned_variance": True,
            "time_order": "cos_sin",
            "time_shift": 0,
        },
        {"scale_shift": True, "resample": "resnet", "downsample_padding": (1, 1), "middle": ONE},
        {"scale_shift": True, "middle": SelfAttention(norm_groups=0), "dropout": 0.1},
        {"time_embedding": "fourier", "time_channels": 12, "multipliers": (1, 1.5), "middle": "none"},
    ],
)
def test_a_unet_survives_the_round_trip(changes, tmp_path):
    unet = TINY.clone(**changes)
    params = random_params(unet)
    export_unet2d(unet, params, tmp_path)
    again, found = import_unet2d(tmp_path)
    if unet.scale_shift and unet.middle == ONE:
        again = again.clone(middle=ONE)
        assert config_from_unet(again)["attn_norm_num_groups"] == unet.norm_groups
    assert same_fields(again, unet)
    jax.tree.map(np.testing.assert_array_equal, found, params)


def test_as_many_heads_at_every_attending_level_are_their_width():
    two = SelfAttention(heads=2)
    unet = TINY.clone(attention=(None, two))
    assert config_from_unet(unet)["attention_head_dim"] == 8
    with pytest.raises(ValueError, match="heads of 4 and 8 channels are not"):
        config_from_unet(unet.clone(attention=(two, two)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_class_name": "UNet2DConditionModel"}, "is of a UNet2DConditionModel"),
        (
            {"down_block_types": ["DownBlock2D", "AttnSkipDownBlock2D", "DownBlock2D", "DownBlock2D"]},
            "AttnSkipDownBlock2D",
        ),
        ({"up_block_types": ["UpBlock2D", "UpBlock2D", "UpBlock2D", "SkipUpBlock2D"]}, "SkipUpBlock2D"),
        ({"up_block_types": ["UpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D"]}, "at other levels"),
        ({"up_block_types": ["UpBlock2D"]}, "1 blocks for 4 levels"),
        ({"up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", 3]}, "not of the type"),
        ({"downsample_type": "resnet"}, "resample by conv and resnet"),
        ({"act_fn": "gelu"}, "act_fn='gelu'"),
        ({"mid_block_type": "UNetMidBlock2DCrossAttn"}, "mid_block_type='UNetMidBlock2DCrossAttn'"),
        ({"mid_block_scale_factor": 1.5}, r"mid_block_scale_factor=1\.5"),
        ({"time_embedding_type": "learned"}, "time_embedding_type='learned'"),
        ({"class_embed_type": "timestep"}, "class_embed_type='timestep'"),
        ({"center_input_sample": True}, "center_input_sample=True"),
        ({"sample_size": None}, "sample_size=None"),
        ({"sample_size": [32, 64]}, r"sample_size=\[32, 64\]"),
        ({"sample_size": 36}, "sample_size=36"),
        ({"layers_per_block": "2"}, "layers_per_block='2'"),
        ({"layers_per_block": None}, "layers_per_block=None"),
        ({"norm_eps": True}, "norm_eps=True"),
        ({"add_downsampling": 1}, "has no 'add_downsampling'"),
    ],
)
def test_what_is_not_supported_is_named(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        unet_from_config(CIFAR10 | changes)
    assert "\n" not in str(caught.value)


def test_no_way_to_resample_is_the_default_one():
    plain = unet_from_config(CIFAR10)
    assert unet_from_config(CIFAR10 | {"downsample_type": None, "upsample_type": None}) == plain


@pytest.mark.parametrize(
    "changes",
    [
        {"patch": 2},
        {"low_res": True},
        {"token_dim": 4},
        {"embedding_dim": 4},
        {"downsample_padding": (1, 0)},
        {"middle": SelfAttention(norm_groups=0)},
        {"middle": SpatialTransformer(), "token_dim": 0},
        {"attention": (None, SelfAttention(norm_eps=0.1))},
        {"depth": (1, 2)},
        {"conv_in_channels": 4},
        {"skip_scale": 0.5},
    ],
)
def test_what_diffusers_lacks_is_not_exported(changes, tmp_path):
    with pytest.raises(ValueError, match=next(iter(changes))):
        export_unet2d(TINY.clone(**changes), {}, tmp_path)
    assert not list(tmp_path.iterdir())


def broken(tensors, case):
    if case == "missing":
        del tensors["conv_in.bias"]
    elif case == "extra":
        tensors["time_embedding.linear_3.weight"] = np.zeros((2, 2), np.float32)
    elif case == "known_but_extra":
        tensors["class_embedding.weight"] = np.zeros((2, 32), np.float32)
    elif case == "shape":
        tensors["conv_in.bias"] = np.zeros(9, np.float32)
    elif case == "dimensions":
        tensors["conv_in.weight"] = np.zeros((8, 3, 3), np.float32)
    elif case == "old_and_new":
        tensors["down_blocks.1.attentions.0.query.weight"] = tensors["down_blocks.1.attentions.0.to_q.weight"]
    return tensors


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("missing", r"'conv_in\.bias' is missing"),
        ("extra", r"no rule matches 'time_embedding\.linear_3\.weight'"),
        ("known_but_extra", r"'class_embedding\.weight' is not part of the model"),
        ("shape", r"'conv_in\.bias' has shape \(9,\), expected \(8,\)"),
        ("dimensions", r"'conv_in\.weight' has shape \(8, 3, 3\), expected 4 dimensions"),
        ("old_and_new", "under its old name and its new one"),
    ],
)
def test_tensors_that_do_not_fit_are_named(case, message, exported, tmp_path):
    shutil.copy(exported / "config.json", tmp_path)
    tensors = broken(store.read_folder(exported, STEM), case)
    store.write_file(tmp_path / f"{STEM}.safetensors", tensors)
    with pytest.raises(ValueError, match=message):
        import_unet2d(tmp_path)


def test_export_refuses_other_params(tmp_path):
    params = random_params(TINY)
    del params["conv_in"]["bias"]
    with pytest.raises(ValueError, match="'conv_in/bias' is missing"):
        export_unet2d(TINY, params, tmp_path)


def test_export_is_what_diffusers_reads(exported):
    """Names and shapes of a diffusers file, written down by hand for a few."""
    header = store.read_header(exported / f"{STEM}.safetensors")
    shapes = {
        "conv_in.weight": (8, 3, 3, 3),
        "time_embedding.linear_1.weight": (32, 8),
        "down_blocks.0.downsamplers.0.conv.weight": (8, 8, 3, 3),
        "down_blocks.1.resnets.0.conv_shortcut.weight": (16, 8, 1, 1),
        "down_blocks.1.attentions.0.to_out.0.bias": (16,),
        "mid_block.resnets.1.time_emb_proj.weight": (16, 32),
        "up_blocks.0.resnets.1.conv1.weight": (16, 24, 3, 3),
        "up_blocks.0.upsamplers.0.conv.bias": (16,),
        "up_blocks.1.resnets.1.norm1.weight": (16,),
        "conv_norm_out.bias": (8,),
    }
    assert {name: header[name].shape for name in shapes} == shapes
    assert json.loads((exported / "config.json").read_text())["block_out_channels"] == [8, 16]


def test_a_folder_without_config_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        import_unet2d(tmp_path)
