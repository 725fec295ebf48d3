"""CLIPs of transformers, those of OpenAI and OpenCLIP in its layout too: a folder of both towers, or of one."""

import sys
from collections.abc import Sequence
from pathlib import Path

from flaxgen.data import Data
from flaxgen.family.files import new_directory
from flaxgen.family.trained import Files
from flaxgen.interchange.clip_files import pixels_of, preprocess_of, read_clip_tokenizer, write_clip_tokenizer
from flaxgen.interchange.layout import Layout, refuse_overrides
from flaxgen.nets.clip import TextTower
from flaxgen.train.config import require
from flaxgen.types import Params
from flaxgen.weights import store
from flaxgen.weights.clip import STEM, export_clip, import_clip
from flaxgen.weights.clip_config import BARE, KINDS, PREPROCESSOR, PROCESSOR, Pixels, read_pixels
from flaxgen.zoo.clip import FAMILY, TOKENIZER, Config, Model

LARGEST_ID = 2
"""An eos_token_id that stands for the largest id, as in OpenAI's own folders."""
PIXEL_FOLDERS = ("feature_extractor", "image_processor")
"""What pipelines call the folder beside a tower's that says how pictures are read."""


def import_transformers(folder: Path) -> tuple[Config, Params, Files]:
    """The CLIP in a folder, both towers or one, with its tokenizer; where the folder is one of a pipeline's, that and
    the preprocessing are those of the folders beside it.

    Fields of the config that are about training are not known and hold defaults. A text tower without a tokenizer is
    imported, and a line on stderr says so.

    Raises:
        ValueError, OSError: if it cannot be read, or is of a kind that flaxgen does not know.
    """
    net, params = import_clip(folder, keep_dtype=True)
    size, pixels = 0, Pixels()
    if net.vision is not None:
        size = net.vision.image_size
        pixels = read_pixels(_pixels_place(folder), size)
        net = net.clone(mean=pixels.mean, std=pixels.std)
    data, preprocess = Data(source="folder", image_size=size), preprocess_of(pixels)
    config = Config(seed=0, steps=1, batch_size=1, data=data, net=net, preprocess=preprocess)
    return config, params, {} if net.text is None else _tokenizer_file(folder, net.text)


def _pixels_place(folder: Path) -> Path:
    """Where a folder's preprocessing is: in it, or where it is one of a pipeline's beside it."""
    beside = [folder.parent / name for name in PIXEL_FOLDERS]
    places = (place for place in (folder, *beside) for name in (PREPROCESSOR, PROCESSOR) if (place / name).is_file())
    return next(places, folder)


def _tokenizer_file(folder: Path, tower: TextTower) -> Files:
    """tokenizer.json of the folder's tokenizer, or, of a pipeline's text_encoder/, of that in tokenizer/ beside it."""
    beside = folder.with_name(folder.name.replace("text_encoder", "tokenizer"))
    for place in (folder, beside):
        if (place / "tokenizer.json").is_file() or (place / "vocab.json").is_file():
            tokenizer = read_clip_tokenizer(place, tower.context)
            _check_end(folder, tokenizer.end_id, tokenizer.vocab_size)
            require(
                tokenizer.vocab_size <= tower.vocab_size,
                f"{place}: the tokenizer has {tokenizer.vocab_size} tokens and the text tower knows {tower.vocab_size}",
            )
            return {TOKENIZER: tokenizer.to_json().encode()}
    print(f"{folder} has no tokenizer: the model cannot read captions", file=sys.stderr)
    return {}


def _check_end(folder: Path, end_id: int, vocab_size: int) -> None:
    """transformers reads a caption's embedding where its config says that it ends, and flaxgen where it does."""
    config = store.read_json(folder / "config.json")
    stated = {**config, **(config.get("text_config") or {}), **(config.get("text_config_dict") or {})}
    end = stated.get("eos_token_id")
    known = (None, end_id, *([LARGEST_ID] if end_id == vocab_size - 1 else []))
    require(end in known, f"{folder}: eos_token_id={end!r}, and the tokenizer ends captions with {end_id}")


def export_transformers(model: Model, directory: Path) -> None:
    """Writes a folder that transformers' CLIPModel, or the class of the one tower, reads, with tokenizer and
    preprocessing as far as the model has them.

    Raises:
        ValueError: if transformers has no such net.
    """
    net = model.config.net
    tokenizer = model.tokenizer if net.text is not None and TOKENIZER in model.files else None
    end_id = None if tokenizer is None else tokenizer.end_id
    export_clip(net, model.params, directory, end_id, pixels_of(model.config.preprocess))
    if tokenizer is not None:
        write_clip_tokenizer(tokenizer, directory)


def _matches(folder: Path) -> bool:
    config = folder / "config.json"
    return config.is_file() and store.read_json(config).get("model_type") in KINDS


def _read(folder: Path, target: Path, overrides: Sequence[str]) -> None:
    refuse_overrides(folder, overrides)
    config, params, files = import_transformers(folder)
    FAMILY.write_model(target, config, params, 0, files)


def _write(model: Model, directory: Path) -> None:
    new_directory(directory)
    export_transformers(model, directory)


LAYOUT = Layout(
    "transformers",
    f"config.json of one of {', '.join((*KINDS.values(), *BARE.values()))}",
    FAMILY,
    _matches,
    _read,
    _write,
    files=("*.json", "*merges.txt", f"{STEM}*.safetensors"),
)
