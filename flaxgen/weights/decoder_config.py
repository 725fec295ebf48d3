"""The config.json files of a Karlo folder's decoder and text_proj <-> the fields of `Decoder`.

The decoder is a UNet2DConditionModel of blocks that differ from a UNet2DModel's in their names and their tokens only:
its config is read and written as that of a UNet2DModel.
"""

from collections.abc import Mapping
from typing import Any

from flaxgen.nets.attention import SelfAttention, TokenAttention
from flaxgen.nets.decoder import Decoder
from flaxgen.nets.unet import UNet
from flaxgen.weights.fields import read_fields
from flaxgen.weights.unet2d_config import config_from_unet, unet_from_config
from flaxgen.weights.unet_condition_config import DEFAULTS, SHARED

BLOCKS = {
    "ResnetDownsampleBlock2D": "ResnetDownsampleBlock2D",
    "ResnetUpsampleBlock2D": "ResnetUpsampleBlock2D",
    "SimpleCrossAttnDownBlock2D": "AttnDownBlock2D",
    "SimpleCrossAttnUpBlock2D": "AttnUpBlock2D",
}
"""What a UNet2DModel calls the block that computes the same but for the tokens."""
NAMES = {ours: theirs for theirs, ours in BLOCKS.items()}
MIDDLES = {"UNetMidBlock2DSimpleCrossAttn": "UNetMidBlock2D", None: None}

FREE = (*SHARED, "down_block_types", "up_block_types", "cross_attention_dim")
SUPPORTED = {
    **{key: (value,) for key, value in DEFAULTS.items() if key not in FREE},
    "mid_block_type": tuple(MIDDLES),
    "act_fn": ("silu", "swish"),
    "class_embed_type": ("identity",),
    "mid_block_only_cross_attention": (None, False),
}
PROJECTION_DEFAULTS: Mapping[str, Any] = {
    "clip_extra_context_tokens": 4,
    "clip_embeddings_dim": 768,
    "time_embed_dim": None,
    "cross_attention_dim": None,
}
"""What a key that text_proj's config.json leaves out means; None: it may not."""


def decoder_from_configs(unet_config: Mapping[str, Any], projection_config: Mapping[str, Any]) -> Decoder:
    """The decoder that the configs of a UNet2DConditionModel and an UnCLIPTextProjModel describe together.

    Raises:
        ValueError: naming a key or a value that a decoder has no field for, or widths of the two that differ.
    """
    unet = _unet_from_config(unet_config)
    c = read_fields(projection_config, "UnCLIPTextProjModel", PROJECTION_DEFAULTS)
    for key, width in (("time_embed_dim", unet.time_width), ("cross_attention_dim", unet.token_dim)):
        if c[key] != width:
            raise ValueError(f"text_proj's config.json: {key}={c[key]!r}, but the decoder's is {width}")
    width = c["clip_embeddings_dim"]
    return Decoder(unet=unet, embedding_dim=width, text_dim=width, image_tokens=c["clip_extra_context_tokens"])


def _unet_from_config(config: Mapping[str, Any]) -> UNet:
    c = read_fields(config, "UNet2DConditionModel", DEFAULTS, ("time_embedding_dim",), SUPPORTED)
    for key in ("down_block_types", "up_block_types"):
        if unknown := [block for block in c[key] if block not in BLOCKS]:
            raise ValueError(f"config.json: {key} has {unknown[0]}, supported are {', '.join(BLOCKS)}")
    plain = {
        **{key: c[key] for key in SHARED},
        "down_block_types": [BLOCKS[block] for block in c["down_block_types"]],
        "mid_block_type": MIDDLES[c["mid_block_type"]],
        "up_block_types": [BLOCKS[block] for block in c["up_block_types"]],
        "downsample_type": "resnet",
        "upsample_type": "resnet",
        "attn_norm_num_groups": c["norm_num_groups"],
    }
    unet = _attending_by(unet_from_config(plain), TokenAttention(head_channels=c["attention_head_dim"]))
    return unet.clone(added=True, token_dim=c["cross_attention_dim"])


def configs_from_decoder(net: Decoder) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configs of the UNet2DConditionModel and the UnCLIPTextProjModel that compute the same together.

    Raises:
        ValueError: naming a field that the two do not have.
    """
    if net.null_text or net.text is not None:
        field = "null_text=True" if net.null_text else "a text tower"
        raise ValueError(f"a decoder with {field} is not an UnCLIPTextProjModel: not exported")
    if net.text_dim != net.embedding_dim:
        raise ValueError(f"a decoder of text_dim={net.text_dim}, not embedding_dim={net.embedding_dim}: not exported")
    projection = {
        "_class_name": "UnCLIPTextProjModel",
        "clip_extra_context_tokens": net.image_tokens,
        "clip_embeddings_dim": net.embedding_dim,
        "time_embed_dim": net.unet.time_width,
        "cross_attention_dim": net.unet.token_dim,
    }
    return _config_from_unet(net.unet), projection


def _config_from_unet(unet: UNet) -> dict[str, Any]:
    value = next((value for value in unet.attentions if isinstance(value, TokenAttention)), TokenAttention())
    expected = {
        "resample": ("resnet",),
        "middle": (value, "none"),
        "norm_eps": (DEFAULTS["norm_eps"],),
        "time_embedding": ("sinusoidal",),
        "num_classes": (0,),
    }
    for field, values in expected.items():
        if (held := getattr(unet, field)) not in values:
            only = " or ".join(map(repr, values))
            raise ValueError(f"a decoder's unet with {field}={held!r} is not Karlo's, only {only}: not exported")
    if not value.head_channels or value != TokenAttention(head_channels=value.head_channels):
        raise ValueError(f"a decoder's unet with {value} is not Karlo's, only with head_channels: not exported")
    if any(place not in (None, value) for place in unet.attention):
        raise ValueError(
            f"a decoder's unet with attention={unet.attention} is not Karlo's, where all are one: not exported"
        )
    plain = config_from_unet(
        _attending_by(unet, SelfAttention(head_channels=value.head_channels)).clone(added=False, token_dim=0)
    )
    return {
        **DEFAULTS,
        "_class_name": "UNet2DConditionModel",
        **{key: plain[key] for key in SHARED},
        "down_block_types": [NAMES[block] for block in plain["down_block_types"]],
        "mid_block_type": None if unet.middle == "none" else "UNetMidBlock2DSimpleCrossAttn",
        "up_block_types": [NAMES[block] for block in plain["up_block_types"]],
        "class_embed_type": "identity",
        "cross_attention_dim": unet.token_dim,
    }


def _attending_by(unet: UNet, value: SelfAttention | TokenAttention) -> UNet:
    """The net that attends at the same places, by `value`."""
    return unet.clone(
        attention=tuple(place and value for place in unet.attention),
        middle=unet.middle if isinstance(unet.middle, str) else value,
    )
