"""The text towers inside single files of Stable Diffusion <-> `CLIP`: by transformers' names or by OpenCLIP's, and the
net's fields from the shapes of the tensors."""

from typing import NamedTuple

from flaxgen.nets.clip import CLIP, TextTower
from flaxgen.weights.clip import RULES
from flaxgen.weights.layouts import LINEAR
from flaxgen.weights.ldm_unet import HEAD_WIDTH, Shapes, count_blocks, size
from flaxgen.weights.rules import Rule, under
from flaxgen.weights.unet2d import DENSE, NORM

QKV = tuple(f"attention/{name}" for name in ("query", "key", "value"))
BLOCK = (
    *under([("ln_1", "norm_1"), ("ln_2", "norm_2")], NORM),
    *under([("attn.out_proj", "attention/out"), ("mlp.c_fc", "mlp_1"), ("mlp.c_proj", "mlp_2")], DENSE),
    Rule("attn.in_proj_weight", tuple(f"{path}/kernel" for path in QKV), LINEAR),
    Rule("attn.in_proj_bias", tuple(f"{path}/bias" for path in QKV)),
)
PROJECTION = "text_projection"
OPEN_CLIP_RULES = (
    Rule("token_embedding.weight", "text/tokens/embedding"),
    Rule("positional_embedding", "text/positions"),
    Rule(PROJECTION, "text_projection/kernel"),
    *under([("ln_final", "text/norm_out")], NORM),
    *under([("transformer.resblocks.{i}", "text/transformer/block_{i}")], BLOCK),
)


class Names(NamedTuple):
    """What a project calls the tensors of its text towers, those by which they are measured, and what its towers
    compute that no tensor says."""

    rules: tuple[Rule, ...]
    tokens: str
    positions: str
    blocks: str
    mlp: str
    activation: str


TRANSFORMERS = Names(
    RULES,
    "text_model.embeddings.token_embedding.weight",
    "text_model.embeddings.position_embedding.weight",
    "text_model.encoder.layers",
    "mlp.fc1.weight",
    "quick_gelu",
)
"""OpenAI's CLIP."""
OPEN_CLIP = Names(
    OPEN_CLIP_RULES,
    "token_embedding.weight",
    "positional_embedding",
    "transformer.resblocks",
    "mlp.c_fc.weight",
    "gelu",
)


class Text(NamedTuple):
    """A text tower's `place`, what its tensors' names begin with, and its names behind that.

    With `projected` the embedding of a text is read too. Without, OpenCLIP's last block is not: the state behind the
    one before it, and the final norm, are what conditions SD 2.
    """

    place: str
    names: Names
    projected: bool = False


def unused(text: Text, shapes: Shapes) -> tuple[str, ...]:
    """What names of tensors begin with that are in a file, and that nothing reads."""
    logit_scale, position_ids = f"{text.place}.logit_scale", f"{text.place}.text_model.embeddings.position_ids"
    if text.projected or f"{text.place}.{PROJECTION}" not in shapes:
        return logit_scale, position_ids
    blocks = f"{text.place}.{text.names.blocks}"
    return logit_scale, f"{text.place}.{PROJECTION}", f"{blocks}.{count_blocks(shapes, blocks) - 1}."


def clip_from_shapes(text: Text, shapes: Shapes, where: str) -> CLIP:
    """The tower whose tensors have these shapes, without those that are unused; heads are 64 channels wide.

    Raises:
        ValueError: naming a tensor that is missing, or of too few dimensions.
    """
    names = text.names
    tokens, blocks = f"{text.place}.{names.tokens}", f"{text.place}.{names.blocks}"
    width = size(shapes, where, tokens, 1)
    tower = TextTower(
        vocab_size=size(shapes, where, tokens, 0),
        context=size(shapes, where, f"{text.place}.{names.positions}", 0),
        width=width,
        depth=count_blocks(shapes, blocks),
        heads=max(1, width // HEAD_WIDTH),
        mlp_ratio=size(shapes, where, f"{blocks}.0.{names.mlp}", 0) / width,
        activation=names.activation,
    )
    embedding_dim = size(shapes, where, f"{text.place}.{PROJECTION}", 1) if text.projected else width
    return CLIP(None, tower, embedding_dim, projected=text.projected)
