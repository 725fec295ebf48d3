"""Folders of diffusers' UNet2DConditionModel, the net of Stable Diffusion [Rombach22; Podell23], <-> `UNet` and its
parameters."""

from pathlib import Path
from typing import Any

from flaxgen.nets.unet import UNet
from flaxgen.types import Params
from flaxgen.weights import store
from flaxgen.weights.rules import LINEAR, Rule, under
from flaxgen.weights.unet2d import ATTENTION_PLACES, BODY, CONVOLUTION, DENSE, NORM, read_unet2d, write_unet2d
from flaxgen.weights.unet_condition_config import (
    PROJECTION,
    SIZED,
    condition_config_from_unet,
    unet_from_condition_config,
)

CROSS_ATTENTION = (
    Rule("to_q.weight", "query/kernel", LINEAR),
    Rule("to_k.weight", "key/kernel", LINEAR),
    Rule("to_v.weight", "value/kernel", LINEAR),
    *under([("to_out.0", "out")], DENSE),
)
BLOCK = (
    *under([("norm1", "norm_1"), ("norm2", "norm_2"), ("norm3", "norm_3")], NORM),
    *under([("attn1", "self_attention"), ("attn2", "cross_attention")], CROSS_ATTENTION),
    *under([("ff.net.0.proj", "mlp_1"), ("ff.net.2", "mlp_2")], DENSE),
)


VECTORS = {SIZED: "add_embedding", PROJECTION: "class_embedding"}
"""Where a UNet2DConditionModel has the layers of a vector, by how it reads that."""


def rules_of(unet: UNet, vector: str = SIZED) -> tuple[Rule, ...]:
    """The table of a net whose projections are all convolutions, or all linear."""
    layers = [(f"{VECTORS[vector]}.linear_{i}", f"condition/vector_{i}") for i in (1, 2)]
    guidance = Rule("time_embedding.cond_proj.weight", "condition/guidance/kernel", LINEAR)
    return (*BODY, guidance, *under(layers, DENSE), *under(ATTENTION_PLACES, transformer_rules(unet)))


def transformer_rules(unet: UNet) -> tuple[Rule, ...]:
    """Those of one spatial transformer, which CompVis' code has under the same names."""
    linear = any(getattr(value, "linear", False) for value in unet.attentions)
    return (
        *under([("norm", "norm")], NORM),
        *under([("proj_in", "proj_in"), ("proj_out", "proj_out")], DENSE if linear else CONVOLUTION),
        *under([("transformer_blocks.{k}", "block_{k}")], BLOCK),
    )


def import_unet_condition(folder: str | Path, keep_dtype: bool = False) -> tuple[UNet, dict[str, Any]]:
    """The net and its parameters (numpy, float32, or with `keep_dtype` as they are) from the folder of a
    UNet2DConditionModel.

    Raises:
        ValueError: naming what is not supported, or the tensor that is missing, extra, wrongly shaped or not finite.
        FileNotFoundError: if config.json or the safetensors are not there.
    """
    folder = Path(folder)
    config = store.read_json(folder / "config.json")
    unet, vector = unet_from_condition_config(config), PROJECTION if config.get("class_embed_type") else SIZED
    return unet, read_unet2d(unet, folder, rules_of(unet, vector), keep_dtype=keep_dtype)


def export_unet_condition(unet: UNet, params: Params, folder: str | Path, vector: str = SIZED) -> None:
    """Writes a folder that `UNet2DConditionModel.from_pretrained` reads; the inverse of `import_unet_condition`, bit
    for bit. `vector` says how diffusers is to read the UNet's vector: SIZED, or a PROJECTION of class labels.

    Raises:
        ValueError: naming a field that no UNet2DConditionModel has, or a tensor that is not the UNet's.
    """
    write_unet2d(unet, params, condition_config_from_unet(unet, vector), Path(folder), rules_of(unet, vector))
