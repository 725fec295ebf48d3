"""The UNet of latent diffusion under the names of CompVis' and Stability's code [Rombach22; Podell23] <-> `UNet`: the
table of names, and the net's fields from the shapes of its tensors.

That code numbers blocks one after the other: `input_blocks.0` is the first convolution, then come the residual blocks
of every level, and at its end the downsampling; `output_blocks` are residual blocks alone, the last of a level with the
upsampling in it.
"""

import re
from collections.abc import Mapping
from typing import Any

from flaxgen.nets.resnet import make_levels
from flaxgen.nets.unet import UNet
from flaxgen.weights.rules import Rule, under
from flaxgen.weights.unet2d import CONVOLUTION, DENSE, NORM
from flaxgen.weights.unet_condition import transformer_rules
from flaxgen.weights.unet_condition_config import condition_config_from_unet, unet_from_condition_config

Shapes = Mapping[str, tuple[int, ...]]
HEAD_WIDTH = 64
"""Of SD 2, SDXL and all text towers. How many heads a net has is in no tensor."""
RESBLOCK = (
    *under([("in_layers.0", "norm_1"), ("out_layers.0", "norm_2")], NORM),
    *under([("in_layers.2", "conv_1"), ("out_layers.3", "conv_2"), ("skip_connection", "shortcut")], CONVOLUTION),
    *under([("emb_layers.1", "embedding")], DENSE),
)
UNSAID = ("sample_size", "dropout", "upcast_attention")
"""What no tensor says, and what changes nothing that a trained net computes."""


def rules_for(unet: UNet) -> tuple[Rule, ...]:
    """The names of a net's tensors."""
    resblocks = [("middle_block.0", "middle_resblock_0"), ("middle_block.2", "middle_resblock_1")]
    attentions = [("middle_block.1", "middle_attention")]
    resamples: list[tuple[str, str]] = []
    levels, number = make_levels(unet.widths, unet.depth, unet.attention), 1
    for i, level in enumerate(levels):
        for j in range(level.depth):
            resblocks.append((f"input_blocks.{number}.0", f"down_{i}_resblock_{j}"))
            attentions += [(f"input_blocks.{number}.1", f"down_{i}_attention_{j}")] if level.attention else []
            number += 1
        resamples.append((f"input_blocks.{number}.0.op", f"down_{i}_resample/conv"))
        number += 1
    number = 0
    for i, level in enumerate(reversed(levels)):
        for j in range(level.depth + 1):
            resblocks.append((f"output_blocks.{number}.0", f"up_{i}_resblock_{j}"))
            attentions += [(f"output_blocks.{number}.1", f"up_{i}_attention_{j}")] if level.attention else []
            number += 1
        place = 2 if level.attention else 1
        resamples.append((f"output_blocks.{number - 1}.{place}.conv", f"up_{i}_resample/conv"))
    return (
        *under([("input_blocks.0.0", "conv_in"), ("out.2", "conv_out"), *resamples], CONVOLUTION),
        *under([("out.0", "norm_out")], NORM),
        *under([(f"time_embed.{2 * i}", f"condition/time_{i + 1}") for i in (0, 1)], DENSE),
        *under([(f"label_emb.0.{2 * i}", f"condition/vector_{i + 1}") for i in (0, 1)], DENSE),
        *under(resblocks, RESBLOCK),
        *under(attentions, transformer_rules(unet)),
    )


def unet_from_shapes(shapes: Shapes, where: str, image_size: int, heads: int | None) -> UNet:
    """The net whose tensors have these shapes; what does not fit together is refused when they are read.

    `heads` are those of every level, None one for every 64 channels.

    Raises:
        ValueError: naming a tensor that is missing, or of too few dimensions.
    """
    widths, depths, blocks = _levels(shapes, where)
    types = ["CrossAttnDownBlock2D" if count else "DownBlock2D" for count in blocks]
    middle = "middle_block.1.transformer_blocks"
    vector = "label_emb.0.0.weight"
    vector_dim = size(shapes, where, vector, 1) if vector in shapes else None
    return unet_from_condition_config(
        {
            "sample_size": image_size,
            "in_channels": size(shapes, where, "input_blocks.0.0.weight", 1),
            "out_channels": size(shapes, where, "out.2.weight", 0),
            "block_out_channels": widths,
            "layers_per_block": depths,
            "down_block_types": types,
            "up_block_types": [name.replace("Down", "Up") for name in reversed(types)],
            "transformer_layers_per_block": [count or count_blocks(shapes, middle) for count in blocks],
            "attention_head_dim": [heads or max(1, width // HEAD_WIDTH) for width in widths],
            "cross_attention_dim": size(shapes, where, f"{middle}.0.attn2.to_k.weight", 1),
            "use_linear_projection": len(shapes.get("middle_block.1.proj_in.weight", ())) == 2,
            "addition_embed_type": vector_dim and "text_time",
            "addition_time_embed_dim": vector_dim and 256,
            "projection_class_embeddings_input_dim": vector_dim,
        }
    )


def _levels(shapes: Shapes, where: str) -> tuple[list[int], list[int], list[int]]:
    """Of every level its channels, its residual blocks, and the blocks of its transformers, 0 where there are none."""
    widths, depths, blocks, number = [], [], [], 1
    while f"input_blocks.{number}.0.in_layers.2.weight" in shapes:
        prefix, first = f"input_blocks.{number}", number
        while f"input_blocks.{number}.0.in_layers.2.weight" in shapes:
            number += 1
        widths.append(size(shapes, where, f"{prefix}.0.in_layers.2.weight", 0))
        depths.append(number - first)
        blocks.append(count_blocks(shapes, f"{prefix}.1.transformer_blocks"))
        number += 1  # the downsampling
    if not widths:
        raise ValueError(f"{where}: tensor 'input_blocks.1.0.in_layers.2.weight' is missing")
    return widths, depths, blocks


def count_blocks(shapes: Shapes, prefix: str) -> int:
    """How many blocks are numbered behind the prefix."""
    found = (re.match(rf"{re.escape(prefix)}\.(\d{{1,3}})\.", name) for name in shapes)
    return max((1 + int(match[1]) for match in found if match), default=0)


def size(shapes: Shapes, where: str, name: str, axis: int) -> int:
    """A dimension of a tensor; ValueError naming it if it is missing or has too few."""
    shape = shapes.get(name, ())
    if len(shape) < 2 or 0 in shape:
        raise ValueError(f"{where}: tensor {name!r} of 2 dimensions or more is missing")
    return shape[axis]


def check_unet(unet: UNet, found: UNet) -> None:
    """Raises ValueError unless the net is the one that a reader of its tensors takes it for, `found`."""
    said, taken = condition_config_from_unet(unet), condition_config_from_unet(found)
    check_same(said, taken, UNSAID)


def check_same(said: Mapping[str, Any], taken: Mapping[str, Any], unsaid: tuple[str, ...]) -> None:
    """Raises ValueError naming the first key of a config of which a reader of the tensors has to take another value."""
    for key, value in said.items():
        if key not in unsaid and value != taken[key]:
            raise ValueError(
                f"{key}={value!r} is in no tensor, readers of this layout take {taken[key]!r}: not exported"
            )
