"""BPE dropout [Provilkov20]: captions in other tokens every time they are seen, which all stand for the same text.

The tokenizers library has it too, from a generator of its own that no seed reaches; a batch here has to be a function
of (seed, step, place), so that a run can be resumed.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import tokenizers
from tokenizers import pre_tokenizers

from flaxgen import bounded_json
from flaxgen.data.decode import DataError
from flaxgen.data.tokenize import Tokenizer, Tokens, valid_unicode
from flaxgen.data.transforms import Transform


class _Merges:
    """What a tokenizer.json says of its byte-level BPE."""

    def __init__(self, text: str):
        model = bounded_json.loads(text)["model"]
        odd = [key for key in ("continuing_subword_prefix", "byte_fallback", "ignore_merges") if model.get(key)]
        if model.get("type") != "BPE" or odd:
            raise ValueError(
                f"BPE dropout is for a plain BPE, this tokenizer has {odd[0] if odd else model.get('type')}"
            )
        self.ids: Mapping[str, int] = model["vocab"]
        self.ending: str = model.get("end_of_word_suffix") or ""
        pairs = [tuple(merge.split(" ") if isinstance(merge, str) else merge) for merge in model["merges"]]
        self._ranks = {pair: rank for rank, pair in enumerate(pairs)}
        symbols = [byte + ending for byte in pre_tokenizers.ByteLevel.alphabet() for ending in {"", self.ending}]
        if missing := [symbol for symbol in symbols if symbol not in self.ids]:
            raise ValueError(f"BPE dropout needs a token for every byte, this tokenizer has none for {missing[0]!r}")

    def split(self, word: str, rate: float, rng: np.random.Generator) -> list[int]:
        """A word's tokens: of all merges that are possible each is dropped at `rate`, and the first of the others is
        made, until none is left."""
        parts = [*word[:-1], word[-1] + self.ending]
        while True:
            pairs = enumerate(itertools.pairwise(parts))
            found = [(rank, i) for i, pair in pairs if (rank := self._ranks.get(pair)) is not None]
            found = [merge for merge, kept in zip(found, rng.random(len(found)) >= rate, strict=True) if kept]
            if not found:
                return [self.ids[part] for part in parts]
            _, i = min(found)
            parts[i : i + 2] = [parts[i] + parts[i + 1]]


def make_bpe_dropout(tokenizer: Tokenizer, rate: float) -> Transform:
    """Replaces `ids` and `mask` of an example by those of its caption with merges dropped at `rate`; DALL-E's is 0.1
    [Ramesh21, sec. 2.2]. Rate 0 gives the tokenizer's own, rate 1 a token for every byte.

    Raises:
        ValueError: if the rate is not within 0 and 1, or the tokenizer is no byte-level BPE.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"bpe_dropout={rate}: expected 0 (none) to 1 (bytes)")
    merges, codec = _Merges(tokenizer.to_json()), tokenizers.Tokenizer.from_str(tokenizer.to_json())
    normalizer, pre_tokenizer = codec.normalizer, codec.pre_tokenizer

    def words(caption: str) -> Sequence[str]:
        caption = valid_unicode(caption)
        text = normalizer.normalize_str(caption) if normalizer is not None else caption
        return [word for word, _ in pre_tokenizer.pre_tokenize_str(text)]

    def tokens(caption: str, rng: np.random.Generator) -> Tokens:
        inside: list[int] = []
        for word in words(caption):
            if len(inside) >= tokenizer.context - 2:
                break
            inside += merges.split(word, rate, rng)
        framed = [tokenizer.start_id, *inside[: tokenizer.context - 2], tokenizer.end_id]
        padding = [tokenizer.pad_id] * (tokenizer.context - len(framed))
        places = np.arange(tokenizer.context)
        return Tokens(np.array([framed + padding], np.int32), places[None] < len(framed))

    def drop(example, rng):
        if "text" not in example:
            raise DataError("an example has no caption for BPE dropout: set data.caption_field, or bpe_dropout=0")
        ids, mask = tokens(example["text"], rng)
        return {**example, "ids": ids[0], "mask": mask[0]}

    return drop
