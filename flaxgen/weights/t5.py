"""Folders of transformers' T5EncoderModel, of version 1.1 [Raffel20; Shazeer20], <-> `T5Encoder` and its parameters."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from flaxgen import programs
from flaxgen.nets.t5 import T5Encoder
from flaxgen.types import Params, PRNGKey
from flaxgen.weights import store
from flaxgen.weights.clip import STEM
from flaxgen.weights.convert import export_params, import_params, write_folder
from flaxgen.weights.fields import COUNT, POSITIVE, Field, Table, only
from flaxgen.weights.lazy import Lazy
from flaxgen.weights.rules import LINEAR, Rule, under

ATTENTION, MLP = "layer.0.SelfAttention", "layer.1.DenseReluDense"
NAMES = {
    f"{ATTENTION}.q": "query",
    f"{ATTENTION}.k": "key",
    f"{ATTENTION}.v": "value",
    f"{ATTENTION}.o": "out",
    f"{MLP}.wi_0": "mlp_gate",
    f"{MLP}.wi_1": "mlp_1",
    f"{MLP}.wo": "mlp_2",
}
BLOCK = (
    *(Rule(f"{tensor}.weight", f"{param}/kernel", LINEAR) for tensor, param in NAMES.items()),
    *(Rule(f"layer.{i}.layer_norm.weight", f"norm_{i + 1}/scale") for i in (0, 1)),
)
RULES = (
    Rule("shared.weight", "tokens/embedding"),
    Rule(f"encoder.block.0.{ATTENTION}.relative_attention_bias.weight", "places"),
    *under([("encoder.block.{i}", "block_{i}")], BLOCK),
    Rule("encoder.final_layer_norm.weight", "norm_out/scale"),
)
TIED = "encoder.embed_tokens.weight"
"""The table of tokens again, in some files."""
CONFIG = Table(
    "T5EncoderModel",
    (
        Field("model_type", "t5", only("t5")),
        Field("feed_forward_proj", "relu", only("gated-gelu")),
        Field("vocab_size", 32128, COUNT, "vocab_size"),
        Field("d_model", 512, COUNT, "width"),
        Field("d_kv", 64, COUNT, "head_width"),
        Field("d_ff", 2048, COUNT, "mlp_width"),
        Field("num_layers", 6, COUNT, "depth"),
        Field("num_heads", 8, COUNT, "heads"),
        Field("relative_attention_num_buckets", 32, COUNT, "buckets"),
        Field("relative_attention_max_distance", 128, COUNT, "distance"),
        Field("layer_norm_epsilon", 1e-6, POSITIVE, "norm_eps"),
    ),
    class_key="",
    open=True,
)
"""What else stands in such configs is about a decoder, training or generation."""


def import_t5(
    folder: str | Path, variant: str | None = None, keep_dtype: bool = False
) -> tuple[T5Encoder, dict[str, Any]]:
    """The net and its parameters (numpy, float32, or with `keep_dtype` as they are) from a transformers folder.

    Raises:
        ValueError: naming what is not supported, or the tensor that is missing, extra, wrongly shaped or not finite.
        FileNotFoundError: if config.json or the safetensors are not there.
    """
    folder = Path(folder)
    net = t5_from_config(store.read_json(folder / "config.json"))
    tensors = _untied(store.open_folder(folder, STEM, variant), str(folder))
    return net, import_params(RULES, tensors, abstract_params(net), str(folder), keep_dtype)


def _untied(tensors: Lazy, where: str) -> Lazy:
    if TIED not in tensors or "shared.weight" not in tensors:
        return tensors.renamed(lambda name: "shared.weight" if name == TIED else name)
    if not np.array_equal(tensors[TIED], tensors["shared.weight"]):
        raise ValueError(f"{where}: tensor {TIED!r} is not 'shared.weight': not supported")
    return tensors.without([TIED])


def export_t5(net: T5Encoder, params: Params, folder: str | Path) -> None:
    """Writes a folder that `T5EncoderModel.from_pretrained` reads; the inverse of `import_t5`, bit for bit.

    Raises:
        ValueError: naming a tensor that is not the net's.
    """
    config = CONFIG.write({field.ours: getattr(net, field.ours) for field in CONFIG.fields if field.ours})
    known = {"architectures": [CONFIG.name], "is_encoder_decoder": False, "pad_token_id": 0, "eos_token_id": 1}
    kinds = {"model_type": "t5", "feed_forward_proj": "gated-gelu"}
    tensors = export_params(RULES, params, abstract_params(net))
    write_folder(Path(folder), STEM, config | kinds | known, tensors)


def t5_from_config(config: Mapping[str, Any]) -> T5Encoder:
    """The net that a T5's config describes.

    Raises:
        ValueError: naming a value that a `T5Encoder` has no field for.
    """
    return T5Encoder(**CONFIG.read(config))


def abstract_params(net: T5Encoder) -> Params:
    """The shapes and dtypes of the parameters, as ShapeDtypeStructs."""
    return programs.shapes(functools.partial(_init, net))["params"]


def _init(net: T5Encoder, key: PRNGKey) -> Params:
    return net.init(key, jnp.zeros((1, 1), jnp.int32))
