"""ControlNets of diffusers without torch: what their configs say, and what is refused, by name. Numbers: tests/parity."""

import json

import numpy as np
import pytest
import random_weights

from flaxgen.nets.attention import SpatialTransformer
from flaxgen.nets.controlnet import ControlNet
from flaxgen.nets.unet import UNet
from flaxgen.weights.controlnet import (
    abstract_params,
    config_from_controlnet,
    controlnet_from_config,
    export_controlnet,
    import_controlnet,
)

SD1 = {
    "_class_name": "ControlNetModel",
    "_diffusers_version": "0.14.0.dev0",
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "conditioning_embedding_out_channels": [16, 32, 96, 256],
    "controlnet_conditioning_channel_order": "rgb",
    "cross_attention_dim": 768,
    "in_channels": 4,
}
EIGHT = SpatialTransformer(heads=8)
BASE = ControlNet(
    UNet(
        image_size=0, in_channels=4, out_channels=4, channels=320, multipliers=(1, 2, 4, 4), depth=2,
        attention=(EIGHT, EIGHT, EIGHT, None), middle=EIGHT, token_dim=768, downsample_padding=(1, 1),
        time_order="cos_sin", time_shift=0, norm_eps=1e-5,
    ),
)  # fmt: skip
ONE = SpatialTransformer(heads=1)
TINY = ControlNet(
    UNet(image_size=0, channels=8, multipliers=(1,), depth=1, attention=(ONE,), middle=ONE, token_dim=6, norm_groups=4,
         downsample_padding=(1, 1)),
    hint_widths=(4, 4),
)  # fmt: skip


def test_what_a_published_config_says():
    assert controlnet_from_config(SD1) == BASE
    assert controlnet_from_config(config_from_controlnet(BASE)) == BASE


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"controlnet_conditioning_channel_order": "bgr"}, "controlnet_conditioning_channel_order='bgr'"),
        ({"global_pool_conditions": True}, "global_pool_conditions=True"),
        ({"up_block_types": ["UpBlock2D"]}, "a ControlNetModel has no 'up_block_types'"),
        ({"mid_block_type": "UNetMidBlock2D"}, "mid_block_type='UNetMidBlock2D'"),
        ({"layers_per_block": [1, 2, 2, 2]}, "layers_per_block"),
        ({"down_block_types": 4}, "down_block_types"),
        ({"_class_name": "ControlNetUnionModel"}, "config.json is of a ControlNetUnionModel"),
    ],
)
def test_what_is_not_supported_is_named(changes, said):
    with pytest.raises(ValueError, match=said):
        controlnet_from_config(SD1 | changes)


def test_a_folder_comes_back(tmp_path):
    params = random_weights.draw_like(abstract_params(TINY))
    export_controlnet(TINY, params, tmp_path)
    net, found = import_controlnet(tmp_path)
    assert net == TINY
    np.testing.assert_array_equal(found["zero_middle"]["kernel"], params["zero_middle"]["kernel"])
    assert "sample_size" not in json.loads((tmp_path / "config.json").read_text())
    with pytest.raises(ValueError, match="missing"):
        export_controlnet(TINY, {name: value for name, value in params.items() if name != "hint"}, tmp_path / "b")
    with pytest.raises(ValueError, match="not exported"):
        export_controlnet(TINY.clone(unet=TINY.unet.clone(middle="resblocks")), params, tmp_path / "c")
