"""What a run of DALL-E's transformer is, as plain values, and what it reads: captions, and an autoencoder's codes."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from flaxgen.data import Data
from flaxgen.data.tokenize import Tokenized
from flaxgen.family.captions import Vocabulary, make_tokenizer, prepare_tokenizer
from flaxgen.family.companions import Cached, Joined, check_companion, load_companion, open_cache
from flaxgen.family.family import Family
from flaxgen.family.matching import open_matching
from flaxgen.family.trained import Files
from flaxgen.nets.dalle import Dalle
from flaxgen.train.config import require
from flaxgen.train.run import GradientRun
from flaxgen.types import Source
from flaxgen.zoo.autoencoder import FAMILY as AUTOENCODER

NAME = "autoencoder"
MISSING = "this model has no tokenizer.json beside its weights, and reads captions"


@dataclass(frozen=True)
class Drawing:
    """How codes are drawn: from softmax(logits / temperature) within the `top_k` likeliest (0: all), then the nucleus
    `top_p`, with `guidance` by the empty caption. At most `batch` pictures are drawn at once."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    guidance: float = 1.0
    batch: int = 64

    def __post_init__(self):
        require(self.temperature >= 0, f"temperature={self.temperature}: expected 0 (the likeliest) or more")
        require(self.top_k >= 0, f"top_k={self.top_k}: expected 0 (all) or more codes")
        require(0 < self.top_p <= 1, f"top_p={self.top_p}: expected a share in (0, 1]")
        require(self.guidance >= 0, f"guidance={self.guidance}: expected 0 or more")
        require(self.batch >= 1, f"batch={self.batch}: expected 1 or more")

    def kind(self) -> "Drawing":
        """What has to be compiled: these settings without those that may change freely."""
        return replace(self, temperature=1.0, top_p=1.0, guidance=1.0 if self.guidance == 1 else 2.0)


@dataclass(frozen=True, kw_only=True)
class Config(GradientRun):
    """A run on the captions of `data` and the codes of its pictures by the autoencoder in that directory, kept in
    `cache` ("": there) [Ramesh21]. Text weighs `text_weight` in the loss. The caption is empty for the share
    `caption_dropout` of the examples, for guidance. The CLIP in the directory `clip` chooses among candidates."""

    data: Data
    net: Dalle
    vocabulary: Vocabulary = Vocabulary()
    autoencoder: str = ""
    cache: str = ""
    clip: str = ""
    text_weight: float = 1 / 8
    caption_dropout: float = 0.1
    drawing: Drawing = Drawing()

    def __post_init__(self):
        super().__post_init__()
        require(0 <= self.text_weight < 1, f"text_weight={self.text_weight}: expected a share below 1")
        require(0 <= self.caption_dropout < 1, f"caption_dropout={self.caption_dropout}: expected a share below 1")
        require(
            not (self.data.flip or self.data.random_crop),
            "data.flip and data.random_crop change pictures, and their codes are computed once: set them false",
        )


def batch_spec(config: Config) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of a batch as the loader gives it."""
    size, net = config.batch_size, config.net
    return {
        "codes": jax.ShapeDtypeStruct((size, net.rows, net.columns), jnp.int32),
        "ids": jax.ShapeDtypeStruct((size, net.context), jnp.int32),
        "mask": jax.ShapeDtypeStruct((size, net.context), jnp.bool_),
    }


def load_autoencoder(config: Config) -> Any:
    """The autoencoder whose codes these are.

    Raises:
        ValueError: if it is not there, has no codes, or others than the net reads.
    """
    found = load_companion(AUTOENCODER, config.autoencoder)
    check_fits(config, found)
    return found


def check_fits(config: Config, autoencoder: Any) -> None:
    """Raises ValueError unless the net is for the codes of this autoencoder."""
    autoencoder.check_codes()
    net, codes = config.net, autoencoder.config.bottleneck.num_codes
    require(net.codes == codes, f"net.codes={net.codes}, the autoencoder has {codes}: set net.codes={codes}")
    side = autoencoder.config.net.image_size // autoencoder.config.net.factor
    require(
        (net.rows, net.columns) == (side, side),
        f"net.rows={net.rows} and net.columns={net.columns}, the autoencoder's map of codes is {side} x {side}",
    )


def prepare(config: Config, found: Files) -> Files:
    """The name of the autoencoder, and the tokenizer.

    Raises:
        ValueError: if one of them is not there, does not fit the net, or is not the one found.
    """
    named = check_companion(found, NAME, load_autoencoder(config).fingerprint)
    known = (config.net.text_tokens, "net.text_tokens")
    return {**prepare_tokenizer(config.vocabulary, config.data, config.net.context, known, found), **named}


def open_codes(config: Config) -> Cached:
    """The codes of the data by the run's autoencoder."""
    autoencoder = load_autoencoder(config)
    return Cached(*open_cache(autoencoder.encoder, config.data, Path(config.cache or Path(autoencoder.name) / "codes")))


def open_source(family: Family, config: Config, files: Files) -> Source:
    """The codes of the pictures with their captions as tokens.

    Raises:
        ValueError: if the data cannot be read, have no captions, or do not fit the net.
    """
    captioned = Tokenized(open_matching(config.data, {"text": ()}, 0), make_tokenizer(files, MISSING))
    text = (captioned, lambda example: {"ids": example["ids"], "mask": example["mask"]})
    return Joined((open_codes(config), lambda example: {"codes": example["codes"]}), text)
