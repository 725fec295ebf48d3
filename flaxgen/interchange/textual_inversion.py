"""Words of textual inversion as diffusers and A1111 read them, of runs of ours; they are drawn with by --word, and not
imported."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flaxgen.family.files import new_directory
from flaxgen.interchange.layout import Layout
from flaxgen.weights import store
from flaxgen.zoo.latent.adapt import WORDS
from flaxgen.zoo.latent.words import WORD, vectors_of

FILE = "learned_embeds.safetensors"
"""What diffusers' `load_textual_inversion` looks for in a folder."""


def export_word(model: Any, directory: Path) -> None:
    """Writes a word's vectors into a new directory: as {word: vectors} in FILE or, for two text encoders, as XL's two
    tensors in a file that is called as the word.

    Raises:
        ValueError: if the directory is not empty, or no file can be called so.
    """
    word, vectors = model.config.word.text, vectors_of(model)
    is_one = len(vectors) == 1
    name = FILE if is_one else f"{word}.safetensors"
    tensors: dict[str, Any] = dict(zip((word,) if is_one else WORDS, vectors, strict=True))
    if Path(name).name != name:
        raise ValueError(f"word.text={word!r}: XL's files are called as their word, and no file can be called so")
    new_directory(directory)
    store.write_file(directory / name, tensors)


def _read(place: Path, target: Path, overrides: Sequence[str]) -> None:
    raise ValueError(f"{place} is a word: draw with it by --word {place}")


LAYOUT = Layout("textual-inversion", "", WORD, lambda place: False, _read, export_word)
