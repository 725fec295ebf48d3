"""dalle-mini and dalle-mega [Dayma21]: a folder of DalleBart with its tokenizer. Their VQGANs are models of their own,
of taming's layout."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flaxgen.data import Data
from flaxgen.data.tokenize import Tokenizer
from flaxgen.family.coded import CodeDrawing
from flaxgen.family.files import new_directory
from flaxgen.family.trained import Files
from flaxgen.interchange.clip_files import read_clip_tokenizer, write_clip_tokenizer
from flaxgen.interchange.dalle_mini_text import with_spelling, without_spelling
from flaxgen.interchange.layout import Layout, refuse_overrides
from flaxgen.nets.dalle_mini import DalleMini
from flaxgen.train.config import require
from flaxgen.types import Params
from flaxgen.weights import store
from flaxgen.weights.dalle_mini import CONFIG, FILE, export_dalle_mini, import_dalle_mini
from flaxgen.zoo.dalle import FAMILY, TOKENIZER, Config, Model

SPELLED = "normalize_text"
"""The key of their config that says whether captions are spelled by rules first."""
DRAWING = CodeDrawing(guidance=10.0)
"""As their own code draws, where nothing else is asked for."""


def import_dalle_bart(folder: Path) -> tuple[Config, Params, Files]:
    """The transformer in a folder, with its tokenizer; fields of the config that are about training are not known and
    hold defaults. One without a tokenizer is imported, and a line on stderr says so.

    Raises:
        ValueError, OSError: if it cannot be read, or is of a kind that flaxgen does not know.
    """
    net, params = import_dalle_mini(folder)
    config = Config(seed=0, steps=1, batch_size=1, data=Data(source="folder"), net=net, drawing=DRAWING)
    return config, params, _tokenizer_file(folder, net)


def _tokenizer_file(folder: Path, net: DalleMini) -> Files:
    if not (folder / "tokenizer.json").is_file():
        print(f"{folder} has no tokenizer.json: the model cannot read captions", file=sys.stderr)
        return {}
    tokenizer = read_clip_tokenizer(folder, net.context)
    require(
        tokenizer.vocab_size <= net.text_tokens,
        f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens and the encoder knows {net.text_tokens}",
    )
    text = tokenizer.to_json()
    if store.read_json(folder / "config.json").get(SPELLED) is True:
        text = with_spelling(text)
        print(f"{folder}: captions are spelled by its rules, but for hashtags and other scripts", file=sys.stderr)
    return {TOKENIZER: text.encode()}


def export_dalle_bart(model: Model, directory: Path) -> None:
    """Writes a folder that DalleBart reads, with the tokenizer where the model has one.

    Raises:
        ValueError: if dalle-mini has no such net.
    """
    net: Any = model.config.net
    require(isinstance(net, DalleMini), f"a {type(net).__name__} has no counterpart in dalle-mini: not exported")
    new_directory(directory)
    export_dalle_mini(net, model.params, directory)
    if TOKENIZER not in model.files:
        return
    text, spelled = without_spelling(model.tokenizer.to_json())
    write_clip_tokenizer(Tokenizer(text), directory)
    if spelled:
        config = store.read_json(directory / "config.json")
        store.write_json(directory / "config.json", {**config, SPELLED: True})


def _matches(folder: Path) -> bool:
    config = folder / "config.json"
    return config.is_file() and store.read_json(config).get("model_type") == CONFIG.name


def _read(folder: Path, target: Path, overrides: Sequence[str]) -> None:
    refuse_overrides(folder, overrides)
    config, params, files = import_dalle_bart(folder)
    FAMILY.write_model(target, config, params, 0, files)


LAYOUT = Layout(
    "dalle-mini",
    f"config.json of a {CONFIG.name} beside {FILE}",
    FAMILY,
    _matches,
    _read,
    export_dalle_bart,
    files=("*.json", FILE),
)
