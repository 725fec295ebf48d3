"""Karlo's super-resolution folders without torch: what is taken for an upsampler. Numbers: tests/parity."""

import jax
import numpy as np
import pytest

from flaxgen.nets.unet import UNet
from flaxgen.weights import store
from flaxgen.weights.unet2d import STEM, abstract_params
from flaxgen.weights.upsampler import export_upsampler, import_upsampler, upsampler_from_config

NET = UNet(
    image_size=8,
    channels=8,
    multipliers=(1,),
    depth=1,
    attention=(),
    middle="resblocks",
    norm_groups=4,
    resample="resnet",
    low_res=True,
)
KARLO = {
    "_class_name": "UNet2DModel",
    "sample_size": 256,
    "in_channels": 6,
    "out_channels": 3,
    "layers_per_block": 3,
    "down_block_types": 4 * ["ResnetDownsampleBlock2D"],
    "up_block_types": 4 * ["ResnetUpsampleBlock2D"],
    "block_out_channels": [320, 640, 960, 1280],
    "add_attention": False,
}
"""What the folders super_res_first/ and super_res_last/ of kakaobrain/karlo-v1-alpha say."""


def test_karlos_config_is_the_published_upsampler():
    """320 channels x (1, 2, 3, 4), 3 blocks, no attention even in the middle, additive time embedding."""
    expected = NET.clone(
        image_size=256, channels=320, multipliers=(1, 2, 3, 4), depth=3, norm_groups=32, norm_eps=1e-5,
        downsample_padding=(1, 1), time_order="cos_sin", time_shift=0,
    )  # fmt: skip
    assert upsampler_from_config(KARLO) == expected


def test_an_output_as_wide_as_the_input_has_a_variance():
    net = upsampler_from_config(KARLO | {"out_channels": 6})
    assert (net.in_channels, net.out_channels, net.learned_variance) == (3, 3, True)


@pytest.mark.parametrize("learned_variance", [False, True])
def test_an_upsampler_survives_the_round_trip(learned_variance, tmp_path):
    net, rng = NET.clone(learned_variance=learned_variance, multipliers=(1, 2)), np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32), abstract_params(net))
    export_upsampler(net, params, tmp_path)
    again, found = import_upsampler(tmp_path)
    assert again == net
    jax.tree.map(np.testing.assert_array_equal, found, params)
    header = store.read_header(tmp_path / f"{STEM}.safetensors")
    assert header["conv_in.weight"].shape == (8, 6, 3, 3)
    assert header["conv_out.weight"].shape == (6 if learned_variance else 3, 8, 3, 3)


@pytest.mark.parametrize(
    "changes", [{"in_channels": 3}, {"in_channels": 5}, {"in_channels": "6"}, {"out_channels": 4}, {"in_channels": 0}]
)
def test_other_nets_are_no_upsamplers(changes):
    with pytest.raises(ValueError, match=r"in_channels=.* and out_channels=.*, expected of an upsampler"):
        upsampler_from_config(KARLO | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"low_res": False}, "low_res=False"),
        ({"out_channels": 4}, "out_channels=4"),
        ({"noise_level": True}, "noise_level=True"),
        ({"patch": 2}, "patch=2"),
    ],
)
def test_what_diffusers_lacks_is_not_exported(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export_upsampler(NET.clone(**changes), {}, tmp_path / "out")
    assert not list(tmp_path.iterdir())
