"""Folders of diffusers' PriorTransformer (Karlo, Kandinsky 2) <-> `DiffusionPrior` and its parameters."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from flaxgen import programs
from flaxgen.nets.prior import EXTRA, DiffusionPrior
from flaxgen.types import Params, PRNGKey
from flaxgen.weights import store
from flaxgen.weights.convert import export_params, find_part, import_params, write_folder
from flaxgen.weights.fields import COUNT, Field, Table, check_supported, only, optional
from flaxgen.weights.layouts import LINEAR, squeeze
from flaxgen.weights.rules import Rule, under

STEM = "diffusion_pytorch_model"
NORM = (Rule("weight", "scale"), Rule("bias", "bias"))
DENSE = (Rule("weight", "kernel", LINEAR), Rule("bias", "bias"))
BLOCK = (
    *under([("norm1", "norm_1"), ("norm3", "norm_2")], NORM),
    *under([("attn1.to_q", "attention/query"), ("attn1.to_k", "attention/key")], DENSE),
    *under([("attn1.to_v", "attention/value"), ("attn1.to_out.0", "attention/out")], DENSE),
    *under([("ff.net.0.proj", "mlp_1"), ("ff.net.2", "mlp_2")], DENSE),
)
RULES = (
    Rule("positional_embedding", "net/positions", squeeze((0,), ndim=3)),
    Rule("prd_embedding", "net/prediction", squeeze((0, 1), ndim=3)),
    *under([("time_embedding.linear_1", "net/condition/time_1")], DENSE),
    *under([("time_embedding.linear_2", "net/condition/time_2")], DENSE),
    *under([("proj_in", "net/x_in"), ("embedding_proj", "net/text_embedding_in")], DENSE),
    *under([("encoder_hidden_states_proj", "net/text_in"), ("proj_to_clip_embeddings", "net/out")], DENSE),
    *under([("transformer_blocks.{i}", "net/transformer/block_{i}")], BLOCK),
    *under([("norm_out", "net/norm_out")], NORM),
    Rule("clip_mean", "statistics/mean", squeeze((0,), ndim=2)),
    Rule("clip_std", "statistics/std", squeeze((0,), ndim=2)),
)
CONFIG = Table(
    "PriorTransformer",
    (
        Field("num_attention_heads", 32, COUNT, "heads"),
        Field("attention_head_dim", 64, COUNT, "head_width"),
        Field("num_layers", 20, COUNT, "depth"),
        Field("embedding_dim", 768, COUNT, "embedding_dim"),
        Field("num_embeddings", 77, COUNT, "context"),
        Field("additional_embeddings", EXTRA, only(EXTRA)),
        Field("dropout", 0.0, only(0.0)),
        Field("time_embed_act_fn", "silu", only("silu")),
        Field("norm_in_type", None, only(None)),
        Field("embedding_proj_norm_type", None, only(None)),
        Field("encoder_hid_proj_type", "linear", only("linear")),
        Field("added_emb_type", "prd", only("prd")),
        Field("time_embed_dim", None, optional(COUNT), "time_embed_dim"),
        Field("embedding_proj_dim", None, optional(COUNT), "embedding_proj_dim"),
        Field("clip_embed_dim", None, optional(COUNT), "clip_embed_dim"),
    ),
)


def import_prior(
    folder: str | Path, variant: str | None = None, keep_dtype: bool = False
) -> tuple[DiffusionPrior, dict[str, Any]]:
    """The net and {"net": parameters, "statistics": {"mean", "std"}} (numpy, float32, or with `keep_dtype` as they are)
    from a diffusers folder: its own, or a pipeline's with `prior/` in it. A `variant` is such as "fp16".

    Raises:
        ValueError: naming what is not supported, or the tensor that is missing, extra, wrongly shaped or not finite.
        FileNotFoundError: if config.json or the safetensors are not there.
    """
    folder = find_part(folder, "prior")
    net = prior_from_config(store.read_json(folder / "config.json"))
    tensors = store.open_folder(folder, STEM, variant)
    return net, import_params(RULES, tensors, abstract_params(net), str(folder), keep_dtype)


def export_prior(net: DiffusionPrior, params: Params, folder: str | Path) -> None:
    """Writes a folder that `PriorTransformer.from_pretrained` reads; the inverse of `import_prior`, bit for bit.

    Raises:
        ValueError: naming a field that no PriorTransformer has, or a tensor that is not the net's.
    """
    config = config_from_prior(net)
    write_folder(Path(folder), STEM, config, export_params(RULES, params, abstract_params(net)))


def abstract_params(net: DiffusionPrior) -> Params:
    """The shapes and dtypes of a prior's parameters and of its whitening, as ShapeDtypeStructs."""
    statistic = jax.ShapeDtypeStruct((net.embedding_dim,), jnp.float32)
    shapes = programs.shapes(functools.partial(_init, net))
    return {"net": shapes["params"], "statistics": {"mean": statistic, "std": statistic}}


def _init(net: DiffusionPrior, key: PRNGKey) -> Params:
    embedding, hidden = jnp.zeros((1, net.embedding_dim)), jnp.zeros((1, net.context, net.text_dim))
    mask = jnp.ones((1, net.context), bool)
    return net.init(key, embedding, jnp.ones(1), embedding, hidden, mask)


def prior_from_config(config: Mapping[str, Any]) -> DiffusionPrior:
    """The net that a PriorTransformer's config describes.

    Raises:
        ValueError: naming a key or a value that a `DiffusionPrior` has no field for.
    """
    c = CONFIG.read(config)
    width, embedding_dim = c["heads"] * c["head_width"], c["embedding_dim"]
    check_supported("time_embed_dim", c["time_embed_dim"], (None, width))
    for key in ("embedding_proj_dim", "clip_embed_dim"):
        check_supported(key, c[key], (None, embedding_dim))
    return DiffusionPrior(
        embedding_dim=embedding_dim,
        text_dim=embedding_dim,
        context=c["context"],
        width=width,
        depth=c["depth"],
        heads=c["heads"],
    )


def config_from_prior(net: DiffusionPrior) -> dict[str, Any]:
    """The config of the PriorTransformer that computes the same.

    Raises:
        ValueError: naming a field that no PriorTransformer has.
    """
    if net.text_dim != net.embedding_dim:
        raise ValueError(f"a prior of text_dim={net.text_dim}, not embedding_dim={net.embedding_dim}, is not exported")
    if net.activation != "gelu":
        raise ValueError(f"a prior with activation={net.activation!r} is not a PriorTransformer: not exported")
    return CONFIG.write(
        {
            "heads": net.heads,
            "head_width": net.width // net.heads,
            "depth": net.depth,
            "embedding_dim": net.embedding_dim,
            "context": net.context,
        }
    )
