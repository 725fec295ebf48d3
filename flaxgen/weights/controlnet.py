"""Folders of diffusers' ControlNetModel [Zhang23] <-> `ControlNet` and its parameters.

Its config is that of the UNet it goes with, without what only the way up has, and with fields of the hint.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from flaxgen import programs
from flaxgen.nets.controlnet import ControlNet
from flaxgen.types import Params, PRNGKey
from flaxgen.weights import store
from flaxgen.weights.convert import export_params, import_params, write_folder
from flaxgen.weights.fields import COUNT, Field, Table, only, several
from flaxgen.weights.rules import Rule, under
from flaxgen.weights.unet2d import CONVOLUTION, STEM
from flaxgen.weights.unet_condition import rules_of as unet_rules
from flaxgen.weights.unet_condition_config import DEFAULTS, condition_config_from_unet, unet_from_condition_config

KIND = "ControlNetModel"
HINT = Table(
    KIND,
    (
        Field("conditioning_channels", 3, COUNT, "hint_channels"),
        Field("conditioning_embedding_out_channels", (16, 32, 96, 256), several(COUNT), "hint_widths"),
        Field("controlnet_conditioning_channel_order", "rgb", only("rgb")),
        Field("global_pool_conditions", False, only(False)),
        Field("layers_per_block", 2, COUNT),
        Field("mid_block_type", "UNetMidBlock2DCrossAttn", only("UNetMidBlock2DCrossAttn")),
    ),
    open=True,
)
"""What is no UNet2DConditionModel's, and two fields that may be more things there."""
OF_UNETS = frozenset(
    {
        "sample_size",
        "out_channels",
        "center_input_sample",
        "up_block_types",
        "dropout",
        "dual_cross_attention",
        "reverse_transformer_layers_per_block",
        "resnet_skip_time_act",
        "resnet_out_scale_factor",
        "time_embedding_type",
        "time_embedding_dim",
        "time_embedding_act_fn",
        "timestep_post_act",
        "time_cond_proj_dim",
        "conv_in_kernel",
        "conv_out_kernel",
        "attention_type",
        "class_embeddings_concat",
        "mid_block_only_cross_attention",
        "cross_attention_norm",
    }
)
"""The keys of a UNet2DConditionModel that a ControlNetModel does not have."""
OWN = under(
    [
        ("controlnet_cond_embedding.conv_in", "hint/conv_in"),
        ("controlnet_cond_embedding.blocks.{i}", "hint/conv_{i}"),
        ("controlnet_cond_embedding.conv_out", "hint/conv_out"),
        ("controlnet_down_blocks.{i}", "zero_{i}"),
        ("controlnet_mid_block", "zero_middle"),
    ],
    CONVOLUTION,
)


def rules_of(net: ControlNet) -> tuple[Rule, ...]:
    """The table of a net: its UNet's, and the convolutions of the hint and of what it passes."""
    return (*unet_rules(net.unet), *OWN)


def import_controlnet(
    folder: str | Path, variant: str | None = None, keep_dtype: bool = False
) -> tuple[ControlNet, dict[str, Any]]:
    """The net and its parameters (numpy, float32, or with `keep_dtype` as they are) from the folder of a
    ControlNetModel. A `variant` is such as "fp16".

    Raises:
        ValueError: naming what is not supported, or the tensor that is missing, extra, wrongly shaped or not finite.
        FileNotFoundError: if config.json or the safetensors are not there.
    """
    folder = Path(folder)
    net = controlnet_from_config(store.read_json(folder / "config.json"))
    tensors = store.open_folder(folder, STEM, variant)
    return net, import_params(rules_of(net), tensors, abstract_params(net), str(folder), keep_dtype)


def export_controlnet(net: ControlNet, params: Params, folder: str | Path) -> None:
    """Writes a folder that `ControlNetModel.from_pretrained` reads; the inverse of `import_controlnet`, bit for bit.

    Raises:
        ValueError: naming a field that no ControlNetModel has, or a tensor that is not the net's.
    """
    config = config_from_controlnet(net)
    write_folder(Path(folder), STEM, config, export_params(rules_of(net), params, abstract_params(net)))


def abstract_params(net: ControlNet) -> Params:
    """The shapes and dtypes of the parameters, as ShapeDtypeStructs."""
    return programs.shapes(functools.partial(init_params, net))


def init_params(net: ControlNet, key: PRNGKey) -> Params:
    """Fresh parameters, with which the net adds nothing."""
    unet = net.unet
    size = 2 ** (len(unet.multipliers) - 1)
    x = jnp.zeros((1, size, size, unet.in_channels))
    hint = jnp.zeros((1, net.factor * size, net.factor * size, net.hint_channels))
    conditions: dict[str, Any] = {
        "label": jnp.zeros(1, jnp.int32) if unet.num_classes else None,
        "tokens": jnp.zeros((1, 1, unet.token_dim)) if unet.token_dim else None,
        "vector": jnp.zeros((1, unet.vector_dim)) if unet.vector_dim else None,
    }
    return net.init(key, x, jnp.ones(1), hint, **conditions)["params"]


def controlnet_from_config(config: Mapping[str, Any]) -> ControlNet:
    """The net that a ControlNetModel's config describes. How large its UNet's latents are it does not say, which here
    is an `image_size` of 0.

    Raises:
        ValueError: naming a key or a value that a `ControlNet` has no field for.
    """
    hint = HINT.read(config)
    shared = DEFAULTS.keys() - OF_UNETS
    unknown = sorted(config.keys() - shared - {field.key for field in HINT.fields})
    if strange := [key for key in unknown if not key.startswith("_")]:
        raise ValueError(f"config.json: a {KIND} has no {strange[0]!r}")
    if (kind := config.get("class_embed_type")) is not None:
        raise ValueError(f"config.json: class_embed_type={kind!r} of a {KIND} is not supported, only None")
    plain = {key: value for key, value in config.items() if key in shared}
    blocks = config.get("down_block_types", DEFAULTS["down_block_types"])
    if not isinstance(blocks, list | tuple):
        raise ValueError(f"config.json: down_block_types={blocks!r}, expected a list of blocks")
    mirrored = [str(block).replace("Down", "Up") for block in reversed(blocks)]
    channels = config.get("in_channels", DEFAULTS["in_channels"])
    more = {"sample_size": 0, "up_block_types": mirrored, "out_channels": channels}
    return ControlNet(unet_from_condition_config(plain | more), **hint)


def config_from_controlnet(net: ControlNet) -> dict[str, Any]:
    """The config of the ControlNetModel that computes the same.

    Raises:
        ValueError: naming a field that no ControlNetModel has.
    """
    unet = condition_config_from_unet(net.unet)
    hint = HINT.write({"hint_channels": net.hint_channels, "hint_widths": net.hint_widths})
    described = {**hint, **{key: value for key, value in unet.items() if key not in OF_UNETS}, "_class_name": KIND}
    HINT.read(described)
    return described
