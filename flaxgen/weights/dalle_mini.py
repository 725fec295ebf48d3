"""Folders of dalle-mini's DalleBart (dalle-mini, dalle-mega) <-> `DalleMini` and its parameters: config.json and
flax_model.msgpack.

Layers that were scanned over are one tensor each there, with the layers in front; files of layers one by one are read
too, and are written scanned. The tokenizer and the VQGAN are models of their own.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from flaxgen import programs
from flaxgen.nets.dalle_mini import DalleMini
from flaxgen.types import Params, PRNGKey
from flaxgen.weights import store
from flaxgen.weights.convert import export_params, import_params
from flaxgen.weights.fields import COUNT, FLAG, NUMBER, Field, Kind, Table, check_supported, choice, only, optional
from flaxgen.weights.flax_msgpack import read_msgpack, write_msgpack
from flaxgen.weights.layouts import SAME, SCANNED, squeeze
from flaxgen.weights.rules import Rule

FILE = "flax_model.msgpack"
HEADER = 1024
"""Bytes that names, shape and dtype of a tensor take at most, far more than they do."""
TOKEN = Kind("a whole number from 0 to 2147483647", lambda value: type(value) is int and 0 <= value < 2**31)
LAYERS = Kind("a whole number from 1 to 1000", lambda value: type(value) is int and 0 < value <= 1000)
ACTIVATION = choice({"gelu": "gelu", "gelu_new": "gelu_new", "silu": "silu", "swish": "silu"})
CONFIG = Table(
    "dallebart",
    (
        Field("encoder_vocab_size", 50_264, COUNT, "text_tokens"),
        Field("max_text_length", 64, COUNT, "context"),
        Field("image_vocab_size", 16_384, COUNT, "codes"),
        Field("image_length", 256, COUNT, "length"),
        Field("decoder_start_token_id", None, optional(TOKEN), "begin"),
        Field("d_model", 1024, COUNT, "width"),
        Field("encoder_layers", 12, LAYERS, "depth"),
        Field("decoder_layers", 12, LAYERS, "decoder_depth"),
        Field("encoder_attention_heads", 16, COUNT, "heads"),
        Field("decoder_attention_heads", 16, COUNT, "decoder_heads"),
        Field("encoder_ffn_dim", 4096, COUNT, "inner"),
        Field("decoder_ffn_dim", 4096, COUNT, "decoder_inner"),
        Field("activation_function", "gelu", ACTIVATION, "activation"),
        Field("scale_embedding", False, FLAG, "scale_embedding"),
        Field("ln_type", "layernorm", only("layernorm")),
        Field("ln_positions", "normformer", only("normformer")),
        Field("use_glu", True, only(True)),
        Field("use_bias", False, only(False)),
        Field("use_final_ln_encoder", True, only(True)),
        Field("use_final_ln_decoder", True, only(True)),
        Field("use_absolute_position_embeddings", True, only(True)),
        Field("use_swin_position_embeddings", False, only(False)),
        Field("use_head_scale", False, only(False)),
        Field("use_cosine_attention", False, only(False)),
        Field("use_deepnet_scaling", False, only(False)),
        Field("use_subln_init", False, only(False)),
        Field("use_alibi", False, only(False)),
        Field("sinkhorn_iters", 1, only(1)),
        Field("force_ln_scale", False, only(False)),
        Field("tie_word_embeddings", False, only(False)),
        Field("use_scan", True, optional(FLAG)),  # the names of the tensors say it
        Field("dropout", 0.0, NUMBER),  # matters to their training alone
    ),
    class_key="model_type",
    open=True,  # what transformers writes into every config changes nothing here
)
TWICE = ("depth", "heads", "inner")
"""What is a key for the encoder and one for the decoder there, and one field here."""
OURS = tuple(field.ours for field in CONFIG.fields if field.ours and not field.ours.startswith("decoder_"))
NORM = ("bias", "scale")
ATTENTION = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "out"}


def _block(cross: bool) -> dict[str, str]:
    """The names of a block's parameters there, and what they are called here."""
    names = {"LayerNorm_0/bias": "norm_in/bias"}
    names |= {f"LayerNorm_1/{leaf}": f"norm_out/{leaf}" for leaf in NORM}
    names |= {f"FlaxBartAttention_0/{there}/kernel": f"attention/{here}/kernel" for there, here in ATTENTION.items()}
    if cross:
        names |= {"LayerNorm_2/bias": "cross_norm_in/bias"}
        names |= {f"LayerNorm_3/{leaf}": f"cross_norm_out/{leaf}" for leaf in NORM}
        names |= {
            f"FlaxBartAttention_1/{there}/kernel": f"cross_attention/{here}/kernel" for there, here in ATTENTION.items()
        }
    names |= {"GLU_0/LayerNorm_0/bias": "mlp/norm_in/bias", "GLU_0/LayerNorm_1/bias": "mlp/norm_out/bias"}
    dense = ("gate", "value", "out")
    return names | {f"GLU_0/Dense_{i}/kernel": f"mlp/{name}/kernel" for i, name in enumerate(dense)}


def make_rules(depth: int, scanned: bool = True) -> tuple[Rule, ...]:
    """The names of all tensors of a model whose encoder and decoder have `depth` blocks each."""
    rules = [Rule("lm_head/kernel", "out/kernel")]
    for half in ("encoder", "decoder"):
        there = f"model/{half}"
        for table, name in (("embed_tokens", "token"), ("embed_positions", "position")):
            rules.append(Rule(f"{there}/{table}/embedding", f"{half}/{name}/embedding"))
        rules += [Rule(f"{there}/layernorm_embedding/{leaf}", f"{half}/norm_in/{leaf}") for leaf in NORM]
        rules.append(Rule(f"{there}/final_ln/bias", f"{half}/norm_out/bias"))
        layer = f"{there}/layers/FlaxBart{half.title()}Layer"
        for tensor, param in _block(half == "decoder").items():
            params = tuple(f"{half}/block_{i}/{param}" for i in range(depth))
            if not scanned:
                rules.append(Rule(f"{layer}_{{i}}/{tensor}", f"{half}/block_{{i}}/{param}"))
            elif depth == 1:
                ndim = 3 if param.endswith("kernel") else 2
                rules.append(Rule(f"{layer}s/{tensor}", params[0], squeeze((0,), ndim=ndim)))
            else:
                rules.append(Rule(f"{layer}s/{tensor}", params, SAME, SCANNED))
    return tuple(rules)


def import_dalle_mini(folder: str | Path, keep_dtype: bool = False) -> tuple[DalleMini, dict[str, Any]]:
    """The net and its parameters (numpy, float32, or with `keep_dtype` as they are) from a folder of config.json and
    flax_model.msgpack, which is in memory as a whole.

    Raises:
        ValueError: naming what is not supported, or the tensor that is missing, extra, wrongly shaped or not finite, or
            if the file is larger than the model that the config describes.
        FileNotFoundError: if a file is not there.
    """
    folder = Path(folder)
    net = dalle_mini_from_config(store.read_json(folder / "config.json"))
    like = abstract_params(net)
    most = sum(leaf.size * leaf.dtype.itemsize + HEADER for leaf in jax.tree.leaves(like))
    tensors = read_msgpack(folder / FILE, most)
    scanned = any("/FlaxBartEncoderLayers/" in name for name in tensors)
    return net, import_params(make_rules(net.depth, scanned), tensors, like, str(folder / FILE), keep_dtype)


def export_dalle_mini(net: DalleMini, params: Params, folder: str | Path) -> None:
    """Writes a folder that DalleBart reads; the inverse of `import_dalle_mini`, bit for bit.

    Raises:
        ValueError: naming a field that no DalleBart has, or a tensor that is not the net's, or not finite.
    """
    folder, config = Path(folder), config_from_dalle_mini(net)
    tensors = export_params(make_rules(net.depth), params, abstract_params(net))
    folder.mkdir(parents=True, exist_ok=True)
    write_msgpack(folder / FILE, tensors)
    store.write_json(folder / "config.json", config)


def abstract_params(net: DalleMini) -> Params:
    """The shapes and dtypes of a net's parameters, as ShapeDtypeStructs."""
    return programs.shapes(functools.partial(_init, net))["params"]


def _init(net: DalleMini, key: PRNGKey) -> Params:
    text = jnp.zeros((1, net.context), jnp.int32)
    return net.init(key, text, text == 0, jnp.zeros((1, net.length), jnp.int32))


def dalle_mini_from_config(config: Mapping[str, Any]) -> DalleMini:
    """The net that a DalleBart's config describes.

    Raises:
        ValueError: naming a key or a value that a `DalleMini` has no field for.
    """
    fields = CONFIG.read(config)
    for name in TWICE:
        check_supported(f"the decoder's {name}", fields.pop(f"decoder_{name}"), (fields[name],))
    if fields["begin"] is None:
        fields["begin"] = fields["codes"]
    return DalleMini(**fields)


def config_from_dalle_mini(net: DalleMini) -> dict[str, Any]:
    """The config of the DalleBart that computes the same.

    Raises:
        ValueError: naming a field that no DalleBart has.
    """
    fields = {name: getattr(net, name) for name in OURS} | {f"decoder_{name}": getattr(net, name) for name in TWICE}
    return CONFIG.write(fields)
