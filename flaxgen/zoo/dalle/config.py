"""What a run of DALL-E's or dalle-mini's transformer is, as plain values, and what it reads: captions, and an
autoencoder's codes."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from flaxgen.data import Data
from flaxgen.family.captions import Vocabulary
from flaxgen.family.coded import CodeDrawing, check_plain
from flaxgen.nets.dalle import Dalle
from flaxgen.nets.dalle_mini import DalleMini
from flaxgen.train.config import require
from flaxgen.train.run import GradientRun
from flaxgen.zoo.dalle.kinds import sides_of

MISSING = "this model has no tokenizer.json beside its weights, and reads captions"


@dataclass(frozen=True, kw_only=True)
class Config(GradientRun):
    """A run on the captions of `data` and the codes of its pictures by the autoencoder in that directory, kept in
    `cache` ("": there) [Ramesh21; Dayma21]. Text weighs `text_weight` in the loss of a net that predicts it, `Dalle`.
    The caption is empty for the share `caption_dropout` of the examples, for guidance; each time it is read, the share
    `bpe_dropout` of its tokenizer's merges is left out. The CLIP in the directory `clip` chooses among candidates."""

    data: Data
    net: Dalle | DalleMini
    vocabulary: Vocabulary = Vocabulary()
    autoencoder: str = ""
    cache: str = ""
    clip: str = ""
    text_weight: float = 1 / 8
    caption_dropout: float = 0.1
    bpe_dropout: float = 0.0
    drawing: CodeDrawing = CodeDrawing()

    def __post_init__(self):
        super().__post_init__()
        require(0 <= self.text_weight < 1, f"text_weight={self.text_weight}: expected a share below 1")
        require(0 <= self.caption_dropout < 1, f"caption_dropout={self.caption_dropout}: expected a share below 1")
        require(0 <= self.bpe_dropout <= 1, f"bpe_dropout={self.bpe_dropout}: expected 0 (none) to 1 (bytes)")
        check_plain(self.data)
        sides_of(self.net)


def batch_spec(config: Config) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of a batch as the loader gives it."""
    size, net = config.batch_size, config.net
    return {
        "codes": jax.ShapeDtypeStruct((size, *sides_of(net)), jnp.int32),
        "ids": jax.ShapeDtypeStruct((size, net.context), jnp.int32),
        "mask": jax.ShapeDtypeStruct((size, net.context), jnp.bool_),
    }
