"""What a foreign layout is: how to know it, read it and write it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from flaxgen.family.composite import Composite
from flaxgen.family.family import Family


class Layout(NamedTuple):
    """One public format of weights.

    `matches(place)` says whether a file or folder has it, by what is `looked_for` there. `read(place, target,
    overrides)` writes a model directory, where `overrides` give what the place does not say; a layout that says all
    refuses them. `write(model, directory)` is the way back, for models of `family`; one that is only
    written looks for "". Several layouts may have one `name`, which is the project whose they are.
    """

    name: str
    looked_for: str
    family: Family | Composite
    matches: Callable[[Path], bool]
    read: Callable[[Path, Path, Sequence[str]], None]
    write: Callable[[Any, Path], None] | None = None
    files: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()


def refuse_overrides(place: Path, overrides: Sequence[str]) -> None:
    """Raises ValueError where values are given for a model whose files say all."""
    if overrides:
        raise ValueError(f"--set {overrides[0]}: {place} has a config of its own, which says all: leave it out")
