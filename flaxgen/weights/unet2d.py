"""Folders of diffusers' UNet2DModel <-> `UNet` and its parameters."""

import functools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from flaxgen import programs
from flaxgen.nets.unet import UNet
from flaxgen.types import Params, PRNGKey
from flaxgen.weights import store
from flaxgen.weights.rules import CONV, LINEAR, Rule, from_params, tensor_name, to_params, under
from flaxgen.weights.unet2d_config import config_from_unet, unet_from_config

STEM = "diffusion_pytorch_model"
NORM = (Rule("weight", "scale"), Rule("bias", "bias"))
DENSE = (Rule("weight", "kernel", LINEAR), Rule("bias", "bias"))
CONVOLUTION = (Rule("weight", "kernel", CONV), Rule("bias", "bias"))
RESBLOCK = (
    *under([("norm1", "norm_1"), ("norm2", "norm_2")], NORM),
    *under([("conv1", "conv_1"), ("conv2", "conv_2"), ("conv_shortcut", "shortcut")], CONVOLUTION),
    *under([("time_emb_proj", "embedding")], DENSE),
)
ATTENTION = (
    *under([("group_norm", "norm")], NORM),
    *under([("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "out")], DENSE),
)
SAMPLERS = (
    ("down_blocks.{i}.downsamplers.0", "down_{i}_resample"),
    ("up_blocks.{i}.upsamplers.0", "up_{i}_resample"),
)
ATTENTION_PLACES = (
    ("down_blocks.{i}.attentions.{j}", "down_{i}_attention_{j}"),
    ("mid_block.attentions.0", "middle_attention"),
    ("up_blocks.{i}.attentions.{j}", "up_{i}_attention_{j}"),
)
BODY = (
    *under([("conv_in", "conv_in"), ("conv_out", "conv_out")], CONVOLUTION),
    *under([("conv_norm_out", "norm_out")], NORM),
    *under([("time_embedding.linear_1", "condition/time_1"), ("time_embedding.linear_2", "condition/time_2")], DENSE),
    Rule("time_proj.weight", "condition/fourier/frequencies"),
    Rule("class_embedding.weight", "condition/label/embedding"),
    *under(
        [
            ("down_blocks.{i}.resnets.{j}", "down_{i}_resblock_{j}"),
            ("mid_block.resnets.{j}", "middle_resblock_{j}"),
            ("up_blocks.{i}.resnets.{j}", "up_{i}_resblock_{j}"),
            *SAMPLERS,
        ],
        RESBLOCK,
    ),
    *under([(f"{tensor}.conv", f"{param}/conv") for tensor, param in SAMPLERS], CONVOLUTION),
)
"""All but attention."""
RULES = (*BODY, *under(ATTENTION_PLACES, ATTENTION))
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""What the tensors of an attention were called until diffusers 0.14."""


def import_unet2d(folder: str | Path) -> tuple[UNet, dict[str, Any]]:
    """The net and its parameters (numpy, float32) from a diffusers folder: its own, or a pipeline's with `unet/` in it.

    Raises:
        ValueError: naming what is not supported, or the tensor that is missing, extra, wrongly shaped or not finite.
        FileNotFoundError: if config.json or the safetensors are not there.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file() and (folder / "unet" / "config.json").is_file():
        folder = folder / "unet"
    unet = unet_from_config(store.read_json(folder / "config.json"))
    return unet, read_unet2d(unet, folder)


def read_unet2d(unet: UNet, folder: Path, rules: Sequence[Rule] = RULES, keep_dtype: bool = False) -> dict[str, Any]:
    """The parameters of a UNet from the safetensors in `folder`, float32 or with `keep_dtype` as they are; ValueError
    as `import_unet2d`."""
    tensors = store.read_folder(folder, STEM)
    renamed = {current_name(name): value for name, value in tensors.items()}
    if len(renamed) < len(tensors):
        raise ValueError(f"{folder} holds an attention tensor under its old name and its new one")
    params, like = to_params(rules, renamed), abstract_params(unet)
    return store.fit(params, like, str(folder), lambda path: tensor_name(rules, path), keep_dtype)


def current_name(name: str) -> str:
    """What a tensor is called since diffusers 0.14; others keep their name."""
    way, dot, end = name.rpartition(".")
    match = re.fullmatch(r"(.*\.attentions\.\d+)\.(\w+)", way)
    if match is None or match[2] not in OLD_ATTENTION:
        return name
    return f"{match[1]}.{OLD_ATTENTION[match[2]]}{dot}{end}"


def abstract_params(unet: UNet) -> Params:
    """The shapes and dtypes of a UNet's parameters, as ShapeDtypeStructs."""
    return programs.shapes(functools.partial(_init, unet))["params"]


def _init(unet: UNet, key: PRNGKey) -> Params:
    size = unet.patch * 2 ** (len(unet.multipliers) - 1)
    x, one = jnp.zeros((1, size, size, unet.in_channels)), jnp.ones(1)
    conditions: dict[str, Any] = {
        "label": jnp.zeros(1, jnp.int32) if unet.num_classes else None,
        "embedding": jnp.zeros((1, unet.embedding_dim)) if unet.embedding_dim else None,
        "tokens": jnp.zeros((1, 1, unet.token_dim)) if unet.token_dim else None,
        "low_res": x if unet.low_res else None,
        "level": one if unet.noise_level else None,
        "added": jnp.zeros((1, unet.time_width)) if unet.added else None,
        "vector": jnp.zeros((1, unet.vector_dim)) if unet.vector_dim else None,
        "guidance": jnp.ones(1) if unet.guidance_dim else None,
    }
    return unet.init(key, x, one, **conditions)


def export_unet2d(unet: UNet, params: Params, folder: str | Path) -> None:
    """Writes a folder that `UNet2DModel.from_pretrained` reads; the inverse of `import_unet2d`, bit for bit.

    Raises:
        ValueError: naming a field that no UNet2DModel has, or a tensor that is not the UNet's.
    """
    write_unet2d(unet, params, config_from_unet(unet), Path(folder))


def write_unet2d(
    unet: UNet, params: Params, config: Mapping[str, Any], folder: Path, rules: Sequence[Rule] = RULES
) -> None:
    """Writes config.json and the parameters of a UNet, as they are, into `folder`; ValueError as `export_unet2d`."""
    like, where = abstract_params(unet), "the parameters to export"
    flat = store.flatten(store.fit(store.flatten(params), like, where, keep_dtype=True))
    folder.mkdir(parents=True, exist_ok=True)
    store.write_file(folder / f"{STEM}.safetensors", from_params(rules, flat))
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
