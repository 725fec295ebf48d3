"""The config.json of diffusers' UNet2DConditionModel, as Stable Diffusion has it, <-> the fields of `UNet`.

Blocks without attention are a UNet2DModel's: all but the transformers is read and written as its config.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from flaxgen.nets.attention import Attention, SelfAttention, SpatialTransformer
from flaxgen.nets.layers import count_heads
from flaxgen.nets.unet import UNet
from flaxgen.weights.fields import read_fields
from flaxgen.weights.unet2d_config import config_from_unet, unet_from_config

BLOCKS = {
    "DownBlock2D": "DownBlock2D",
    "UpBlock2D": "UpBlock2D",
    "CrossAttnDownBlock2D": "AttnDownBlock2D",
    "CrossAttnUpBlock2D": "AttnUpBlock2D",
}
"""What a UNet2DModel calls the block that stands at the same places."""
NAMES = {ours: theirs for theirs, ours in BLOCKS.items()}
MIDDLE = "UNetMidBlock2DCrossAttn"
NORM_EPS = SpatialTransformer.norm_eps

DEFAULTS: Mapping[str, Any] = {
    "sample_size": None,
    "in_channels": 4,
    "out_channels": 4,
    "center_input_sample": False,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "only_cross_attention": False,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "downsample_padding": 1,
    "mid_block_scale_factor": 1,
    "dropout": 0.0,
    "act_fn": "silu",
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "cross_attention_dim": 1280,
    "transformer_layers_per_block": 1,
    "reverse_transformer_layers_per_block": None,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "attention_head_dim": 8,
    "num_attention_heads": None,
    "dual_cross_attention": False,
    "use_linear_projection": False,
    "class_embed_type": None,
    "addition_embed_type": None,
    "addition_time_embed_dim": None,
    "num_class_embeds": None,
    "upcast_attention": False,
    "resnet_time_scale_shift": "default",
    "resnet_skip_time_act": False,
    "resnet_out_scale_factor": 1.0,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "time_embedding_act_fn": None,
    "timestep_post_act": None,
    "time_cond_proj_dim": None,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "projection_class_embeddings_input_dim": None,
    "attention_type": "default",
    "class_embeddings_concat": False,
    "mid_block_only_cross_attention": None,
    "cross_attention_norm": None,
    "addition_embed_type_num_heads": 64,
}
"""What a key that config.json leaves out means."""
SHARED = (
    "sample_size",
    "in_channels",
    "out_channels",
    "flip_sin_to_cos",
    "freq_shift",
    "block_out_channels",
    "layers_per_block",
    "downsample_padding",
    "dropout",
    "norm_num_groups",
    "attention_head_dim",
    "resnet_time_scale_shift",
    "time_embedding_dim",
)
"""What a UNet2DModel calls the same."""
LEVELS = ("attention_head_dim", "transformer_layers_per_block", "layers_per_block", "only_cross_attention")
"""What is one value for all levels, or one a level."""
SIZED, PROJECTION = "text_time", "projection"
"""How a vector is read: with the sizes of SDXL in it, or as it is, as Stable unCLIP reads a picture's embedding."""
WAVES = 256
"""How many channels each number of SDXL's sizes becomes; the vector that they are part of is the caller's to make."""
FREE = (
    *(key for key in SHARED if key not in LEVELS),
    "down_block_types",
    "up_block_types",
    "norm_eps",
    "cross_attention_dim",
    "use_linear_projection",
    "num_class_embeds",
    "projection_class_embeddings_input_dim",
    "time_cond_proj_dim",
)
SUPPORTED = {
    **{key: (value,) for key, value in DEFAULTS.items() if key not in (*FREE, *LEVELS)},
    "mid_block_type": (MIDDLE, None),
    "act_fn": ("silu", "swish"),
    "class_embed_type": (None, PROJECTION),
    "addition_embed_type": (None, SIZED),
    "addition_time_embed_dim": (None, WAVES),
    "upcast_attention": (None, False, True),
}
"""Softmax is float32 here whatever `upcast_attention` says."""
OPTIONAL = (
    "time_embedding_dim",
    "num_class_embeds",
    "projection_class_embeddings_input_dim",
    "time_cond_proj_dim",
)


def unet_from_condition_config(config: Mapping[str, Any]) -> UNet:
    """The UNet that a UNet2DConditionModel's config describes.

    `attention_head_dim` counts heads in this class, whatever its name says. A `text_time` embedding becomes
    `vector_dim`, the width of the vector of pooled text and sizes, and so does a `projection` of class labels.

    Raises:
        ValueError: naming a key or a value that a UNet has no field for.
    """
    given = {key: value for key, value in config.items() if key not in LEVELS}
    c = read_fields(given, "UNet2DConditionModel", DEFAULTS, OPTIONAL, SUPPORTED)
    heads, depths, blocks, crosses = (_levels(config, key, len(c["block_out_channels"])) for key in LEVELS)
    unet = unet_from_config(_plain_config(c) | {"layers_per_block": blocks[0]})
    values = [
        SpatialTransformer(heads=each, depth=depth, linear=c["use_linear_projection"], only_cross=cross)
        for each, depth, cross in zip(heads, depths, crosses, strict=True)
    ]
    places = unet.attention or [None] * len(values)
    return unet.clone(
        depth=blocks[0] if len(set(blocks)) == 1 else tuple(blocks),
        attention=tuple(place and value for place, value in zip(places, values, strict=True)),
        middle="none" if c["mid_block_type"] is None else replace(values[-1], only_cross=False),
        token_dim=c["cross_attention_dim"],
        vector_dim=_vector_dim(c),
        guidance_dim=c["time_cond_proj_dim"] or 0,
    )


def _levels(config: Mapping[str, Any], key: str, levels: int) -> list[Any]:
    value = config.get(key, DEFAULTS[key])
    values = list(value) if isinstance(value, list | tuple) else [value] * levels
    kind = type(DEFAULTS[key])
    if len(values) != levels or any(type(each) is not kind for each in values):
        raise ValueError(f"config.json: {key}={value!r}, expected one {kind.__name__} or {levels}, one a level")
    return values


def _plain_config(c: Mapping[str, Any]) -> dict[str, Any]:
    """The config of the UNet2DModel with the same blocks and attention at the same places."""
    for key in ("down_block_types", "up_block_types"):
        if unknown := [block for block in c[key] if block not in BLOCKS]:
            raise ValueError(f"config.json: {key} has {unknown[0]}, supported are {', '.join(BLOCKS)}")
    return {
        **{key: c[key] for key in SHARED if key not in LEVELS},
        "down_block_types": [BLOCKS[block] for block in c["down_block_types"]],
        "mid_block_type": c["mid_block_type"] and "UNetMidBlock2D",
        "up_block_types": [BLOCKS[block] for block in c["up_block_types"]],
        "norm_eps": c["norm_eps"],
        "num_class_embeds": c["num_class_embeds"],
    }


def _vector_dim(c: Mapping[str, Any]) -> int:
    key, kinds = "projection_class_embeddings_input_dim", ("addition_embed_type", "class_embed_type")
    given = {name: c[name] for name in kinds if c[name] is not None}
    if len(given) != (c[key] is not None) or isinstance(c[key], list | tuple):
        said = ", ".join(f"{name}={value!r}" for name, value in given.items()) or f"{kinds[0]}=None"
        raise ValueError(f"config.json: {said} does not go with {key}={c[key]!r}")
    return c[key] or 0


def condition_config_from_unet(unet: UNet, vector: str = SIZED) -> dict[str, Any]:
    """The config of the UNet2DConditionModel that computes the same, and has the UNet's vector as SIZED or PROJECTION.

    Raises:
        ValueError: naming a field that no UNet2DConditionModel of spatial transformers has.
    """
    values = _transformers(unet)
    heads = [count_heads(width, value.heads, value.head_channels) for width, value in values]
    plain = config_from_unet(
        unet.clone(
            depth=1,
            attention=tuple(place and SelfAttention() for place in unet.attention),
            middle=unet.middle if isinstance(unet.middle, str) else SelfAttention(),
            token_dim=0,
            vector_dim=0,
            guidance_dim=0,
        )
    )
    for field, only in (("resample", "conv"), ("time_embedding", "sinusoidal")):
        if getattr(unet, field) != only:
            raise ValueError(f"a UNet with {field}={getattr(unet, field)!r} is no UNet2DConditionModel: not exported")
    blocks = [unet.depth] * len(values) if isinstance(unet.depth, int) else unet.depth
    sized, projected = (unet.vector_dim > 0 and vector == kind for kind in (SIZED, PROJECTION))
    return {
        **DEFAULTS,
        "_class_name": "UNet2DConditionModel",
        **{key: plain[key] for key in SHARED},
        "down_block_types": [NAMES[block] for block in plain["down_block_types"]],
        "mid_block_type": None if unet.middle == "none" else MIDDLE,
        "up_block_types": [NAMES[block] for block in plain["up_block_types"]],
        "norm_eps": unet.norm_eps,
        "num_class_embeds": unet.num_classes or None,
        "layers_per_block": _one(blocks),
        "attention_head_dim": _one(heads),
        "transformer_layers_per_block": _one([value.depth for _, value in values]),
        "only_cross_attention": _one([value.only_cross for _, value in values]),
        "use_linear_projection": values[0][1].linear,
        "cross_attention_dim": unet.token_dim,
        "class_embed_type": PROJECTION if projected else None,
        "addition_embed_type": SIZED if sized else None,
        "addition_time_embed_dim": WAVES if sized else None,
        "projection_class_embeddings_input_dim": unet.vector_dim or None,
        "time_cond_proj_dim": unet.guidance_dim or None,
    }


def _one(values: Sequence[Any]) -> Any:
    return values[0] if len(set(values)) == 1 else list(values)


def _transformers(unet: UNet) -> list[tuple[int, SpatialTransformer]]:
    """Of every level its width and transformer; where a level does not attend, those of the next deeper one that does,
    as diffusers wants a number for every level and takes the last for the middle."""
    values = [place and _transformer(unet, place) for place in unet.attention] or [None] * len(unet.widths)
    middle = None if isinstance(unet.middle, str) else _transformer(unet, unet.middle)
    places = zip((*unet.widths, unet.widths[-1]), (*values, middle), strict=True)
    attending = [(width, value) for width, value in places if value is not None]
    if unet.middle == "resblocks" or not attending:
        raise ValueError(f"a UNet with middle={unet.middle!r} is no UNet2DConditionModel: not exported")
    if len({value.linear for _, value in attending}) > 1:
        raise ValueError("a UNet with linear=True and linear=False is no UNet2DConditionModel: not exported")
    last = values[-1] and replace(values[-1], only_cross=False)
    if middle is not None and (middle.only_cross or last not in (None, middle)):
        raise ValueError(f"a UNet with middle={middle} is not diffusers', which is as the last level: not exported")
    filled, below = [], attending[-1]
    for width, value in zip(reversed(unet.widths), reversed(values), strict=True):
        below = below if value is None else (width, value)
        filled.append(below)
    return filled[::-1]


def _transformer(unet: UNet, value: Attention) -> SpatialTransformer:
    groups = None, unet.norm_groups
    if isinstance(value, SpatialTransformer) and value.norm_groups in groups and value.norm_eps == NORM_EPS:
        return value
    raise ValueError(f"a UNet with {value} is no UNet2DConditionModel of spatial transformers: not exported")
