"""What is beside a CLIP's weights in a folder of another project: its tokenizer, and how pictures come to it."""

import json
from pathlib import Path
from typing import Any

import tokenizers

from flaxgen.data.tokenize import Tokenizer, read_tokenizer
from flaxgen.family.extractor import Preprocess
from flaxgen.train.config import require
from flaxgen.weights import store
from flaxgen.weights.clip_config import Pixels

CLIPS = "</w>"
"""How words end in the vocabulary of CLIP's own tokenizer."""

SHARED = ("short_side", "squash", "filter")
"""Fields of `Preprocess` and of `Pixels`."""


def read_clip_tokenizer(folder: Path, context: int) -> Tokenizer:
    """The tokenizer of a folder, padding as its files say: Karlo's does with 0, by a token "!".

    Raises:
        ValueError: if its files are not a tokenizer's, or pad with a token that it does not have.
        FileNotFoundError: if there are none.
    """
    tokenizer = read_tokenizer(folder, context)
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        token = store.read_json(folder / name).get("pad_token") if (folder / name).is_file() else None
        if isinstance(token, dict):
            token = token.get("content")
        if token is not None:
            pad_id = tokenizers.Tokenizer.from_str(tokenizer.to_json()).token_to_id(str(token))
            require(pad_id is not None, f"{folder / name}: pad_token={token!r} is not one of the tokenizer's")
            return read_tokenizer(folder, context, pad_id)
    return tokenizer


def write_clip_tokenizer(tokenizer: Tokenizer, folder: Path) -> str:
    """Writes the tokenizer as CLIP's own class reads it, if it is one of its kind, else as any tokenizer.json is read;
    returns the name of the class."""
    codec = tokenizers.Tokenizer.from_str(tokenizer.to_json())
    start, end, pad = (codec.id_to_token(i) for i in (tokenizer.start_id, tokenizer.end_id, tokenizer.pad_id))
    described = json.loads(tokenizer.to_json())["model"]
    is_clips = described.get("end_of_word_suffix") == CLIPS
    kind = "CLIPTokenizer" if is_clips else "PreTrainedTokenizerFast"
    names: dict[str, Any] = {"bos_token": start, "eos_token": end, "unk_token": end, "pad_token": pad}
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer.to_json(), "utf-8")
    stated = {**names, "tokenizer_class": kind, "model_max_length": tokenizer.context}
    store.write_json(folder / "tokenizer_config.json", stated)
    if is_clips:  # transformers 4 reads these two
        store.write_json(folder / "vocab.json", described["vocab"])
        merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in described["merges"]]
        (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), "utf-8")
        store.write_json(folder / "special_tokens_map.json", names)
    return kind


def preprocess_of(pixels: Pixels) -> Preprocess:
    """How pictures come to the tower's size, as a CLIP's config says it; mean and deviation are its net's."""
    return Preprocess(**{name: getattr(pixels, name) for name in SHARED})


def pixels_of(preprocess: Preprocess) -> Pixels:
    """The inverse of `preprocess_of`."""
    return Pixels(**{name: getattr(preprocess, name) for name in SHARED})
