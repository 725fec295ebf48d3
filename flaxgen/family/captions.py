"""Captions as a family keeps them: a tokenizer made when a run begins, and the words that were seen in training."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from flaxgen import bounded_json
from flaxgen.data import Data, open_source
from flaxgen.data.tokenize import Tokenizer, read_tokenizer, train_bpe
from flaxgen.family.trained import Files
from flaxgen.train.config import require

TOKENIZER, WORDS = "tokenizer.json", "words.json"
"""Small files of a model that reads captions."""


@dataclass(frozen=True)
class Vocabulary:
    """How captions become tokens: by a BPE of at most `size` tokens trained on the first `captions` captions, those of
    the run or of the `split` that is named, or, with a `path`, by the tokenizer.json there (or in that folder)."""

    size: int = 512
    captions: int = 20_000
    path: str = ""
    split: str = ""

    def __post_init__(self):
        require(self.size > 259, f"size={self.size}: expected more than 259, the bytes and three marks")
        require(self.captions >= 1, f"captions={self.captions}: expected 1 or more")


def prepare_tokenizer(vocabulary: Vocabulary, data: Data, context: int, known: tuple[int, str], found: Files) -> Files:
    """The tokenizer: the one found, the one that `vocabulary` names, or one trained on the captions of `data`, whose
    words are kept beside it. `known` is how many tokens the net knows, and the field that says so.

    Raises:
        ValueError: if it cannot be read, the data has no captions, or it has more tokens than the net.
    """
    if TOKENIZER in found:
        return found
    words = None
    if vocabulary.path:
        tokenizer = read_tokenizer(Path(vocabulary.path), context)
    else:
        source = open_source(replace(data, split=vocabulary.split) if vocabulary.split else data)
        examples = [source[i] for i in range(min(len(source), vocabulary.captions))]
        require("text" in examples[0], f"data.source={data.source} has no captions: set data.caption_field")
        captions = [example["text"] for example in examples]
        tokenizer, words = train_bpe(captions, vocabulary.size, context), words_in(captions)
    tokens, setting = known
    require(
        tokenizer.vocab_size <= tokens,
        f"the tokenizer has {tokenizer.vocab_size} tokens and the net knows {tokens}: set {setting}",
    )
    files = {**found, TOKENIZER: tokenizer.to_json().encode()}
    return files if words is None else files | {WORDS: json.dumps(words, ensure_ascii=False).encode()}


def words_in(captions: Iterable[str]) -> list[str]:
    """The words of captions, in lower case and in order."""
    return sorted({word for caption in captions for word in re.findall(r"[^\W\d_]+", caption.lower())})


def unseen_words(files: Files, captions: Iterable[str]) -> tuple[str, ...]:
    """The words of captions that were never seen in training, where that is known."""
    if WORDS not in files:
        return ()
    known = set(bounded_json.loads(files[WORDS]))
    return tuple(word for word in words_in(captions) if word not in known)


def make_tokenizer(files: Files, missing: str) -> Tokenizer:
    """The tokenizer among a model's files; ValueError with this message where there is none."""
    require(TOKENIZER in files, missing)
    return Tokenizer(files[TOKENIZER].decode())
