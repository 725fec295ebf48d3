"""Folders of diffusers' AutoencoderKL, VQModel and AutoencoderTiny <-> `Autoencoder` and `TinyAutoencoder`, their
parameters, and what the config says of latents."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from flaxgen import programs
from flaxgen.nets.dalle_vae import DalleVae
from flaxgen.nets.tiny_autoencoder import TinyAutoencoder
from flaxgen.types import Params, PRNGKey
from flaxgen.weights import store, unet2d
from flaxgen.weights.autoencoder_config import Latents, Net, autoencoder_from_config, config_from_autoencoder
from flaxgen.weights.convert import export_params, find_part, import_params, write_folder
from flaxgen.weights.generate import generate_rules, module_namer
from flaxgen.weights.rules import Rule, under
from flaxgen.weights.unet2d import CONVOLUTION, NORM, STEM, current_name

PIPELINE_FOLDERS = ("vae", "movq", "vqvae")
"""Where pipelines keep their autoencoder."""
SPATIAL = (
    *under([("norm_layer", "norm")], NORM),
    *under([("conv_y", "scale"), ("conv_b", "shift")], CONVOLUTION),
)
BLOCK_PLACES = (("down_blocks.{i}", "down_{i}"), ("mid_block", "middle"), ("up_blocks.{i}", "up_{i}"))
SPATIAL_NORMS = (
    *(
        (f"{tensor}.resnets.{{j}}.norm{n}", f"{param}_resblock_{{j}}/norm_{n}")
        for tensor, param in BLOCK_PLACES
        for n in (1, 2)
    ),
    *((f"{tensor}.spatial_norm", f"{param}/norm") for tensor, param in unet2d.ATTENTION_PLACES),
    ("conv_norm_out", "norm_out"),
)
CODEBOOK = Rule("quantize.embedding.weight", "codebook")
RULES = (
    *under([("encoder", "encoder"), ("decoder", "decoder")], (*unet2d.RULES, *under(SPATIAL_NORMS, SPATIAL))),
    *under([("quant_conv", "encoder/quant_conv"), ("post_quant_conv", "decoder/post_quant_conv")], CONVOLUTION),
    CODEBOOK,
)


class Imported(NamedTuple):
    """What a folder holds: the net, its parameters {"encoder", "decoder"} and of a VQModel "codebook" [K D] (numpy),
    and what its config says of latents."""

    net: Net
    params: dict[str, Any]
    latents: Latents


def import_autoencoder(folder: str | Path, variant: str | None = None, keep_dtype: bool = False) -> Imported:
    """The autoencoder in a diffusers folder: its own, or a pipeline's with one of PIPELINE_FOLDERS in it.

    Parameters are float32, or with `keep_dtype` as they are; a `variant` is such as "fp16". Attention may have the
    names of diffusers before 0.14.

    Raises:
        ValueError: naming what is not supported, or the tensor that is missing, extra, wrongly shaped or not finite.
        FileNotFoundError: if config.json or the safetensors are not there.
    """
    folder = find_part(folder, *PIPELINE_FOLDERS)
    net, latents, codes = autoencoder_from_config(store.read_json(folder / "config.json"))
    tensors = store.open_folder(folder, STEM, variant).renamed(current_name)
    like = abstract_params(net, codes)
    return Imported(net, import_params(_rules(net), tensors, like, str(folder), keep_dtype), latents)


def export_autoencoder(net: Net, params: Params, latents: Latents, folder: str | Path) -> None:
    """Writes a folder that diffusers' class reads: an AutoencoderTiny, where `params` has a "codebook" a VQModel, else
    an AutoencoderKL. The inverse of `import_autoencoder`, bit for bit.

    Raises:
        ValueError: naming a field that the class does not have, or a tensor that is not the net's.
    """
    codes = count_codes(params)
    config = config_from_autoencoder(net, latents, codes)
    write_folder(Path(folder), STEM, config, export_params(_rules(net), params, abstract_params(net, codes)))


def count_codes(params: Params) -> int:
    """The rows of the codebook, 0 where there is none; ValueError if it is no matrix."""
    if "codebook" not in params:
        return 0
    if len(shape := params["codebook"].shape) != 2:
        raise ValueError(f"the codebook has shape {shape}, expected [codes, channels]")
    return shape[0]


def abstract_params(net: Net | DalleVae, codes: int = 0) -> Params:
    """The shapes and dtypes of an autoencoder's parameters, and of a codebook of so many rows, as ShapeDtypeStructs."""
    shapes = programs.shapes(functools.partial(_init, net))["params"]
    codebook = {"codebook": jax.ShapeDtypeStruct((codes, net.latent_dim), jnp.float32)} if codes else {}
    return shapes | codebook


def _init(net: Net | DalleVae, key: PRNGKey) -> Params:
    return net.init(key, jnp.zeros((1, net.factor, net.factor, net.in_channels)))


def _rules(net: Net) -> Sequence[Rule]:
    if isinstance(net, TinyAutoencoder):
        return generate_rules(abstract_params(net), module_namer(_tiny_names(net)))
    return RULES


def _tiny_names(net: TinyAutoencoder) -> dict[str, str]:
    """What diffusers calls the modules: it numbers all layers of a part, those without parameters too."""
    names: dict[str, str] = {}
    for part, depths in (("encoder", net.encoder_depth), ("decoder", net.decoder_depth)):
        order: list[str | None] = ["conv_in", None] if part == "decoder" else ["conv_in"]
        for i, depth in enumerate(depths):
            resample = f"level_{i}_resample"
            order += [resample] if part == "encoder" and i > 0 else []
            order += [f"level_{i}_block_{j}" for j in range(depth)]
            order += [None, resample] if part == "decoder" and i < len(depths) - 1 else []
        for place, module in enumerate([*order, "conv_out"]):
            if module is not None:
                names[f"{part}/{module}"] = f"{part}.layers.{place}"
    return names | {f"conv_{k + 1}": f"conv.{2 * k}" for k in range(3)}
