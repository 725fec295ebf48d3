"""Stable Diffusion's UNet without torch: what fields mean, and what is refused, by name. Numbers: tests/parity."""

import jax
import numpy as np
import pytest

from flaxgen.nets.attention import SelfAttention, SpatialTransformer
from flaxgen.nets.unet import UNet
from flaxgen.weights import store
from flaxgen.weights.unet2d import STEM, abstract_params
from flaxgen.weights.unet_condition import export_unet_condition, import_unet_condition
from flaxgen.weights.unet_condition_config import condition_config_from_unet, unet_from_condition_config

SD1 = {
    "_class_name": "UNet2DConditionModel",
    "sample_size": 64,
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "cross_attention_dim": 768,
    "down_block_types": [*3 * ["CrossAttnDownBlock2D"], "DownBlock2D"],
    "up_block_types": ["UpBlock2D", *3 * ["CrossAttnUpBlock2D"]],
}
SDXL = {
    "_class_name": "UNet2DConditionModel",
    "sample_size": 128,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "attention_head_dim": [5, 10, 20],
    "block_out_channels": [320, 640, 1280],
    "cross_attention_dim": 2048,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "projection_class_embeddings_input_dim": 2816,
    "transformer_layers_per_block": [1, 2, 10],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "upcast_attention": None,
    "use_linear_projection": True,
}
EIGHT = SpatialTransformer(heads=8)
BASE = UNet(
    image_size=64, in_channels=4, out_channels=4, channels=320, multipliers=(1, 2, 4, 4), depth=2,
    attention=(EIGHT, EIGHT, EIGHT, None), middle=EIGHT, token_dim=768, downsample_padding=(1, 1),
    time_order="cos_sin", time_shift=0, norm_eps=1e-5,
)  # fmt: skip
ONE, TWO = SpatialTransformer(heads=1), SpatialTransformer(head_channels=8, depth=2)
TINY = UNet(image_size=4, channels=8, multipliers=(1, 2), depth=1, attention=(ONE, None), middle=TWO, token_dim=6,
            norm_groups=4, downsample_padding=(1, 1))  # fmt: skip


def test_what_the_published_configs_say():
    assert unet_from_condition_config(SD1) == BASE
    two, ten = SpatialTransformer(10, depth=2, linear=True), SpatialTransformer(20, depth=10, linear=True)
    expected = BASE.clone(
        image_size=128, multipliers=(1, 2, 4), attention=(None, two, ten), middle=ten, token_dim=2048, vector_dim=2816
    )
    assert unet_from_condition_config(SDXL) == expected
    assert condition_config_from_unet(expected)["transformer_layers_per_block"] == [2, 2, 10]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"attention": (None, TWO), "middle": "none", "depth": (2, 1)},
        {"attention": (SpatialTransformer(1, linear=True),) * 2, "middle": SpatialTransformer(1, linear=True)},
        {"attention": (None, SpatialTransformer(only_cross=True)), "middle": EIGHT, "vector_dim": 9, "num_classes": 3},
    ],
)
def test_a_unet_survives_the_round_trip(changes, tmp_path):
    unet, rng = TINY.clone(**changes), np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32), abstract_params(unet))
    export_unet_condition(unet, params, tmp_path)
    again, found = import_unet_condition(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, found, params)
    assert condition_config_from_unet(again) == condition_config_from_unet(unet)


def test_names_and_shapes_are_diffusers(tmp_path):
    """Written down by hand for a few."""
    params = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), abstract_params(TINY))
    export_unet_condition(TINY, params, tmp_path)
    header = store.read_header(tmp_path / f"{STEM}.safetensors")
    shapes = {
        "down_blocks.0.attentions.0.norm.weight": (8,),
        "down_blocks.0.attentions.0.proj_in.weight": (8, 8, 1, 1),
        "mid_block.attentions.0.transformer_blocks.1.attn2.to_k.weight": (16, 6),
        "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj.weight": (128, 16),
        "up_blocks.1.attentions.1.transformer_blocks.0.attn1.to_out.0.bias": (8,),
    }
    assert {name: header[name].shape for name in shapes} == shapes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_class_name": "UNet2DModel"}, "is of a UNet2DModel, expected a UNet2DConditionModel"),
        ({"down_block_types": [*3 * ["SimpleCrossAttnDownBlock2D"], "DownBlock2D"]}, "SimpleCrossAttnDownBlock2D"),
        ({"up_block_types": [*3 * ["CrossAttnUpBlock2D"], "UpBlock2D"]}, "at other levels"),
        ({"mid_block_type": "UNetMidBlock2D"}, "mid_block_type='UNetMidBlock2D'"),
        ({"attention_head_dim": [5, 10]}, r"attention_head_dim=\[5, 10\], expected one int or 4, one a level"),
        ({"transformer_layers_per_block": [[1], [1], [1], [1]]}, "transformer_layers_per_block="),
        ({"only_cross_attention": 1}, "only_cross_attention=1"),
        ({"cross_attention_dim": [768, 768, 768, 768]}, "cross_attention_dim="),
        ({"addition_embed_type": "text"}, "addition_embed_type='text'"),
        ({"addition_embed_type": "text_time"}, "does not go with projection_class_embeddings_input_dim=None"),
        ({"dual_cross_attention": True}, "dual_cross_attention=True"),
        ({"reverse_transformer_layers_per_block": [1, 1, 1, 1]}, "reverse_transformer_layers_per_block="),
        ({"lora": 1}, "has no 'lora'"),
    ],
)
def test_what_is_not_supported_is_named(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        unet_from_condition_config(SD1 | changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"middle": "resblocks"}, "middle='resblocks'"),
        ({"middle": SelfAttention()}, "SelfAttention"),
        ({"middle": "none", "attention": ()}, "middle='none'"),
        ({"attention": (None, ONE)}, "as the last level"),
        ({"middle": SpatialTransformer(depth=2, only_cross=True)}, "only_cross=True"),
        ({"middle": SpatialTransformer(linear=True)}, "linear=True and linear=False"),
        ({"middle": SpatialTransformer(norm_eps=1e-5)}, "norm_eps=1e-05"),
        ({"resample": "resnet"}, "resample='resnet'"),
        ({"time_embedding": "fourier"}, "time_embedding='fourier'"),
        ({"skip_scale": 0.5}, "skip_scale=0.5"),
        ({"low_res": True}, "low_res=True"),
    ],
)
def test_what_diffusers_lacks_is_not_exported(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export_unet_condition(TINY.clone(**changes), {}, tmp_path)
    assert not list(tmp_path.iterdir())
