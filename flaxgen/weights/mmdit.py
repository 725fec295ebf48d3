"""Folders of diffusers' SD3Transformer2DModel, the net of Stable Diffusion 3 and 3.5 [Esser24], <-> `MMDiT` and its
parameters.

Where only a norm is set, in the last norms of patches and of tokens, diffusers has the scale before the shift.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flaxgen.nets.mmdit import MMDiT
from flaxgen.types import Params
from flaxgen.weights import store
from flaxgen.weights.convert import export_params, find_part, import_params, write_folder
from flaxgen.weights.dit import FEED_FORWARD, abstract_params, sizes_here, sizes_there
from flaxgen.weights.fields import COUNT, Field, Kind, Table, check_supported, choice, optional
from flaxgen.weights.layouts import LINEAR, SAME, Layout, squeeze, swapped
from flaxgen.weights.rules import Rule, under
from flaxgen.weights.unet2d import CONVOLUTION, DENSE, STEM

SWAPPED = (Rule("weight", "kernel", swapped(LINEAR)), Rule("bias", "bias", swapped(SAME)))
HEADS = {
    "attention": ("attn.to_{}", "attn.norm_{}"),
    "token_attention": ("attn.add_{}_proj", "attn.norm_added_{}"),
    "dual_attention": ("attn2.to_{}", "attn2.norm_{}"),
}
"""What diffusers calls the projections and norms of queries, keys and values, in each of the modules that have them."""
PARTS = {"q": "query", "k": "key", "v": "value"}
BLOCK = (
    *under([("norm1.linear", "modulation/linear")], DENSE),
    *under(
        [
            (dense.format(part), f"{module}/{name}")
            for module, (dense, _) in HEADS.items()
            for part, name in PARTS.items()
        ],
        DENSE,
    ),
    *(
        Rule(f"{norm.format(part)}.weight", f"{module}/{PARTS[part]}_norm/scale")
        for module, (_, norm) in HEADS.items()
        for part in ("q", "k")
    ),
    *under([("attn.to_out.0", "out"), ("attn.to_add_out", "token_out"), ("attn2.to_out.0", "dual_out")], DENSE),
    *under(FEED_FORWARD, DENSE),
    *under([(tensor.replace("ff", "ff_context"), f"token_{param}") for tensor, param in FEED_FORWARD], DENSE),
)


def rules_of(net: MMDiT) -> tuple[Rule, ...]:
    """The table of a net; the side of its table of places and its last block, whose tokens end there, are in it."""
    norms = [(f"transformer_blocks.{i}.norm1_context.linear", f"block_{i}/token_modulation/linear")
             for i in range(net.depth)]  # fmt: skip
    return (
        Rule("pos_embed.pos_embed", "place_table", square(net.max_places)),
        *under([("pos_embed.proj", "patches")], CONVOLUTION),
        *under([(f"time_text_embed.timestep_embedder.linear_{i}", f"condition/time_{i}") for i in (1, 2)], DENSE),
        *under([(f"time_text_embed.text_embedder.linear_{i}", f"condition/vector_{i}") for i in (1, 2)], DENSE),
        *under([("context_embedder", "token_in"), ("proj_out", "head/out")], DENSE),
        *under([("transformer_blocks.{i}", "block_{i}")], BLOCK),
        *under(norms[:-1], DENSE),
        *under([norms[-1], ("norm_out.linear", "head/modulation/linear")], SWAPPED),
    )


def square(side: int) -> Layout:
    """[1, side * side, channels] <-> [side, side, channels]"""
    return squeeze((0,), Layout(lambda x: _unrolled(x, side), lambda x: x.reshape(side * side, -1), 2))


def _unrolled(x: np.ndarray, side: int) -> np.ndarray:
    if len(x) != side * side:
        raise ValueError(f"expected {side * side} places, the square of pos_embed_max_size={side}")
    return x.reshape(side, side, -1)


BLOCKS = Kind(
    "a list of whole numbers from 0 on",
    lambda value: isinstance(value, list | tuple) and all(type(i) is int and i >= 0 for i in value),
    tuple,
    list,
)
CONFIG = Table(
    "SD3Transformer2DModel",
    (
        Field("sample_size", 128, COUNT, "image_size"),
        Field("patch_size", 2, COUNT, "patch"),
        Field("in_channels", 16, COUNT, "in_channels"),
        Field("num_layers", 18, COUNT, "depth"),
        Field("attention_head_dim", 64, COUNT, "head_width"),
        Field("num_attention_heads", 18, COUNT, "heads"),
        Field("joint_attention_dim", 4096, COUNT, "token_dim"),
        Field("caption_projection_dim", 1152, COUNT, "caption_width"),
        Field("pooled_projection_dim", 2048, COUNT, "vector_dim"),
        Field("out_channels", 16, optional(COUNT), "out_channels"),
        Field("pos_embed_max_size", 96, COUNT, "max_places"),
        Field("dual_attention_layers", (), BLOCKS, "dual_blocks"),
        Field("qk_norm", None, choice({None: False, "rms_norm": True}), "qk_norm"),
    ),
)


def import_mmdit(
    folder: str | Path, variant: str | None = None, keep_dtype: bool = False
) -> tuple[MMDiT, dict[str, Any]]:
    """The net and its parameters (numpy, float32, or with `keep_dtype` as they are) from a diffusers folder: its own,
    or a pipeline's with `transformer/` in it. A `variant` is such as "fp16".

    Raises:
        ValueError: naming what is not supported, or the tensor that is missing, extra, wrongly shaped or not finite.
        FileNotFoundError: if config.json or the safetensors are not there.
    """
    folder = find_part(folder, "transformer")
    net = mmdit_from_config(store.read_json(folder / "config.json"))
    tensors = store.open_folder(folder, STEM, variant)
    return net, import_params(rules_of(net), tensors, abstract_params(net), str(folder), keep_dtype)


def export_mmdit(net: MMDiT, params: Params, folder: str | Path) -> None:
    """Writes a folder that `SD3Transformer2DModel.from_pretrained` reads; the inverse of `import_mmdit`, bit for bit.

    Raises:
        ValueError: naming a field that no SD3Transformer2DModel has, or a tensor that is not the net's.
    """
    config = config_from_mmdit(net)
    write_folder(Path(folder), STEM, config, export_params(rules_of(net), params, abstract_params(net)))


def mmdit_from_config(config: Mapping[str, Any]) -> MMDiT:
    """The net that an SD3Transformer2DModel's config describes.

    Raises:
        ValueError: naming a key or a value that an `MMDiT` has no field for.
    """
    fields = sizes_here(CONFIG.read(config))
    check_supported("caption_projection_dim", fields.pop("caption_width"), (fields["width"],))
    return MMDiT(**fields)


def config_from_mmdit(net: MMDiT) -> dict[str, Any]:
    """The config of the SD3Transformer2DModel that computes the same.

    Raises:
        ValueError: naming a field that no SD3Transformer2DModel has.
    """
    if net.num_classes:
        raise ValueError(f"an MMDiT with num_classes={net.num_classes} is no SD3Transformer2DModel: not exported")
    return CONFIG.write(sizes_there(net, CONFIG) | {"caption_width": net.width})
