"""A UNet's JSON as version 0.1.0 wrote it, when attention was told by resolutions: it is the net it was."""

import pytest

from flaxgen.nets.attention import ATTENTIONS, SelfAttention, TokenAttention
from flaxgen.nets.unet import UNet
from flaxgen.train.config import decode, encode

KNOWN = {kind.__name__: kind for kind in (UNet, *ATTENTIONS)}
OLD = {
    "type": "UNet",
    "image_size": 32,
    "in_channels": 3,
    "out_channels": 3,
    "channels": 128,
    "multipliers": [1, 2, 2],
    "depth": 1,
    "attention_resolutions": [8, 4],
    "heads": 1,
    "head_channels": 32,
    "middle": "attention",
    "middle_norm_groups": None,
    "dropout": 0.0,
    "num_classes": 0,
    "embedding_dim": 0,
    "token_dim": 128,
    "low_res": False,
    "noise_level": False,
    "added": True,
    "learned_variance": False,
    "scale_shift": True,
    "resample": "resnet",
    "downsample_padding": [0, 1],
    "patch": 2,
    "positions": True,
    "time_embedding": "sinusoidal",
    "time_channels": 128,
    "time_order": "sin_cos",
    "time_shift": 1,
    "norm_groups": 32,
    "norm_eps": 1e-06,
    "dtype": "float32",
    "remat": False,
}
"""All that version 0.1.0 wrote."""
TOKENS = TokenAttention(head_channels=32)
NET = UNet(
    channels=128, multipliers=(1, 2, 2), depth=1, attention=(None, TOKENS, TOKENS), middle=TOKENS, token_dim=128,
    added=True, scale_shift=True, resample="resnet", patch=2, positions=True, time_channels=128,
)  # fmt: skip


def test_version_0_1_0_is_read():
    assert decode(OLD, KNOWN) == NET
    assert decode(encode(NET, KNOWN), KNOWN) == NET


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({"token_dim": 0, "heads": 4, "head_channels": 0}, {"attention": 2 * [SelfAttention(heads=4)]}),
        ({"middle_norm_groups": 0}, {"middle": TokenAttention(head_channels=32, norm_groups=0)}),
        ({"attention_resolutions": []}, {"attention": ()}),
        ({"middle": "resblocks"}, {"middle": "resblocks"}),
        ({"middle": "none", "attention_resolutions": [16]}, {"middle": "none", "attention": (TOKENS, None, None)}),
    ],
)
def test_what_old_fields_said(written, expected):
    net = decode(OLD | written, KNOWN)
    if "heads" in written:
        expected = {"attention": (None, *expected["attention"]), "middle": SelfAttention(heads=4), "token_dim": 0}
    assert net == NET.clone(**expected)


def test_what_was_left_out_was_the_cifar10_net():
    assert decode({"type": "UNet"}, KNOWN) == UNet()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"attention_resolutions": [5]},
            r"attention_resolutions has 5, but the levels of this net are \(16, 8, 4\) px",
        ),
        ({"multipliers": 3}, "config type UNet has fields that no version wrote"),
        ({"patch": 0}, "config type UNet has fields that no version wrote"),
        ({"heads": "4"}, "SelfAttention.heads='4': expected an integer"),
        ({"attention_resolution": [8]}, "attention_resolution is not a field of UNet"),
        ({"attention": []}, "attention_resolutions is not a field of UNet"),
    ],
)
def test_what_no_version_wrote_is_named(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        decode(OLD | {"token_dim": 0} | changes, KNOWN)
    assert "\n" not in str(caught.value)
