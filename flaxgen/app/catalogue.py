"""The models of a studio, chosen when it starts: what is known of each before its weights are read."""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from flaxgen import parallel, verbs
from flaxgen.family import directory, files
from flaxgen.family.composite import Composite
from flaxgen.family.request import Request
from flaxgen.family.trained import Handler
from flaxgen.train.config import require

NAMES = re.compile(r"[^A-Za-z0-9._-]+")
SCENES = (
    "a red circle above a blue square",
    "one big yellow triangle",
    "a small green ring on the left and a purple cross on the right",
    "there is a cyan square below a large red circle",
    "a picture of a blue cross",
)
"""Captions of the drawn scenes."""


class Entry(NamedTuple):
    """A model by its `name`. `blank` is the model without weights, which checks ask; `load()` is the model itself."""

    name: str
    family: str
    description: str
    examples: tuple[str, ...]
    size: tuple[int, int] | None
    requests: Mapping[type[Request], Handler]
    blank: Any
    load: Callable[[], Any]

    @property
    def verbs(self) -> dict[str, type[Request]]:
        """What it can be asked, by name."""
        return {kind.verb: kind for kind in self.requests}


def find_models(named: Sequence[str]) -> dict[str, Entry]:
    """The models of these names or directories, or all that come with the package, by the name that the studio gives
    them: that of the directory.

    Raises:
        ValueError, OSError: if one cannot be read, draws nothing, or two have one name.
    """
    entries: dict[str, Entry] = {}
    for model in named or sorted(verbs.shipped(), key=lambda name: name != verbs.SHIPPED):
        path = verbs.find(model)
        entry = describe(NAMES.sub("-", path.resolve().name)[:64], path)
        require(bool(entry.requests), f"{model} is {entry.family}: it {_instead(path)}")
        require(entry.name not in entries, f"two models are called {entry.name}: rename one of their directories")
        entries[entry.name] = entry
    require(bool(entries), "this installation comes without a model: name one")
    return entries


def _instead(path: Path) -> str:
    return directory.family_in(path, verbs.families()).instead or "draws nothing"


def describe(name: str, path: Path) -> Entry:
    """The model in a directory, under that name.

    Raises:
        ValueError, OSError: if it cannot be read.
    """
    family = directory.family_in(path, verbs.families())
    if isinstance(family, Composite):
        parts = {part: folder for part, folder in family.folders(path).items() if folder.is_dir()}
        blank = family.model({part: _blank(family.parts[part].family, parts[part]) for part in parts}, family, name)
        description = f"{family.name}, of {len(parts)} parts"
    else:
        blank = _blank(family, path)
        description = f"{family.name}, {type(blank.config.net).__name__}"
    load = functools.partial(_load, name, path)
    return Entry(name, family.name, description, _examples(blank), _size(blank), family.requests, blank, load)


def _blank(family: Any, path: Path) -> Any:
    """A model as it is in the directory, without its weights."""
    config, step = family.read_config(path)
    return family.trained(config, {}, step, parallel.jit_plan(), files.read_files(path, family.files))


def _load(name: str, path: Path) -> Any:
    """The model, called by the name it has here: no path of this machine gets into a picture."""
    return renamed(directory.family_in(path, verbs.families()).load(path), name)


def renamed(model: Any, name: str) -> Any:
    """The same model under another name."""
    return dataclasses.replace(model, name=name)


def _examples(blank: Any) -> tuple[str, ...]:
    try:
        return SCENES if blank.data.source == "scenes" else ()
    except (AttributeError, ValueError, KeyError):  # a model of parts that are not there, or without data
        return ()


def _size(blank: Any) -> tuple[int, int] | None:
    """Width and height of what it draws; None where that is not known without its weights."""
    try:
        side = getattr(blank, "image_size", None) or blank.data.image_size
    except (AttributeError, ValueError, KeyError, TypeError):
        return None
    return (side, side) if isinstance(side, int) and side > 0 else None


def bytes_of(model: Any) -> int:
    """What the weights of a model take in memory."""
    parts = getattr(model, "parts", {"": model}).values()
    return sum(leaf.nbytes for part in parts for leaf in jax.tree.leaves(getattr(part, "params", {})))
