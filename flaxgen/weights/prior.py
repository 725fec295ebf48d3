"""Folders of diffusers' PriorTransformer (Karlo, Kandinsky 2) <-> `DiffusionPrior` and its parameters."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from flaxgen.nets.prior import EXTRA, DiffusionPrior
from flaxgen.types import Params
from flaxgen.weights import store
from flaxgen.weights.rules import LINEAR, Layout, Rule, from_params, tensor_name, to_params, under

STEM = "diffusion_pytorch_model"


def _leading(ones: int, ndim: int) -> Layout:
    """[1, .., 1, n, ..] <-> [n, ..]; a tensor that does not start with ones stays, and does not fit the net."""
    start = (1,) * ones
    return Layout(
        lambda x: x.reshape(x.shape[ones:]) if x.shape[:ones] == start else x,
        lambda x: x.reshape(start + x.shape),
        ndim,
    )


NORM = (Rule("weight", "scale"), Rule("bias", "bias"))
DENSE = (Rule("weight", "kernel", LINEAR), Rule("bias", "bias"))
BLOCK = (
    *under([("norm1", "norm_1"), ("norm3", "norm_2")], NORM),
    *under([("attn1.to_q", "attention/query"), ("attn1.to_k", "attention/key")], DENSE),
    *under([("attn1.to_v", "attention/value"), ("attn1.to_out.0", "attention/out")], DENSE),
    *under([("ff.net.0.proj", "mlp_1"), ("ff.net.2", "mlp_2")], DENSE),
)
RULES = (
    Rule("positional_embedding", "net/positions", _leading(1, 3)),
    Rule("prd_embedding", "net/prediction", _leading(2, 3)),
    *under([("time_embedding.linear_1", "net/condition/time_1")], DENSE),
    *under([("time_embedding.linear_2", "net/condition/time_2")], DENSE),
    *under([("proj_in", "net/x_in"), ("embedding_proj", "net/text_embedding_in")], DENSE),
    *under([("encoder_hidden_states_proj", "net/text_in"), ("proj_to_clip_embeddings", "net/out")], DENSE),
    *under([("transformer_blocks.{i}", "net/transformer/block_{i}")], BLOCK),
    *under([("norm_out", "net/norm_out")], NORM),
    Rule("clip_mean", "statistics/mean", _leading(1, 2)),
    Rule("clip_std", "statistics/std", _leading(1, 2)),
)
DEFAULTS: Mapping[str, Any] = {
    "num_attention_heads": 32,
    "attention_head_dim": 64,
    "num_layers": 20,
    "embedding_dim": 768,
    "num_embeddings": 77,
    "additional_embeddings": EXTRA,
    "dropout": 0.0,
    "time_embed_act_fn": "silu",
    "norm_in_type": None,
    "embedding_proj_norm_type": None,
    "encoder_hid_proj_type": "linear",
    "added_emb_type": "prd",
    "time_embed_dim": None,
    "embedding_proj_dim": None,
    "clip_embed_dim": None,
}
"""What a key that config.json leaves out means."""
SIZES = ("num_attention_heads", "attention_head_dim", "num_layers", "embedding_dim", "num_embeddings")


def import_prior(folder: str | Path) -> tuple[DiffusionPrior, dict[str, Any]]:
    """The net and {"net": parameters, "statistics": {"mean", "std"}} (numpy, float32) from a diffusers folder: its own,
    or a pipeline's with `prior/` in it.

    Raises:
        ValueError: naming what is not supported, or the tensor that is missing, extra, wrongly shaped or not finite.
        FileNotFoundError: if config.json or the safetensors are not there.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file() and (folder / "prior" / "config.json").is_file():
        folder = folder / "prior"
    net = prior_from_config(store.read_json(folder / "config.json"))
    params = to_params(RULES, store.read_folder(folder, STEM))
    return net, store.fit(params, abstract_params(net), str(folder), lambda path: tensor_name(RULES, path))


def export_prior(net: DiffusionPrior, params: Params, folder: str | Path) -> None:
    """Writes a folder that `PriorTransformer.from_pretrained` reads; the inverse of `import_prior`, bit for bit.

    Raises:
        ValueError: naming a field that no PriorTransformer has, or a tensor that is not the net's.
    """
    folder, config = Path(folder), config_from_prior(net)
    flat = store.flatten(store.fit(store.flatten(params), abstract_params(net), "the parameters to export"))
    folder.mkdir(parents=True, exist_ok=True)
    store.write_file(folder / f"{STEM}.safetensors", from_params(RULES, flat))
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")


def abstract_params(net: DiffusionPrior) -> Params:
    """The shapes and dtypes of a prior's parameters and of its whitening, as ShapeDtypeStructs."""
    embedding, hidden = jnp.zeros((1, net.embedding_dim)), jnp.zeros((1, net.context, net.text_dim))
    mask, statistic = jnp.ones((1, net.context), bool), jax.ShapeDtypeStruct((net.embedding_dim,), jnp.float32)
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), embedding, jnp.ones(1), embedding, hidden, mask))
    return {"net": shapes["params"], "statistics": {"mean": statistic, "std": statistic}}


def prior_from_config(config: Mapping[str, Any]) -> DiffusionPrior:
    """The net that a PriorTransformer's config describes.

    Raises:
        ValueError: naming a key or a value that a `DiffusionPrior` has no field for.
    """
    name = config.get("_class_name", "PriorTransformer")
    if name != "PriorTransformer":
        raise ValueError(f"config.json is of a {name}, expected a PriorTransformer")
    given = {key: value for key, value in config.items() if not key.startswith("_")}
    if unknown := sorted(set(given) - set(DEFAULTS)):
        raise ValueError(f"config.json: a PriorTransformer has no {unknown[0]!r}")
    c = {**DEFAULTS, **given}
    for key in SIZES:
        if type(c[key]) is not int or c[key] < 1:
            raise ValueError(f"config.json: {key}={c[key]!r}, expected a whole number from 1 up")
    width = c["num_attention_heads"] * c["attention_head_dim"]
    same = {"time_embed_dim": width, "embedding_proj_dim": c["embedding_dim"], "clip_embed_dim": c["embedding_dim"]}
    for key in (key for key in DEFAULTS if key not in SIZES):
        supported = (DEFAULTS[key], same[key]) if key in same else (DEFAULTS[key],)
        if c[key] not in supported:
            raise ValueError(
                f"config.json: {key}={c[key]!r} is not supported, only {' or '.join(map(repr, supported))}"
            )
    return DiffusionPrior(
        embedding_dim=c["embedding_dim"],
        text_dim=c["embedding_dim"],
        context=c["num_embeddings"],
        width=width,
        depth=c["num_layers"],
        heads=c["num_attention_heads"],
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
    return {
        **DEFAULTS,
        "_class_name": "PriorTransformer",
        "num_attention_heads": net.heads,
        "attention_head_dim": net.width // net.heads,
        "num_layers": net.depth,
        "embedding_dim": net.embedding_dim,
        "num_embeddings": net.context,
    }
