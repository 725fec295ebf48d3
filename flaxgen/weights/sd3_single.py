"""Single .safetensors files of Stable Diffusion 3 and 3.5 under the names of Stability's code [Esser24], net and
autoencoder in one, with the text encoders or without <-> nets and their parameters.

The nets' fields follow from names and shapes, but for the width of heads where nothing norms them: 64 channels.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flaxgen.nets.autoencoder import Autoencoder
from flaxgen.nets.clip import CLIP, TextTower
from flaxgen.nets.mmdit import MMDiT
from flaxgen.nets.t5 import T5Encoder
from flaxgen.types import Params
from flaxgen.weights import autoencoder, clip, dit, mmdit, store, t5, taming
from flaxgen.weights.autoencoder import Imported
from flaxgen.weights.autoencoder_config import Latents, config_from_autoencoder
from flaxgen.weights.clip_config import config_from_clip
from flaxgen.weights.convert import export_params, import_params
from flaxgen.weights.header import Entry, check_file
from flaxgen.weights.layouts import LINEAR, SAME
from flaxgen.weights.ldm_text import TRANSFORMERS
from flaxgen.weights.ldm_unet import HEAD_WIDTH, Shapes, check_same, count_blocks, size
from flaxgen.weights.mmdit import square
from flaxgen.weights.rules import Rule, under
from flaxgen.weights.unet2d import CONVOLUTION, DENSE

NET, FIRST_STAGE = "model.diffusion_model", "first_stage_model"
TEXTS = {"clip": "text_encoders.clip_l.transformer", "clip_2": "text_encoders.clip_g.transformer"}
"""Where the text encoders of a file are, by what they are called here."""
ACTIVATIONS = {"clip": "quick_gelu", "clip_2": "gelu"}
T5 = "text_encoders.t5xxl.transformer"
PROJECTION, TIED = "text_projection.weight", "encoder.embed_tokens.weight"
MARKS = (f"{NET}.joint_blocks.0.context_block.attn.qkv.weight", f"{FIRST_STAGE}.decoder.conv_in.weight")
"""Tensors that every such file has, and no other."""
LATENTS = Latents(scaling_factor=1.5305, shift_factor=0.0609, force_upcast=True)
IMAGE_SIZE = 1024
"""What the nets were made for, which no tensor says."""
BLOCKS = {"x_block.attn": "attention", "context_block.attn": "token_attention", "x_block.attn2": "dual_attention"}
OUTS = {"x_block.attn": "out", "context_block.attn": "token_out", "x_block.attn2": "dual_out"}
PARTS = ("query", "key", "value")
SIDES = (("x_block", ""), ("context_block", "token_"))
BLOCK = (
    *(
        Rule(f"{there}.qkv.{tensor}", tuple(f"{here}/{part}/{param}" for part in PARTS), layout)
        for there, here in BLOCKS.items()
        for tensor, param, layout in (("weight", "kernel", LINEAR), ("bias", "bias", SAME))
    ),
    *(
        Rule(f"{there}.ln_{part[0]}.weight", f"{here}/{part}_norm/scale")
        for there, here in BLOCKS.items()
        for part in PARTS[:2]
    ),
    *under([(f"{there}.proj", here) for there, here in OUTS.items()], DENSE),
    *under([(f"{side}.adaLN_modulation.1", f"{token}modulation/linear") for side, token in SIDES], DENSE),
    *under([(f"{side}.mlp.fc{i}", f"{token}mlp_{i}") for side, token in SIDES for i in (1, 2)], DENSE),
)


class Single(NamedTuple):
    """What a file holds, parameters as numpy arrays: the net, the autoencoder and what is known of its latents, those
    of the text encoders `clip` and `clip_2` that are in it, and a T5 where there is one."""

    net: MMDiT
    params: dict[str, Any]
    autoencoder: Imported
    texts: Mapping[str, tuple[CLIP, dict[str, Any]]]
    t5: tuple[T5Encoder, dict[str, Any]] | None = None


class _Nets(NamedTuple):
    net: MMDiT
    autoencoder: Autoencoder
    texts: Mapping[str, CLIP]
    t5: T5Encoder | None


def is_single(header: Mapping[str, Entry]) -> bool:
    """Whether a file whose tensors `store.read_header` gives is one of these."""
    return all(mark in header for mark in MARKS)


def read_single(path: str | Path, keep_dtype: bool = False) -> Single:
    """What a file holds, tensor by tensor; parameters are float32, or with `keep_dtype` as they are.

    The first text encoder has no projection in such files, and reads as with one that changes nothing, which diffusers'
    pipelines have. Position ids and CLIP's logit scale are left out, and the T5's table of tokens is read once.

    Raises:
        ValueError: if the file is none of these, or naming a tensor that is missing, extra, wrongly shaped or not
            finite.
        FileNotFoundError: if there is no such file.
    """
    path = Path(path)
    check_file(path)
    shapes = {name: entry.shape for name, entry in store.read_header(path).items()}
    if missing := [mark for mark in MARKS if mark not in shapes]:
        raise ValueError(f"{path} is no single file of Stable Diffusion 3: looked for {missing[0]}")
    tensors = store.open_file(path)
    dropped = {name for name in shapes if name.startswith(tuple(f"{place}.{end}" for place in TEXTS.values()
               for end in ("logit_scale", "text_model.embeddings.position_ids")))}  # fmt: skip
    tied, table = f"{T5}.{TIED}", f"{T5}.shared.weight"
    if tied in shapes and table in shapes:
        if not np.array_equal(tensors[tied], tensors[table]):
            raise ValueError(f"{path}: tensor {tied!r} is not {table!r}: not supported")
        dropped.add(tied)
    nets = _nets({name: shape for name, shape in shapes.items() if name not in dropped}, str(path))
    params = import_params(_rules(nets), tensors.without(dropped), _abstract(nets), str(path), keep_dtype)
    texts = {name: _projected(net, params[name]) for name, net in nets.texts.items()}
    first_stage = Imported(nets.autoencoder, params["autoencoder"], LATENTS)
    return Single(nets.net, params["net"], first_stage, texts, None if nets.t5 is None else (nets.t5, params["t5"]))


def write_single(path: str | Path, single: Single) -> None:
    """Writes what `read_single` reads; its inverse, bit for bit, but for tensors that it leaves out.

    Raises:
        ValueError: naming a field that no such file has, or that its readers would take to be another, or a tensor that
            is not the net's.
    """
    first_stage = single.autoencoder.net
    if not isinstance(first_stage, Autoencoder):
        raise ValueError(f"a {type(first_stage).__name__} has no counterpart in this layout: not exported")
    texts = {name: _bare(*text) for name, text in single.texts.items()}
    nets = _Nets(single.net, first_stage, {name: net for name, (net, _) in texts.items()}, single.t5 and single.t5[0])
    params = {"net": single.params, "autoencoder": single.autoencoder.params}
    params |= {name: tower for name, (_, tower) in texts.items()} | ({"t5": single.t5[1]} if single.t5 else {})
    tensors = export_params(_rules(nets), params, _abstract(nets))
    _check(nets, single.autoencoder.latents, _nets({name: tensors[name].shape for name in tensors}, "the model"))
    store.write_file(Path(path), tensors)


def _check(nets: _Nets, latents: Latents, found: _Nets) -> None:
    """Raises ValueError unless the nets are those that a reader takes the tensors for."""
    check_same(mmdit.config_from_mmdit(nets.net), mmdit.config_from_mmdit(found.net), ("sample_size",))
    first_stages = (
        config_from_autoencoder(nets.autoencoder, latents),
        config_from_autoencoder(found.autoencoder, LATENTS),
    )
    check_same(*first_stages, ("sample_size", "force_upcast"))
    for name, net in nets.texts.items():
        check_same(config_from_clip(net), config_from_clip(found.texts[name]), ())
    if nets.t5 != found.t5:
        raise ValueError(f"{nets.t5}: a reader would take it for {found.t5}, not exported")


def _nets(shapes: Shapes, where: str) -> _Nets:
    """The nets whose tensors have these shapes."""

    def inside(place: str) -> dict[str, tuple[int, ...]]:
        return {name.removeprefix(f"{place}."): shapes[name] for name in shapes if name.startswith(f"{place}.")}

    first_stage = taming.autoencoder_from_shapes(inside(FIRST_STAGE), f"{where}: {FIRST_STAGE}", IMAGE_SIZE)
    net = mmdit_from_shapes(inside(NET), f"{where}: {NET}", IMAGE_SIZE // first_stage.factor)
    texts = {
        name: _clip_from_shapes(found, f"{where}: {place}", ACTIVATIONS[name])
        for name, place in TEXTS.items()
        if (found := inside(place))
    }
    third = inside(T5)
    return _Nets(net, first_stage, texts, _t5_from_shapes(third, f"{where}: {T5}") if third else None)


def mmdit_from_shapes(shapes: Shapes, where: str, image_size: int) -> MMDiT:
    """The net whose tensors have these shapes.

    Raises:
        ValueError: naming a tensor that is missing, or of too few dimensions.
    """
    patches, depth = "x_embedder.proj.weight", count_blocks(shapes, "joint_blocks")
    width, patch = size(shapes, where, patches, 0), size(shapes, where, patches, 3)
    norm = shapes.get("joint_blocks.0.x_block.attn.ln_q.weight")
    head_width = norm[0] if norm else min(HEAD_WIDTH, width)
    return MMDiT(
        image_size=image_size,
        in_channels=size(shapes, where, patches, 1),
        out_channels=size(shapes, where, "final_layer.linear.weight", 0) // patch**2,
        patch=patch,
        width=width,
        depth=depth,
        heads=width // head_width,
        token_dim=size(shapes, where, "context_embedder.weight", 1),
        vector_dim=size(shapes, where, "y_embedder.mlp.0.weight", 1),
        max_places=math.isqrt(size(shapes, where, "pos_embed", 1)),
        qk_norm=norm is not None,
        dual_blocks=tuple(i for i in range(depth) if f"joint_blocks.{i}.x_block.attn2.qkv.weight" in shapes),
    )


def _clip_from_shapes(shapes: Shapes, where: str, activation: str) -> CLIP:
    names = TRANSFORMERS
    width = size(shapes, where, names.tokens, 1)
    tower = TextTower(
        vocab_size=size(shapes, where, names.tokens, 0),
        context=size(shapes, where, names.positions, 0),
        width=width,
        depth=count_blocks(shapes, names.blocks),
        heads=max(1, width // HEAD_WIDTH),
        mlp_ratio=size(shapes, where, f"{names.blocks}.0.{names.mlp}", 0) / width,
        activation=activation,
    )
    is_projected = PROJECTION in shapes
    embedding_dim = size(shapes, where, PROJECTION, 0) if is_projected else width
    return CLIP(None, tower, embedding_dim, projected=is_projected)


def _t5_from_shapes(shapes: Shapes, where: str) -> T5Encoder:
    block = "encoder.block.0"
    buckets = size(shapes, where, f"{block}.{t5.ATTENTION}.relative_attention_bias.weight", 0)
    heads = size(shapes, where, f"{block}.{t5.ATTENTION}.relative_attention_bias.weight", 1)
    return T5Encoder(
        vocab_size=size(shapes, where, "shared.weight", 0),
        width=size(shapes, where, "shared.weight", 1),
        head_width=size(shapes, where, f"{block}.{t5.ATTENTION}.q.weight", 0) // heads,
        mlp_width=size(shapes, where, f"{block}.{t5.MLP}.wo.weight", 1),
        depth=count_blocks(shapes, "encoder.block"),
        heads=heads,
        buckets=buckets,
    )


def _projected(net: CLIP, params: dict[str, Any]) -> tuple[CLIP, dict[str, Any]]:
    """A text encoder with a projection, which changes nothing where it had none."""
    if net.projected:
        return net, params
    same = np.eye(net.embedding_dim, dtype=params["text"]["positions"].dtype)
    return net.clone(projected=True), {**params, "text_projection": {"kernel": same}}


def _bare(net: CLIP, params: Params) -> tuple[CLIP, dict[str, Any]]:
    """The inverse of `_projected`."""
    kernel = np.asarray(params["text_projection"]["kernel"]) if net.projected else np.zeros((1, 2))
    if kernel.shape[0] != kernel.shape[1] or not np.array_equal(kernel, np.eye(len(kernel))):
        return net, dict(params)
    return net.clone(projected=False), {name: value for name, value in params.items() if name != "text_projection"}


def _rules(nets: _Nets) -> tuple[Rule, ...]:
    """One table for all parts."""
    return (
        *under([(NET, "net")], net_rules(nets.net)),
        *under([(FIRST_STAGE, "autoencoder")], taming.rules_for(nets.autoencoder)),
        *(rule for name in nets.texts for rule in under([(TEXTS[name], name)], TRANSFORMERS.rules)),
        *(under([(T5, "t5")], t5.RULES) if nets.t5 is not None else ()),
    )


def net_rules(net: MMDiT) -> tuple[Rule, ...]:
    """The names of a net's tensors."""
    embedders = [("t_embedder", "condition/time"), ("y_embedder", "condition/vector")]
    return (
        Rule("pos_embed", "place_table", square(net.max_places)),
        *under([("x_embedder.proj", "patches")], CONVOLUTION),
        *under([(f"{there}.mlp.{2 * i}", f"{here}_{i + 1}") for there, here in embedders for i in (0, 1)], DENSE),
        *under([("context_embedder", "token_in"), ("final_layer.linear", "head/out")], DENSE),
        *under([("final_layer.adaLN_modulation.1", "head/modulation/linear")], DENSE),
        *under([("joint_blocks.{i}", "block_{i}")], BLOCK),
    )


def _abstract(nets: _Nets) -> dict[str, Params]:
    parts = {"net": dit.abstract_params(nets.net), "autoencoder": autoencoder.abstract_params(nets.autoencoder)}
    parts |= {name: clip.abstract_params(net) for name, net in nets.texts.items()}
    return parts | ({} if nets.t5 is None else {"t5": t5.abstract_params(nets.t5)})
