"""Captions to token ids: byte-level BPE [Radford19] trained on the captions at hand, or CLIP's own files."""

import itertools
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tokenizers
from jaxtyping import Bool, Int32
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from flaxgen import bounded_json
from flaxgen.data.decode import DataError
from flaxgen.types import Source

PAD, END, START = "<pad>", "<end>", "<start>"
ENDS = ((START, END), ("<|startoftext|>", "<|endoftext|>"), ("<s>", "</s>"))
"""What the first and the last token of a caption are called: here, in CLIP's files, and in BART's."""
BYTES = 256
MAX_FILE = 64 * 2**20
MAX_CONTEXT = 2**20
SHOWN = 40
"""Characters of what is cut off a caption that a warning shows."""
"""What transformers writes for "no limit" is above it."""


class Tokens(NamedTuple):
    """Captions as ids, padded to the context; `mask` is True for start, text and end."""

    ids: Int32[np.ndarray, "N L"]
    mask: Bool[np.ndarray, "N L"]


@dataclass(frozen=True)
class Tokenizer:
    """`tokenizer(captions) -> Tokens`; a value, whose whole content is the text of its tokenizer.json.

    The text states the context (its truncation) and the padding. Longer captions are cut, keeping the end token; the
    first time, a line on stderr says so and what was cut. Names of special tokens in a caption are text like any other.

    Raises:
        ValueError: if the text is no tokenizer.json, states no context, or frames captions by no start and end.
    """

    text: str = field(repr=False)
    _told: list[bool] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self):
        if not self._codec.truncation or self._codec.padding is None:
            raise ValueError("the tokenizer states no context: give one")
        if self._codec.encode("").ids != [self.start_id, self.end_id] + [self.pad_id] * (self.context - 2):
            raise ValueError("the tokenizer does not put its start and its end around a caption")

    def __call__(self, captions: Sequence[str]) -> Tokens:
        """The captions' tokens; any Unicode has some, and an empty caption is start and end."""
        encodings = self._codec.encode_batch([valid_unicode(caption) for caption in captions])
        if not self._told and (cut := next((encoding for encoding in encodings if encoding.overflowing), None)):
            self._told.append(True)
            said = f"captions longer than {self.context} tokens are cut to that, the first of them before"
            print(f"warning: {said} {self._left_out(cut)!r}", file=sys.stderr, flush=True)
        shape = (len(encodings), self.context)
        ids = np.array([encoding.ids for encoding in encodings], np.int32).reshape(shape)
        return Tokens(ids, np.array([encoding.attention_mask for encoding in encodings], bool).reshape(shape))

    def _left_out(self, encoding: tokenizers.Encoding) -> str:
        """The beginning of what was cut off a caption."""
        ids = [i for part in encoding.overflowing[:SHOWN] for i in part.ids]
        return self.decode(np.array(ids, np.int32))[:SHOWN]

    def decode(self, ids: Int32[np.ndarray, " L"]) -> str:
        """The normalised caption that a row of ids stands for, without start, end and padding."""
        text = self._codec.decode([i for i in ids.tolist() if i not in (self.start_id, self.end_id, self.pad_id)])
        ending = getattr(self._codec.model, "end_of_word_suffix", None)
        return (text.replace(ending, " ") if ending else text).strip(" ")

    def pieces(self, text: str) -> list[int]:
        """The ids of a text alone: without start, end and padding, and however many there are."""
        return self._plain.encode(valid_unicode(text), add_special_tokens=False).ids

    def to_json(self) -> str:
        """The text of a tokenizer.json, from which `read_tokenizer` makes the same tokenizer."""
        return self.text

    @cached_property
    def context(self) -> int:
        """How many tokens a caption has, start, end and padding included."""
        return (self._codec.truncation or {})["max_length"]

    @cached_property
    def vocab_size(self) -> int:
        """How many ids there are; all are below it."""
        return max(self._codec.get_vocab(with_added_tokens=True).values()) + 1

    @cached_property
    def pad_id(self) -> int:
        return (self._codec.padding or {})["pad_id"]

    @cached_property
    def start_id(self) -> int:
        return _ends(self._codec)[0]

    @cached_property
    def end_id(self) -> int:
        return _ends(self._codec)[1]

    @cached_property
    def _codec(self) -> tokenizers.Tokenizer:
        codec = _parse(self.text)
        codec.encode_special_tokens = True
        return codec

    @cached_property
    def _plain(self) -> tokenizers.Tokenizer:
        """The same without context and padding."""
        codec = _parse(self.text)
        codec.encode_special_tokens = True
        codec.no_truncation()
        codec.no_padding()
        return codec


def valid_unicode(caption: str) -> str:
    """The caption with half surrogate pairs, which no encoding has bytes for, as U+FFFD."""
    return caption.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _parse(text: str) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(f"not a tokenizer.json: {str(error).partition(chr(10))[0]}") from error


def _ends(codec: tokenizers.Tokenizer) -> tuple[int, int]:
    """The ids of the tokens that a caption starts and ends with."""
    for names in ENDS:
        start, end = map(codec.token_to_id, names)
        if start is not None and end is not None:
            return start, end
    known = " or ".join(" and ".join(names) for names in ENDS)
    raise ValueError(f"the tokenizer has no start and end tokens: expected {known}")


def _framed(codec: tokenizers.Tokenizer, context: int, pad_id: int) -> Tokenizer:
    """The tokenizer that cuts and pads to `context`."""
    if not 2 <= context <= MAX_CONTEXT:
        raise ValueError(f"context={context}: expected 2 (start and end) to {MAX_CONTEXT}")
    pad = codec.id_to_token(pad_id) if pad_id >= 0 else None
    if pad is None:
        raise ValueError(f"pad_id={pad_id} is not one of the tokenizer's ids")
    codec.enable_truncation(context)
    codec.enable_padding(length=context, pad_id=pad_id, pad_token=pad)
    return Tokenizer(codec.to_str())


def train_bpe(captions: Iterable[str], vocab_size: int, context: int) -> Tokenizer:
    """A byte-level BPE of at most `vocab_size` ids, after lower case, NFC and single spaces [Radford19, sec. 2.2].

    Ids 0, 1, 2 are padding, end and start, the next 256 are bytes. (An end of 2 is one that transformers' CLIP does not
    look for: it takes the largest id for the end.) The same captions give the same tokenizer, whatever their order.

    Raises:
        ValueError: if there are no captions, or vocab_size or context is too small.
    """
    if vocab_size < 3 + BYTES:
        raise ValueError(f"vocab_size={vocab_size} is too small: expected {3 + BYTES} (the bytes and 3) or more")
    captions = iter(captions)
    if (first := next(captions, None)) is None:
        raise ValueError("there are no captions to train a tokenizer on")
    codec = tokenizers.Tokenizer(models.BPE())
    one_space = normalizers.Replace(tokenizers.Regex(r"\s+"), " ")
    codec.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.NFC(), one_space, normalizers.Strip()]
    )
    codec.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    codec.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, END, START],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    codec.train_from_iterator(map(valid_unicode, itertools.chain([first], captions)), trainer)
    codec.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(END, 1), (START, 2)]
    )
    return _framed(codec, context, pad_id=0)


def read_tokenizer(path: Path, context: int | None = None, pad_id: int | None = None) -> Tokenizer:
    """The tokenizer in a tokenizer.json, or in a folder with one or with CLIP's vocab.json and merges.txt.

    None takes what the files state; where they state no padding, the end token, as transformers' CLIP does.

    Raises:
        ValueError: if a file is no tokenizer's, has no start and end, or no context is stated or given.
        FileNotFoundError: if there is no such file.
    """
    try:
        codec, stated = _open(Path(path))
        context = context or stated
        if context is None:
            raise ValueError("it states no context: give one")
        if pad_id is None:
            pad_id = codec.padding["pad_id"] if codec.padding else _ends(codec)[1]
        return _framed(codec, context, pad_id)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _open(path: Path) -> tuple[tokenizers.Tokenizer, int | None]:
    """A path's tokenizer, and the context that it states."""
    file = path / "tokenizer.json" if path.is_dir() else path
    if file.is_file():
        codec = _parse(_read_text(file))
        if codec.truncation:
            return codec, codec.truncation["max_length"]
    elif (path / "vocab.json").is_file() and (path / "merges.txt").is_file():
        codec = _open_clip(path)
    else:
        raise FileNotFoundError(f"there is no {file}" + (", nor a vocab.json and merges.txt" if path.is_dir() else ""))
    beside = file.with_name("tokenizer_config.json")
    length = _read_object(beside).get("model_max_length") if beside.is_file() else None
    return codec, length if isinstance(length, int) and length <= MAX_CONTEXT else None


def _open_clip(folder: Path) -> tokenizers.Tokenizer:
    """CLIP's own tokenizer from its vocabulary and merges."""
    vocab = _read_object(folder / "vocab.json")
    lines = _read_text(folder / "merges.txt").splitlines()
    merges = [tuple(line.split()) for line in lines if line and not line.startswith("#version")]
    if not all(type(i) is int and i >= 0 for i in vocab.values()) or any(len(merge) != 2 for merge in merges):
        raise ValueError("vocab.json has to give every token an id, merges.txt two tokens a line")
    if missing := [token for merge in merges for token in (*merge, "".join(merge)) if token not in vocab]:
        raise ValueError(f"merges.txt has {missing[0]!r}, which vocab.json lacks")
    if missing := [token for token in ENDS[1] if token not in vocab]:
        raise ValueError(f"vocab.json lacks {missing[0]!r}")
    from transformers import CLIPTokenizer  # slow to import

    return _parse(CLIPTokenizer(vocab=vocab, merges=merges).backend_tokenizer.to_str())  # pyright: ignore


def _read_text(path: Path) -> str:
    if path.stat().st_size > MAX_FILE:
        raise ValueError(f"{path.name} is larger than {MAX_FILE} bytes")
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is not UTF-8 text") from error


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = bounded_json.loads(_read_text(path))
    except ValueError as error:
        raise ValueError(f"{path.name} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} is not a JSON object")
    return value


class Tokenized:
    """A source whose captions are also there as `ids` int32 [L] and `mask` bool [L]; with K `false_captions` also so
    many false ones, as `false_ids` and `false_mask` [K L]."""

    def __init__(self, source: Source, tokenizer: Tokenizer, false_captions: int = 0):
        self._source, self._tokenizer, self._false_captions = source, tokenizer, false_captions
        self.broken = getattr(source, "broken", {})

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        example = self._source[index]
        if "text" not in example:
            raise DataError(f"element {index} has no caption: set data.caption_field, or leave it out of the data")
        tokens = self._tokenizer([example["text"]])
        tokenized = {**example, "ids": tokens.ids[0], "mask": tokens.mask[0]}
        if not self._false_captions:
            return tokenized
        wanted, known = self._false_captions, example.get("false_texts", ())
        if len(known) < wanted:
            raise DataError(
                f"false_captions={wanted} and element {index} has {len(known)}: set it to {len(known)} or less"
            )
        tokens = self._tokenizer(known[:wanted])
        return {**tokenized, "false_ids": tokens.ids, "false_mask": tokens.mask}
