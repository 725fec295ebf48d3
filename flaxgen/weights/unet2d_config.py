"""The config.json of diffusers' UNet2DModel <-> the fields of `UNet`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flaxgen.nets.attention import Attention, SelfAttention
from flaxgen.nets.layers import count_heads
from flaxgen.nets.unet import UNet
from flaxgen.weights.fields import read_fields

DOWN = {"DownBlock2D": False, "AttnDownBlock2D": True, "ResnetDownsampleBlock2D": False}
UP = {"UpBlock2D": False, "AttnUpBlock2D": True, "ResnetUpsampleBlock2D": False}
"""The blocks that a UNet can be, and whether they attend."""

DEFAULTS: Mapping[str, Any] = {
    "sample_size": None,
    "in_channels": 3,
    "out_channels": 3,
    "center_input_sample": False,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
    "mid_block_type": "UNetMidBlock2D",
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (224, 448, 672, 896),
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "downsample_padding": 1,
    "downsample_type": "conv",
    "upsample_type": "conv",
    "dropout": 0.0,
    "act_fn": "silu",
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "attn_norm_num_groups": None,
    "norm_eps": 1e-5,
    "resnet_time_scale_shift": "default",
    "add_attention": True,
    "class_embed_type": None,
    "num_class_embeds": None,
    "num_train_timesteps": None,
}
"""What a key that config.json leaves out means."""
OPTIONAL = (
    "mid_block_type",
    "attention_head_dim",
    "downsample_type",
    "upsample_type",
    *(key for key, value in DEFAULTS.items() if value is None),
)
SUPPORTED = {
    "center_input_sample": (False,),
    "time_embedding_type": ("positional", "fourier"),
    "mid_block_type": ("UNetMidBlock2D", None),
    "mid_block_scale_factor": (1,),
    "downsample_padding": (0, 1),
    "act_fn": ("silu", "swish"),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "class_embed_type": (None,),
}

EXPORTED = {
    "embedding_dim": 0,
    "token_dim": 0,
    "vector_dim": 0,
    "guidance_dim": 0,
    "low_res": False,
    "noise_level": False,
    "added": False,
    "patch": 1,
    "positions": False,
    "skip_scale": 1,
    "activation": "silu",
}
"""The fields of a UNet for which a UNet2DModel has no other value."""


def unet_from_config(config: Mapping[str, Any]) -> UNet:
    """The UNet that a UNet2DModel's config describes.

    An output of twice the input's channels is taken for a learned variance.

    Raises:
        ValueError: naming a key or a value that a UNet has no field for.
    """
    c = read_fields(config, "UNet2DModel", DEFAULTS, OPTIONAL, SUPPORTED)
    attends, size, widths = _attends(c), _image_size(c), c["block_out_channels"]
    learned = c["out_channels"] == 2 * c["in_channels"]
    scale_shift = c["resnet_time_scale_shift"] == "scale_shift"
    bare = scale_shift and c["attn_norm_num_groups"] is None
    attention = SelfAttention(head_channels=c["attention_head_dim"] or 0)
    between = replace(attention, norm_groups=0 if bare else c["attn_norm_num_groups"])
    middle = "none" if c["mid_block_type"] is None else between if c["add_attention"] else "resblocks"
    return UNet(
        image_size=size,
        in_channels=c["in_channels"],
        out_channels=c["in_channels"] if learned else c["out_channels"],
        channels=widths[0],
        multipliers=tuple(w // widths[0] if w % widths[0] == 0 else w / widths[0] for w in widths),
        depth=c["layers_per_block"],
        attention=tuple(attention if attending else None for attending in attends) if any(attends) else (),
        middle=middle,
        dropout=c["dropout"],
        num_classes=c["num_class_embeds"] or 0,
        learned_variance=learned,
        scale_shift=scale_shift,
        resample=_resample(c),
        downsample_padding=(0, 1) if c["downsample_padding"] == 0 else (1, 1),
        time_embedding="fourier" if c["time_embedding_type"] == "fourier" else "sinusoidal",
        time_channels=c["time_embedding_dim"] or 0,
        time_order="cos_sin" if c["flip_sin_to_cos"] else "sin_cos",
        time_shift=c["freq_shift"],
        norm_groups=c["norm_num_groups"],
        norm_eps=c["norm_eps"],
    )


def _image_size(c: Mapping[str, Any]) -> int:
    size, levels = c["sample_size"], len(c["block_out_channels"])
    sides = set(size) if isinstance(size, list | tuple) else {size}
    if len(sides) != 1 or not isinstance(side := sides.pop(), int) or side % 2 ** (levels - 1):
        raise ValueError(f"config.json: sample_size={size!r}, expected one number that {levels} levels divide")
    return side


def _attends(c: Mapping[str, Any]) -> list[bool]:
    """Which levels attend; the way up has to mirror the way down."""
    for key, known in (("down_block_types", DOWN), ("up_block_types", UP)):
        if len(c[key]) != len(c["block_out_channels"]):
            raise ValueError(f"config.json: {key} has {len(c[key])} blocks for {len(c['block_out_channels'])} levels")
        if unknown := [block for block in c[key] if block not in known]:
            raise ValueError(f"config.json: {key} has {unknown[0]}, supported are {', '.join(known)}")
    down, up = [DOWN[block] for block in c["down_block_types"]], [UP[block] for block in c["up_block_types"]]
    if down != up[::-1]:
        raise ValueError("config.json: up_block_types attend at other levels than down_block_types: not supported")
    return down


def _resample(c: Mapping[str, Any]) -> str:
    """How levels change size, which all have to do alike; the last block of each way changes no size."""
    attending = {"AttnDownBlock2D": c["downsample_type"], "AttnUpBlock2D": c["upsample_type"]}
    others = {"DownBlock2D": "conv", "UpBlock2D": "conv"}
    blocks = [*c["down_block_types"][:-1], *c["up_block_types"][:-1]]
    ways = {attending.get(block, others.get(block, "resnet")) or "conv" for block in blocks}
    if len(ways) > 1 or not ways <= {"conv", "resnet"}:
        raise ValueError(
            f"config.json: blocks resample by {' and '.join(sorted(ways))}, supported is one of conv, resnet"
        )
    return ways.pop() if ways else "conv"


def config_from_unet(unet: UNet) -> dict[str, Any]:
    """The config of the UNet2DModel that computes the same.

    Raises:
        ValueError: naming a field that no UNet2DModel has.
    """
    for field, value in EXPORTED.items():
        if getattr(unet, field) != value:
            raise ValueError(f"a UNet with {field}={getattr(unet, field)!r} is not a UNet2DModel: not exported")
    _check_widths(unet)
    middle_norm_groups = _middle_norm_groups(unet)
    levels = [value is not None for value in unet.attention] or [False] * len(unet.widths)
    plain = ("DownBlock2D", "UpBlock2D") if unet.resample == "conv" else (list(DOWN)[2], list(UP)[2])
    return {
        **DEFAULTS,
        "_class_name": "UNet2DModel",
        "sample_size": unet.image_size,
        "in_channels": unet.in_channels,
        "out_channels": unet.out_channels * (1 + unet.learned_variance),
        "time_embedding_type": "fourier" if unet.time_embedding == "fourier" else "positional",
        "time_embedding_dim": unet.time_channels or None,
        "freq_shift": unet.time_shift,
        "flip_sin_to_cos": unet.time_order == "cos_sin",
        "down_block_types": ["AttnDownBlock2D" if attending else plain[0] for attending in levels],
        "mid_block_type": None if unet.middle == "none" else "UNetMidBlock2D",
        "up_block_types": ["AttnUpBlock2D" if attending else plain[1] for attending in reversed(levels)],
        "block_out_channels": unet.widths,
        "layers_per_block": unet.depth,
        "downsample_padding": _padding_number(unet),
        "downsample_type": unet.resample,
        "upsample_type": unet.resample,
        "dropout": unet.dropout,
        "attention_head_dim": _head_channels(unet),
        "norm_num_groups": unet.norm_groups,
        "attn_norm_num_groups": middle_norm_groups,
        "norm_eps": unet.norm_eps,
        "resnet_time_scale_shift": "scale_shift" if unet.scale_shift else "default",
        "add_attention": isinstance(unet.middle, SelfAttention),
        "num_class_embeds": unet.num_classes or None,
    }


def _padding_number(unet: UNet) -> int:
    numbers = {(0, 1): 0, (1, 1): 1}
    if tuple(unet.downsample_padding) not in numbers:
        raise ValueError(f"a UNet2DModel has no downsample_padding={unet.downsample_padding}, only (0, 1) and (1, 1)")
    return numbers[unet.downsample_padding]


def _check_widths(unet: UNet) -> None:
    first, depth = unet.conv_in_channels or unet.channels, unet.depth
    if not unet.widths[0] == first == unet.channels:
        raise ValueError(
            f"a UNet with channels={unet.channels}, conv_in_channels={unet.conv_in_channels} and a first level of "
            f"{unet.widths[0]} channels is not diffusers', where all are one: not exported"
        )
    if not isinstance(depth, int):
        raise ValueError(f"a UNet with depth={depth} is not a UNet2DModel, whose levels are all as deep: not exported")


def _head_channels(unet: UNet) -> int | None:
    """diffusers counts channels a head, all levels alike; None is one head, and its default where nothing attends."""
    norms = (None, unet.norm_groups), (None, unet.norm_eps)
    places: list[tuple[int, Attention]] = [
        (width, value) for width, value in zip(unet.widths, unet.attention, strict=False) if value is not None
    ]
    for _, value in places:
        if not isinstance(value, SelfAttention) or value.norm_groups not in norms[0] or value.norm_eps not in norms[1]:
            raise ValueError(f"a UNet with attention={value!r} is not a UNet2DModel: not exported")
    if not isinstance(unet.middle, str):
        places.append((unet.widths[-1], unet.middle))
    if not places:
        return DEFAULTS["attention_head_dim"]
    if all((value.heads, value.head_channels) == (1, 0) for _, value in places):
        return None
    sizes = {width // count_heads(width, value.heads, value.head_channels) for width, value in places}
    if len(sizes) > 1:
        raise ValueError(
            f"heads of {' and '.join(map(str, sorted(sizes)))} channels are not a UNet2DModel: set head_channels alike"
        )
    return sizes.pop()


def _middle_norm_groups(unet: UNet) -> int | None:
    """diffusers leaves the norm out exactly where time scales and shifts and the number is None."""
    middle = unet.middle
    if isinstance(middle, str):
        return None
    if not isinstance(middle, SelfAttention) or middle.norm_eps not in (None, unet.norm_eps):
        raise ValueError(f"a UNet with middle={middle!r} is not a UNet2DModel: not exported")
    if middle.norm_groups != 0:
        return middle.norm_groups or (unet.norm_groups if unet.scale_shift else None)
    if not unet.scale_shift:
        raise ValueError(f"a UNet with middle={middle!r} without scale_shift is not a UNet2DModel: not exported")
    return None
