"""T5's encoder as a family [Raffel20]: an imported part of models that draw what captions say, and not trained here."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import tokenizers
from jaxtyping import Float, Int32

from flaxgen import parallel
from flaxgen.data import Data
from flaxgen.data.tokenize import valid_unicode
from flaxgen.family.drawing import batch_for, draw_many
from flaxgen.family.family import Family
from flaxgen.family.trained import Trained
from flaxgen.nets.t5 import T5Encoder
from flaxgen.train.config import require
from flaxgen.train.run import Run
from flaxgen.types import Params, PRNGKey

TOKENIZER = "tokenizer.json"
END, PAD = "</s>", "<pad>"


@dataclass(frozen=True, kw_only=True)
class Config(Run):
    """An imported T5; what it was trained on is not known. It reads `encode_batch` captions at once."""

    data: Data
    net: T5Encoder
    encode_batch: int = 8


def init_params(config: Config, key: PRNGKey) -> Params:
    """Fresh parameters."""
    return config.net.init(key, jnp.zeros((1, 1), jnp.int32))["params"]


def batch_spec(config: Config) -> dict[str, jax.ShapeDtypeStruct]:
    """Nothing: it is not trained here."""
    return {}


def read_pieces(text: str) -> tokenizers.Tokenizer:
    """The tokenizer of a tokenizer.json that ends captions with "</s>" and pads them with "<pad>".

    Raises:
        ValueError: if it is no such tokenizer's.
    """
    try:
        codec = tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(f"not a tokenizer.json: {str(error).partition(chr(10))[0]}") from error
    codec.no_truncation()
    codec.no_padding()
    end, pad = codec.token_to_id(END), codec.token_to_id(PAD)
    known = end is not None and pad is not None and codec.encode("").ids == [end]
    require(known, f"{TOKENIZER} is no T5's: expected one that ends captions with {END} and has {PAD}")
    return codec


@functools.lru_cache(maxsize=4)
def compiled_states(net: T5Encoder, plan: parallel.Plan):
    """The net, split over the devices."""
    return plan.compile_map(lambda params, inputs: net.apply({"params": params}, inputs["ids"]), key=("t5", net))


class Model(Trained):
    """A T5 with its tokenizer."""

    config: Config

    @functools.cached_property
    def pieces(self) -> tokenizers.Tokenizer:
        """From captions to tokens, without padding."""
        require(TOKENIZER in self.files, f"this T5 has no {TOKENIZER} beside its weights: it cannot read captions")
        return read_pieces(self.files[TOKENIZER].decode())

    def tokens(self, captions: Sequence[str], places: int) -> Int32[np.ndarray, "N L"]:
        """The ids of captions, cut and padded to so many, the end token kept."""
        ids = np.full((len(captions), places), self.pieces.token_to_id(PAD), np.int32)
        for row, encoding in zip(ids, self.pieces.encode_batch(list(map(valid_unicode, captions))), strict=True):
            found = encoding.ids[: places - 1] if len(encoding.ids) > places else encoding.ids[:-1]
            row[: len(found) + 1] = [*found, encoding.ids[-1]]
        return ids

    def encode_text(self, captions: Sequence[str], places: int) -> Float[np.ndarray, "N L W"]:
        """The states of captions, of so many places; padding is read like words, as in Stable Diffusion 3."""
        ids = self.tokens(captions, places)
        batch = batch_for(len(ids), self.config.encode_batch, self.plan.devices)
        program = compiled_states(cast(Any, self.config.net), self.plan)
        drawn = draw_many(program, self.params, jax.random.key(0), {"ids": ids}, num=len(ids), batch=batch)
        return np.asarray(drawn)


FAMILY = Family(
    name="t5",
    config=Config,
    type_name="ImportedT5",
    init_params=init_params,
    batch_spec=batch_spec,
    is_trainable=lambda config: False,
    instead="reads captions for other models, and draws nothing by itself: draw with the model that `flaxgen compose "
    "DIR t5=... denoiser=... autoencoder=... clip=... clip_2=...` makes of it and the other parts",
    files=(TOKENIZER,),
    model=Model,
)
