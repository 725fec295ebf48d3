"""Models made of other models: a directory with `model_index.json` and a folder for each part."""

import dataclasses
import functools
import hashlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flaxgen
from flaxgen import parallel
from flaxgen.family import files
from flaxgen.family.family import Family
from flaxgen.family.request import Request
from flaxgen.family.trained import Answering, Handler, Trained, describe_verbs
from flaxgen.train.config import require
from flaxgen.weights import store

INDEX = "model_index.json"
PLACES = ("clip", "clip_2", "t5", "autoencoder", "cache", "start")
"""Fields of a config that say where something lay on the machine that trained it."""


class Part(NamedTuple):
    """One part of a composite: a model of that family, whose net is of the class `net`. With `warn_missing` a line on
    stderr says that it is listed and not there, and what follows from that. It works on what the part `after` makes."""

    family: Family
    net: type = object
    warn_missing: str = ""
    after: str = ""


Parts = Mapping[str, Trained]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Composite:
    """A family whose models are made of models of other families, by name; none of the `parts` has to be there.

    `check(parts)` refuses parts that do not belong together, naming the part; `note(parts)` is a line to say of parts
    that are composed, "" for none; `model(parts, composite)` is what answers the `requests`.
    """

    name: str
    parts: Mapping[str, Part]
    model: type["Assembled"]
    requests: Mapping[type[Request], Handler]
    check: Callable[[Parts], None] = lambda parts: None
    note: Callable[[Parts], str] = lambda parts: ""
    instead: str = ""

    def reads(self, directory: Path) -> bool:
        """Whether the directory holds such parts rather than one model."""
        return (directory / INDEX).is_file() and store.read_json(directory / INDEX).get("type") == self.name

    def folders(self, directory: Path) -> dict[str, Path]:
        """The folder of each part that is listed, there or not.

        Raises:
            ValueError: if something else is listed, or lies elsewhere.
        """
        listed = store.read_json(directory / INDEX).get("stages", {})
        known = isinstance(listed, dict) and set(listed) <= set(self.parts)
        expected = f"expected a folder for some of {', '.join(self.parts)}"
        require(known, f"{directory / INDEX}: stages={listed!r}: {expected}")
        for name, folder in listed.items():
            in_here = os.path.basename(str(folder)) == folder and folder not in ("", ".", "..")
            require(in_here, f"{directory / INDEX}: {name} is in {folder!r}: expected the name of a folder")
        return {name: directory / folder for name, folder in listed.items()}

    def load(self, directory: str | Path, plan: parallel.Plan | None = None, sequential: bool = False) -> Any:
        """The parts that the directory has. The weights of `sequential` ones stay in their files: a part reads them
        when it is its turn in a request, and drops them after.

        Raises:
            ValueError: if a part cannot be read, or the parts do not belong together.
        """
        folders, plan = self.folders(Path(directory)), plan or parallel.make_plan("jit")
        there = {name: folder for name, folder in folders.items() if folder.is_dir()}
        parts = {name: self.load_part(name, folder, plan, sequential) for name, folder in there.items()}
        self._check(parts, str(directory))
        gone = [name for name in folders if name not in parts and self.parts[name].warn_missing]
        if gone and parallel.process_index() == 0:
            print(f"warning: {directory} lacks the part {gone[0]!r}: {self.parts[gone[0]].warn_missing}",
                  file=sys.stderr)  # fmt: skip
        return self.model(parts, self, str(directory))

    def as_stored(self, model: Any) -> Any:
        """A model that was loaded from a directory, with the weights of all parts in their dtypes there."""
        return dataclasses.replace(model, parts=_as_stored(model.parts))

    def load_part(self, name: str, directory: Path, plan: parallel.Plan, sequential: bool = False) -> Trained:
        """One part from a run or model directory of its own; see `load`.

        Raises:
            ValueError: if it is something else.
        """
        part = self.parts[name]
        try:
            kind = type(part.family.read_config(directory)[0].net)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        expected = f"expected {part.net.__name__}"
        require(issubclass(kind, part.net), f"{name}: {directory} has the net {kind.__name__}: {expected}")
        return part.family.load(directory, plan, sequential)

    def _check(self, parts: Parts, where: str) -> None:
        try:
            self.check(parts)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error

    def compose(self, directory: Path, sources: Mapping[str, Path], dtype: str | None = None) -> None:
        """Writes the model directory of the parts in `sources`, runs or model directories by name; `dtype` is what
        weights are rounded to, such as "float16".

        Raises:
            ValueError: if a part is not known or not what it is called, the parts do not belong together, or the
                directory is not empty.
        """
        unknown = [name for name in sources if name not in self.parts]
        require(not unknown, f"part {', '.join(unknown)} is not known: expected some of {', '.join(self.parts)}")
        for name, after in ((name, self.parts[name].after) for name in sources):
            require(not after or after in sources, f"{name} works on what {after} makes: give both, or call it {after}")
        here = parallel.make_plan("jit")
        parts = {name: self.load_part(name, Path(path), here) for name, path in sources.items()}
        self._check(parts, "the parts do not belong together")
        if said := self.note(parts):
            print(said, file=sys.stderr)
        self.write(directory, _as_stored(parts), dtype)

    def write(self, directory: Path, parts: Parts, dtype: str | None = None) -> None:
        """Writes the model directory of those parts.

        Raises:
            ValueError: if it holds anything yet.
        """
        files.new_directory(directory)
        for name, part in parts.items():
            config = _without_places(part.config)
            part.family.write_model(directory / name, config, part.params, part.step, part.files, dtype)
        self.write_index(directory, tuple(name for name in self.parts if name in parts))

    def write_index(self, directory: Path, names: tuple[str, ...]) -> None:
        """Says which folders of the directory are parts."""
        index = {"flaxgen": flaxgen.__version__, "type": self.name, "stages": {name: name for name in names}}
        (directory / INDEX).write_text(json.dumps(index, indent=2) + "\n", "utf-8")


def _as_stored(parts: Parts) -> Parts:
    return {name: part.family.as_stored(part) for name, part in parts.items()}


def _without_places(config: Any) -> Any:
    """The config less where its data, its CLIP and the weights it began with lay, which no other machine knows."""
    return dataclasses.replace(config, **{name: "" for name in PLACES if hasattr(config, name)})


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Assembled(Answering):
    """A composite that is loaded: its parts by name."""

    parts: Parts
    composite: Composite
    name: str = ""

    @property
    def requests(self) -> Mapping[type[Request], Handler]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What such a model can be asked."""
        return self.composite.requests

    @property
    def kind(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What the composite is called."""
        return self.composite.name

    @property
    def step(self) -> int:
        """The most steps that a part was trained for."""
        return max((part.step for part in self.parts.values()), default=0)

    @functools.cached_property
    def fingerprint(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What tells these weights from others: the parts' own, in a hash."""
        joined = "".join(f"{name} {files.fingerprint(part.weights)}" for name, part in sorted(self.parts.items()))
        return hashlib.sha256(joined.encode()).hexdigest()[:12]

    def __repr__(self) -> str:
        names = ", ".join(name for name in self.composite.parts if name in self.parts)
        return "\n".join([f"{self.kind} model of {names}", *describe_verbs(self.verbs)])
