"""Configs as data: overrides from the command line by dotted path, and JSON there and back.

A config is a frozen dataclass whose fields are plain values, tuples of them, other such dataclasses, or Linen modules
(which are dataclasses too). What may appear in JSON is a closed table of types that the caller passes in; nothing is
imported by name, and no code is ever loaded from a file.
"""

import dataclasses
import difflib
import hashlib
import json
import typing
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from flax import linen as nn

from flaxgen.train import typed

Config = TypeVar("Config")
Types = Mapping[str, type]
ABSENT = "absent"
"""Metadata of a config's field that came later: what a config without it meant, where that is not the default."""


def require(condition: bool, message: str) -> None:
    """Raises ValueError with the message unless the condition holds; for checking the values of a config."""
    if not condition:
        raise ValueError(message)


def fields(kind: type) -> dict[str, Any]:
    """The settable fields of a config class and their types; a Linen module's `parent` and `name` are not."""
    hidden = {"parent", "name"} if issubclass(kind, nn.Module) else set()
    return {f.name: f.type for f in dataclasses.fields(kind) if f.init and f.name not in hidden}


def types_in(kind: type) -> list[type]:
    """The config classes that the fields of a config class may hold, at any depth."""
    found: list[type] = []
    for inner in (one for annotation in fields(kind).values() for one in _named_in(annotation)):
        if dataclasses.is_dataclass(inner) and isinstance(inner, type) and inner not in found:
            found += [one for one in (inner, *types_in(inner)) if one not in found]
    return found


def _named_in(annotation: Any) -> list[Any]:
    """The types that an annotation names, at any depth."""
    return [annotation, *(one for arg in typing.get_args(annotation) for one in _named_in(arg))]


def encode(value: Any, known: Types) -> Any:
    """The config as JSON values: a dataclass becomes its fields beside `type`, its name in `known`; a tuple a list.

    Raises:
        TypeError: for a value that is not data of a known type.
    """
    if type(value) in known.values():
        name = next(name for name, kind in known.items() if kind is type(value))
        return {"type": name} | {key: encode(getattr(value, key), known) for key in fields(type(value))}
    if isinstance(value, tuple):
        return [encode(v, known) for v in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a config holds plain values, and of types {', '.join(known)}, not {value!r}")


def fingerprint(config: Any, free: Collection[str] = ()) -> str:
    """A hash of what the config says, by which runs are known apart; `free` names the dotted paths that may change.

    A field says nothing at its default, or, where it has ABSENT, at that: a later version that has more fields gives
    the same hash.
    """
    said = _differences(config, None, free, "")
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


def _differences(value: Any, default: Any, free: Collection[str], path: str) -> Any:
    """What `value` says beyond `default`, or beyond its class; None for nothing."""
    if not dataclasses.is_dataclass(value):
        if isinstance(value, tuple) and value != default:
            return [_differences(v, typed.MISMATCH, free, path) for v in value]
        return None if value == default else {"value": value}
    same = type(default) is type(value)
    said: dict[str, Any] = {} if same else {"type": type(value).__name__}
    for name in (name for name in fields(type(value)) if f"{path}{name}" not in free):
        before = getattr(default, name) if same else _default(type(value), name)
        more = _differences(getattr(value, name), before, free, f"{path}{name}.")
        said |= {} if more is None else {name: more}
    return said or None


def _default(kind: type, name: str) -> Any:
    field = next(field for field in dataclasses.fields(kind) if field.name == name)
    return typed.MISMATCH if _is_required(field) else field.metadata.get(ABSENT, field.default)


def decode(data: Any, known: Types) -> Any:
    """The inverse of `encode`; a field that is missing takes its default, or, where it has ABSENT, that.

    A type that was written otherwise by an older version has a class method `upgrade`, which takes the JSON of its
    fields, of any version, and returns it as the type has them now.

    Raises:
        ValueError: for a type that is not in `known`, a field that is unknown or lacks, or a value of the wrong type.
    """
    if isinstance(data, list):
        return tuple(decode(v, known) for v in data)
    if not isinstance(data, dict):
        return data
    name = data.get("type")
    if not isinstance(name, str) or name not in known:
        raise ValueError(f"config type {name!r} is not known to this version: expected one of {', '.join(known)}")
    kind = known[name]
    written = _upgrade(kind, {key: value for key, value in data.items() if key != "type"})
    values = {key: _decode_field(kind, key, value, known) for key, value in written.items()}
    missing = [field.name for field in dataclasses.fields(kind) if _is_required(field) and field.name not in values]
    require(not missing, f"config type {name} lacks the field {', '.join(missing)}")
    later = {field.name: field.metadata[ABSENT] for field in dataclasses.fields(kind) if ABSENT in field.metadata}
    return kind(**{**later, **values})


def keep_former(config: Config, saved: Any) -> Config:
    """The config of a run that goes on, `saved` being its config of before: where it has a field at its default, and
    `saved` at what older versions meant (ABSENT), it stays as it was."""
    changes = {}
    for field in dataclasses.fields(config):  # pyright: ignore[reportArgumentType]
        ours, theirs = getattr(config, field.name, None), getattr(saved, field.name, None)
        if dataclasses.is_dataclass(ours) and type(ours) is type(theirs):
            kept = keep_former(ours, theirs)
        else:
            former = ABSENT in field.metadata and ours == field.default and theirs == field.metadata[ABSENT]
            kept = theirs if former else ours
        if kept is not ours:
            changes[field.name] = kept
    return dataclasses.replace(config, **changes) if changes else config  # pyright: ignore


def _upgrade(kind: type, written: dict[str, Any]) -> dict[str, Any]:
    upgrade = getattr(kind, "upgrade", None)
    if upgrade is None:
        return written
    try:
        return upgrade(written)
    except (TypeError, AttributeError, LookupError, ArithmeticError) as error:
        raise ValueError(f"config type {kind.__name__} has fields that no version wrote: {error}") from None


def _is_required(field: dataclasses.Field) -> bool:
    return field.init and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _decode_field(kind: type, key: str, data: Any, known: Types) -> Any:
    annotation = _field_type(kind, key, key)
    value = typed.fit(decode(data, known), annotation)
    if value is typed.MISMATCH:
        raise ValueError(f"config field {kind.__name__}.{key}={data!r}: expected {typed.describe(annotation)}")
    return value


def override(config: Config, assignments: Iterable[str]) -> Config:
    """The config with `a.b=value` assignments applied, each value parsed by the type of its field; `a.0.b` is a field
    of the first of the configs in `a`.

    All are applied before any is checked against the others. `size=N` sets every `image_size`, of data and nets alike.

    Raises:
        ValueError: one line that names the key, what it expects, and the nearest valid key.
    """
    changes: dict[str, Any] = {}
    for assignment in assignments:
        named, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals:
            raise ValueError(f"--set {assignment}: expected KEY=VALUE, for example --set batch_size=64")
        for path in _sizes(config, text) if named == "size" and named not in fields(type(config)) else [named]:
            *parents, last = path.split(".")
            owner, kind, inner = config, type(config), changes
            for key in parents:
                owner, kind = _descend(owner, kind, key, path)
                inner = inner.setdefault(key, {})
                require(isinstance(inner, dict), f"{path}: {key} is set as a whole too, set one of the two")
            inner[last] = _read(owner, kind, last, text, path)
    return _replace(config, changes, "")


def _sizes(config: Config, text: str) -> list[str]:
    """The paths of every `image_size`, where all are the same size or 0, which takes what is there."""
    found = dict(_named(config, "image_size"))
    fixed = [(path, size) for path, size in found.items() if size]
    other = next((each for each in fixed if each[1] != fixed[0][1]), None)
    if other is not None:
        (one, size), (two, differs) = fixed[0], other
        raise ValueError(f"size={text}: {one}={size} and {two}={differs} differ, set each of them")
    if not found:
        raise ValueError(f"size={text}: {type(config).__name__} has no image_size")
    return list(found)


def _named(config: Any, name: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every field of that name at any depth, and its value."""
    for key in fields(type(config)):
        value = getattr(config, key)
        if key == name:
            yield f"{prefix}{key}", value
        elif dataclasses.is_dataclass(value):
            yield from _named(value, name, f"{prefix}{key}.")


def _descend(owner: Any, kind: Any, key: str, path: str) -> tuple[Any, Any]:
    """What a config, or a tuple in one, has under a key, and its type; it has fields or elements itself."""
    inner, annotation = _get(owner, kind, key, path)
    if not (dataclasses.is_dataclass(inner) or (isinstance(inner, tuple) and inner)):
        raise ValueError(f"{path}: {key} is a plain value ({inner!r}) and has no fields")
    return inner, annotation


def _get(owner: Any, kind: Any, key: str, path: str) -> tuple[Any, Any]:
    if not isinstance(owner, tuple):
        annotation = _field_type(type(owner), key, path)
        return getattr(owner, key), annotation
    if not key.isdecimal() or int(key) >= len(owner):
        raise ValueError(f"{path}: expected one of its {len(owner)} elements, 0 to {len(owner) - 1}, not {key}")
    return owner[int(key)], typed.types_of(owner, kind)[int(key)]


def _read(owner: Any, kind: Any, key: str, text: str, path: str) -> Any:
    inner, annotation = _get(owner, kind, key, path)
    try:
        return typed.parse(path, text, annotation)
    except ValueError:
        if not dataclasses.is_dataclass(inner):
            raise
        names = ", ".join(f"{path}.{name}" for name in fields(type(inner)))
        raise ValueError(f"{path} is a {type(inner).__name__}: set one of {names}") from None


def _replace(config: Any, changes: Mapping[str, Any], path: str) -> Any:
    """All changes of one dataclass, or of a tuple of them, at once, the inner ones first."""
    if isinstance(config, tuple):
        return tuple(_changed(inner, changes.get(str(i), inner), f"{path}{i}.") for i, inner in enumerate(config))
    changed = {key: _changed(getattr(config, key), change, f"{path}{key}.") for key, change in changes.items()}
    try:
        return dataclasses.replace(config, **changed)
    except ValueError as error:
        raise ValueError(f"{path}{error}") from None


def _changed(inner: Any, change: Any, path: str) -> Any:
    return _replace(inner, change, path) if isinstance(change, dict) else change


def _field_type(kind: type, key: str, path: str) -> Any:
    names = fields(kind)
    if key not in names:
        near = difflib.get_close_matches(key, names, n=1, cutoff=0.0)
        prefix = path.rpartition(".")[0] if path.endswith(key) else ""
        nearest = f"{prefix}.{near[0]}" if prefix else near[0]
        raise ValueError(f"{path} is not a field of {kind.__name__}: the nearest is {nearest}")
    return names[key]
