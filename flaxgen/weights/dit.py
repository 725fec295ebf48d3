"""Folders of diffusers' DiTTransformer2DModel [Peebles23] <-> `DiT` and its parameters.

There every block keeps a copy of the one embedding of time and label; here it is kept once.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from flaxgen import programs
from flaxgen.nets.dit import DiT
from flaxgen.nets.mmdit import MMDiT
from flaxgen.types import Params, PRNGKey
from flaxgen.weights import store
from flaxgen.weights.convert import export_params, find_part, import_params, write_folder
from flaxgen.weights.fields import COUNT, FLAG, POSITIVE, Field, Table, only, optional
from flaxgen.weights.lazy import Lazy, Tensors
from flaxgen.weights.rules import Rule, under
from flaxgen.weights.unet2d import CONVOLUTION, DENSE, STEM

ATTENTION = under([("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "out")], DENSE)
FEED_FORWARD = [("ff.net.0.proj", "mlp_1"), ("ff.net.2", "mlp_2")]
BLOCK = (
    *under([("norm1.linear", "modulation/linear")], DENSE),
    *under([("attn1", "self_attention")], ATTENTION),
    *under(FEED_FORWARD, DENSE),
)
COPIED = ".norm1.emb."
PLACE = "transformer_blocks.{}" + COPIED
"""Where a block has its copy of the embedding."""
EMBEDDING = (
    *under([(f"timestep_embedder.linear_{i}", f"time_{i}") for i in (1, 2)], DENSE),
    Rule("class_embedder.embedding_table.weight", "label/embedding"),
)
RULES = (
    *under([("pos_embed.proj", "patches")], CONVOLUTION),
    *under([("transformer_blocks.0.norm1.emb", "condition")], EMBEDDING),
    *under([("transformer_blocks.{i}", "block_{i}")], BLOCK),
    *under([("proj_out_1", "head/modulation/linear"), ("proj_out_2", "head/out")], DENSE),
)
TIME_SHIFT = 1
"""Of the waves of time in diffusers; the authors' code has 0."""
CONFIG = Table(
    "DiTTransformer2DModel",
    (
        Field("num_attention_heads", 16, COUNT, "heads"),
        Field("attention_head_dim", 72, COUNT, "head_width"),
        Field("in_channels", 4, COUNT, "in_channels"),
        Field("out_channels", None, optional(COUNT), "out_channels"),
        Field("num_layers", 28, COUNT, "depth"),
        Field("dropout", 0.0, only(0.0)),
        Field("attention_bias", True, only(True)),
        Field("sample_size", 32, COUNT, "image_size"),
        Field("patch_size", 2, COUNT, "patch"),
        Field("activation_fn", "gelu-approximate", only("gelu-approximate")),
        Field("num_embeds_ada_norm", 1000, COUNT, "classes"),
        Field("upcast_attention", False, FLAG),
        Field("norm_type", "ada_norm_zero", only("ada_norm_zero")),
        Field("norm_elementwise_affine", False, only(False)),
        Field("norm_eps", 1e-5, POSITIVE, "mlp_norm_eps"),
        Field("norm_num_groups", 32, COUNT),
    ),
)
"""Softmax is float32 here whatever `upcast_attention` says, and there are no groups to be normalised."""
FORMER = "Transformer2DModel"
"""The class that was this one among others, until diffusers 0.29."""
UNUSED = {
    **dict.fromkeys(
        (
            "cross_attention_dim",
            "num_vector_embeds",
            "caption_channels",
            "interpolation_scale",
            "use_additional_conditions",
        )
    ),
    **dict.fromkeys(("only_cross_attention", "use_linear_projection", "double_self_attention"), False),
    "attention_type": "default",
}
"""Keys of that class which say nothing of a DiT, and their values there."""


def import_dit(folder: str | Path, variant: str | None = None, keep_dtype: bool = False) -> tuple[DiT, dict[str, Any]]:
    """The net and its parameters (numpy, float32, or with `keep_dtype` as they are) from a diffusers folder: its own,
    or a pipeline's with `transformer/` in it. A `variant` is such as "fp16".

    Raises:
        ValueError: naming what is not supported, the tensor that is missing, extra, wrongly shaped or not finite, or a
            block whose embedding of time and label is not that of the first.
        FileNotFoundError: if config.json or the safetensors are not there.
    """
    folder = find_part(folder, "transformer")
    net = dit_from_config(store.read_json(folder / "config.json"))
    tensors = without_copies(store.open_folder(folder, STEM, variant), net.depth, str(folder))
    return net, import_params(RULES, tensors, abstract_params(net), str(folder), keep_dtype)


def export_dit(net: DiT, params: Params, folder: str | Path) -> None:
    """Writes a folder that `DiTTransformer2DModel.from_pretrained` reads; the inverse of `import_dit`, bit for bit.

    Raises:
        ValueError: naming a field that no DiTTransformer2DModel has, or a tensor that is not the net's.
    """
    config = config_from_dit(net)
    tensors = export_params(RULES, params, abstract_params(net))
    write_folder(Path(folder), STEM, config, with_copies(tensors, net.depth))


def _copies(names: Tensors, depth: int) -> dict[str, str]:
    """Of every copy in the blocks behind the first, its name and that of the first block's."""
    ends = sorted({name.split(COPIED, 1)[1] for name in names if COPIED in name})
    return {PLACE.format(i) + end: PLACE.format(0) + end for end in ends for i in range(1, depth)}


def without_copies(tensors: Lazy, depth: int, where: str) -> Lazy:
    """The tensors with one embedding, the first block's.

    Raises:
        ValueError: naming a copy that is missing, or is not the same.
    """
    copies = _copies(tensors, depth)
    for copy, first in copies.items():
        if missing := [name for name in (first, copy) if name not in tensors]:
            raise ValueError(f"{where}: tensor {missing[0]!r} is missing, of which every block has a copy")
        if not np.array_equal(tensors[copy], tensors[first]):
            raise ValueError(
                f"{where}: tensor {copy!r} is not {first!r}: blocks that embed time and label each in a way of their "
                "own are no DiT's"
            )
    return tensors.without(copies)


def with_copies(tensors: Lazy, depth: int) -> Lazy:
    """The inverse of `without_copies`."""
    copies = _copies(tensors, depth)
    names = {name: name for name in tensors} | copies
    return Lazy({name: functools.partial(tensors.__getitem__, source) for name, source in names.items()})


def abstract_params(net: DiT | MMDiT) -> Params:
    """The shapes and dtypes of the parameters of a net of patches, as ShapeDtypeStructs."""
    return programs.shapes(functools.partial(_init, net))["params"]


def _init(net: DiT | MMDiT, key: PRNGKey) -> Params:
    x = jnp.zeros((1, net.patch, net.patch, net.in_channels))
    conditions: dict[str, Any] = {
        "label": jnp.zeros(1, jnp.int32) if net.num_classes else None,
        "tokens": jnp.zeros((1, 1, net.token_dim)) if net.token_dim else None,
        "vector": jnp.zeros((1, net.vector_dim)) if net.vector_dim else None,
    }
    return net.init(key, x, jnp.ones(1), **conditions)


def dit_from_config(config: Mapping[str, Any]) -> DiT:
    """The net that a DiTTransformer2DModel's config describes; twice as many channels out as in are a learned variance.

    Raises:
        ValueError: naming a key or a value that a `DiT` has no field for.
    """
    if config.get(CONFIG.class_key) == FORMER:
        kept = {key: value for key, value in config.items() if key not in UNUSED or value != UNUSED[key]}
        config = {**kept, CONFIG.class_key: CONFIG.name}
    c = CONFIG.read(config)
    classes = c.pop("classes")
    return DiT(**sizes_here(c), num_classes=classes + 1, time_shift=TIME_SHIFT)


def config_from_dit(net: DiT) -> dict[str, Any]:
    """The config of the DiTTransformer2DModel that computes the same.

    Raises:
        ValueError: naming a field that no DiTTransformer2DModel has.
    """
    for field, known in (("token_dim", 0), ("vector_dim", 0), ("time_shift", TIME_SHIFT)):
        if (value := getattr(net, field)) != known:
            raise ValueError(f"a DiT with {field}={value} is no DiTTransformer2DModel, expected {known}: not exported")
    if net.num_classes < 2:
        raise ValueError(
            f"a DiT with num_classes={net.num_classes} is no DiTTransformer2DModel, which has one class and the null "
            "label at least: not exported"
        )
    return CONFIG.write(sizes_there(net, CONFIG) | {"classes": net.num_classes - 1})


def sizes_here(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What a table has read, as a net has it: the width of all heads, and the variance among the channels out."""
    inside, outside = fields["in_channels"], fields["out_channels"] or fields["in_channels"]
    learned = outside == 2 * inside
    kept = {name: value for name, value in fields.items() if name != "head_width"}
    return kept | {
        "width": fields["heads"] * fields["head_width"],
        "out_channels": inside if learned else outside,
        "learned_variance": learned,
    }


def sizes_there(net: DiT | MMDiT, table: Table) -> dict[str, Any]:
    """The inverse of `sizes_here`."""
    same = {field.ours: getattr(net, field.ours) for field in table.fields if hasattr(net, field.ours)}
    outside = net.out_channels * (1 + net.learned_variance)
    return same | {"head_width": net.width // net.heads, "out_channels": outside}
