"""Folders of transformers' CLIPModel, and of its towers alone, with projection or without, <-> `CLIP` and its
parameters."""

import functools
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from flaxgen import programs
from flaxgen.nets.clip import CLIP
from flaxgen.types import Params, PRNGKey
from flaxgen.weights import store
from flaxgen.weights.clip_config import (
    PREPROCESSOR,
    Pixels,
    clip_from_config,
    config_from_clip,
    pixels_config,
    read_pixels,
)
from flaxgen.weights.convert import export_params, import_params, write_folder
from flaxgen.weights.layouts import CONV, LINEAR
from flaxgen.weights.lazy import Lazy
from flaxgen.weights.rules import Rule, under
from flaxgen.weights.unet2d import DENSE, NORM

STEM = "model"
BLOCK = (
    *under([("layer_norm1", "norm_1"), ("layer_norm2", "norm_2")], NORM),
    *under(
        [
            ("self_attn.q_proj", "attention/query"),
            ("self_attn.k_proj", "attention/key"),
            ("self_attn.v_proj", "attention/value"),
            ("self_attn.out_proj", "attention/out"),
            ("mlp.fc1", "mlp_1"),
            ("mlp.fc2", "mlp_2"),
        ],
        DENSE,
    ),
)
RULES = (
    Rule("logit_scale", "logit_scale"),
    Rule("visual_projection.weight", "image_projection/kernel", LINEAR),
    Rule("text_projection.weight", "text_projection/kernel", LINEAR),
    Rule("vision_model.embeddings.class_embedding", "vision/class_token"),
    Rule("vision_model.embeddings.patch_embedding.weight", "vision/patches/kernel", CONV),
    Rule("vision_model.embeddings.position_embedding.weight", "vision/positions"),
    Rule("text_model.embeddings.token_embedding.weight", "text/tokens/embedding"),
    Rule("text_model.embeddings.position_embedding.weight", "text/positions"),
    *under(
        [
            ("vision_model.pre_layrnorm", "vision/norm_in"),
            ("vision_model.post_layernorm", "vision/norm_out"),
            ("text_model.final_layer_norm", "text/norm_out"),
        ],
        NORM,
    ),
    *under(
        [
            ("vision_model.encoder.layers.{i}", "vision/transformer/block_{i}"),
            ("text_model.encoder.layers.{i}", "text/transformer/block_{i}"),
        ],
        BLOCK,
    ),
)
PROJECTIONS = ("visual_projection.weight", "text_projection.weight")
POSITION_IDS = tuple(f"{tower}_model.embeddings.position_ids" for tower in ("text", "vision"))
"""0, 1, 2 ...: what older versions of transformers saved beside the parameters."""


def import_clip(
    folder: str | Path, variant: str | None = None, keep_dtype: bool = False
) -> tuple[CLIP, dict[str, Any]]:
    """The net and its parameters (numpy, float32, or with `keep_dtype` as they are) from a transformers folder; of one
    tower, the other is None. A `variant` of the weights is such as "fp16".

    Raises:
        ValueError: naming what is not supported, or the tensor that is missing, extra, wrongly shaped or not finite.
        FileNotFoundError: if config.json or the safetensors are not there.
    """
    folder = Path(folder)
    net = clip_from_config(store.read_json(folder / "config.json"))
    if net.vision is not None:
        pixels = read_pixels(folder, net.vision.image_size)
        net = net.clone(mean=pixels.mean, std=pixels.std)
    tensors = _prefixed(store.open_folder(folder, STEM, variant), net)
    tensors = _without_position_ids(tensors, str(folder))
    return net, import_params(RULES, tensors, abstract_params(net), str(folder), keep_dtype)


def _prefixed(tensors: Lazy, net: CLIP) -> Lazy:
    """A tower's tensors as older versions of transformers call them: version 5 leaves the tower's name out where there
    is one tower and no projection."""
    prefix = "vision_model." if net.text is None else "text_model."
    bare = (net.text is None or net.vision is None) and not any(name.startswith(prefix) for name in tensors)
    return tensors.renamed(lambda name: name if name in PROJECTIONS else prefix + name) if bare else tensors


def _without_position_ids(tensors: Lazy, where: str) -> Lazy:
    for name in (name for name in POSITION_IDS if name in tensors):
        ids = tensors[name].ravel()
        if not np.array_equal(ids, np.arange(ids.size)):
            raise ValueError(f"{where}: tensor {name!r} is not 0, 1, 2 ...: not supported")
    return tensors.without(POSITION_IDS)


def abstract_params(net: CLIP) -> Params:
    """The shapes and dtypes of a CLIP's parameters, as ShapeDtypeStructs; one tower's, where it has one."""
    return programs.shapes(functools.partial(_init, net))["params"]


def _init(net: CLIP, key: PRNGKey) -> Params:
    size = 1 if net.vision is None else net.vision.image_size
    images, ids = jnp.zeros((1, size, size, 3)), jnp.zeros((1, 1), jnp.int32)
    inputs: tuple[Any, ...] = (images, ids, ids == 0)
    method = "__call__"
    if net.vision is None or net.text is None:
        inputs, method = (inputs[1:], "encode_text") if net.vision is None else (inputs[:1], "encode_image")
    return net.init(key, *inputs, method=method)


def export_clip(
    net: CLIP, params: Params, folder: str | Path, end_id: int | None = None, pixels: Pixels | None = None
) -> None:
    """Writes a folder that transformers' CLIPModel, or the one tower's class, reads; `import_clip`'s inverse, bit for
    bit.

    `end_id` is a caption's last token (`Tokenizer.end_id`); None is the last id, as in CLIP's own vocabulary. `pixels`
    says how pictures come to the tower's size; mean and deviation are the net's.

    Raises:
        ValueError: naming a field that no CLIPModel has, or a tensor that is not the net's.
    """
    folder, config = Path(folder), config_from_clip(net, end_id)
    write_folder(folder, STEM, config, export_params(RULES, params, abstract_params(net)))
    if net.vision is not None:
        pixels = (pixels or Pixels())._replace(mean=net.mean, std=net.std)
        store.write_json(folder / PREPROCESSOR, pixels_config(pixels, net.vision.image_size))


def import_towers(text_folder: str | Path, vision_folder: str | Path) -> tuple[CLIP, dict[str, Any]]:
    """One CLIP of a text tower's folder and a vision tower's, both with projections, as unCLIP pipelines keep them.

    Towers alone have no logit scale: it is that of a CLIP before training.

    Raises:
        ValueError: as `import_clip`, or if a folder has another tower, or they embed in different spaces.
        FileNotFoundError: if config.json or the safetensors are not there.
    """
    text, text_params = import_clip(text_folder)
    vision, vision_params = import_clip(vision_folder)
    if text.text is None or text.vision is not None:
        raise ValueError(f"{text_folder} is not a text tower alone")
    if vision.vision is None or vision.text is not None:
        raise ValueError(f"{vision_folder} is not a vision tower alone")
    for one, where in ((text, text_folder), (vision, vision_folder)):
        if not one.projected:
            raise ValueError(f"{where} is a tower without projection: expected one that embeds in a common space")
    if text.embedding_dim != vision.embedding_dim:
        raise ValueError(
            f"{text_folder} embeds in {text.embedding_dim} dimensions, {vision_folder} in {vision.embedding_dim}: "
            "these are towers of different CLIPs"
        )
    net = vision.clone(text=text.text)
    return net, {**text_params, **vision_params, "logit_scale": np.asarray(net.logit_scale_init, np.float32)}


def export_towers(
    net: CLIP,
    params: Params,
    text_folder: str | Path,
    vision_folder: str | Path,
    end_id: int | None = None,
    pixels: Pixels | None = None,
) -> None:
    """The inverse of `import_towers`; the logit scale is left out. See `export_clip`.

    Raises:
        ValueError: as `export_clip`, or if a tower is missing.
    """
    if net.text is None or net.vision is None:
        raise ValueError("this CLIP has one tower: write it with export_clip")
    if not net.projected:
        raise ValueError("this CLIP has no projections (projected=False): its towers have no common space")
    store.check_names(params, abstract_params(net), "the parameters to export")
    for folder, one, names in (
        (text_folder, net.clone(vision=None), ("text", "text_projection")),
        (vision_folder, net.clone(text=None), ("vision", "image_projection")),
    ):
        export_clip(one, {name: params[name] for name in names}, folder, end_id, pixels)
