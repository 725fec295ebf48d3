"""Configs as data: overrides from the command line by dotted path, and JSON there and back.

A config is a frozen dataclass whose fields are plain values, tuples of them, other such dataclasses, or Linen modules
(which are dataclasses too). What may appear in JSON is a closed table of types that the caller passes in; nothing is
imported by name, and no code is ever loaded from a file.
"""

import ast
import dataclasses
import difflib
import hashlib
import json
import math
import sys
import types
import typing
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from flax import linen as nn

Config = TypeVar("Config")
Types = Mapping[str, type]
MISMATCH = object()
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
            return [_differences(v, MISMATCH, free, path) for v in value]
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
    return MISMATCH if _is_required(field) else field.metadata.get(ABSENT, field.default)


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
    value = _fit(decode(data, known), annotation)
    if value is MISMATCH:
        raise ValueError(f"config field {kind.__name__}.{key}={data!r}: expected {_describe(annotation)}")
    return value


def override(config: Config, assignments: Iterable[str]) -> Config:
    """The config with `a.b=value` assignments applied, each value parsed by the type of its field.

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
            owner, inner = config, changes
            for key in parents:
                owner, inner = _descend(owner, key, path), inner.setdefault(key, {})
            inner[last] = _read(owner, last, text, path)
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


def _descend(config: Any, key: str, path: str) -> Any:
    _field_type(type(config), key, path)
    inner = getattr(config, key)
    if not dataclasses.is_dataclass(inner):
        raise ValueError(f"{path}: {key} is a plain value ({inner!r}) and has no fields")
    return inner


def _read(config: Any, key: str, text: str, path: str) -> Any:
    annotation = _field_type(type(config), key, path)
    inner = getattr(config, key)
    try:
        return _parse(path, text, annotation)
    except ValueError:
        if not dataclasses.is_dataclass(inner):
            raise
        names = ", ".join(f"{path}.{name}" for name in fields(type(inner)))
        raise ValueError(f"{path} is a {type(inner).__name__}: set one of {names}") from None


def _replace(config: Any, changes: Mapping[str, Any], path: str) -> Any:
    """All changes of one dataclass at once, the inner ones first."""
    values = {
        key: _replace(getattr(config, key), change, f"{path}{key}.") if isinstance(change, dict) else change
        for key, change in changes.items()
    }
    try:
        return dataclasses.replace(config, **values)
    except ValueError as error:
        raise ValueError(f"{path}{error}") from None


def _field_type(kind: type, key: str, path: str) -> Any:
    names = fields(kind)
    if key not in names:
        near = difflib.get_close_matches(key, names, n=1, cutoff=0.0)
        prefix = path.rpartition(".")[0] if path.endswith(key) else ""
        nearest = f"{prefix}.{near[0]}" if prefix else near[0]
        raise ValueError(f"{path} is not a field of {kind.__name__}: the nearest is {nearest}")
    return names[key]


def _parse(path: str, text: str, annotation: Any) -> Any:
    """Text to a value of the annotated type; what is no Python literal is a string."""
    literal = {"none": "None", "null": "None", "true": "True", "false": "False"}.get(text.lower(), text)
    try:
        value = _tuples(ast.literal_eval(literal))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        value = text
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{path}={text}: expected a finite number")
    for candidate in (value, text, (value,) if text else (), _as_int(value)):
        fitted = _fit(candidate, annotation)
        if fitted is not MISMATCH:
            return fitted
    raise ValueError(f"{path}={text}: expected {_describe(annotation)}")


def _tuples(value: Any) -> Any:
    """Lists as tuples, all the way down."""
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def _as_int(value: Any) -> Any:
    """1e5 is a fine way to write a count."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _fit(value: Any, annotation: Any) -> Any:
    """The value, with integers as numbers where numbers are meant, or MISMATCH."""
    if _matches(value, annotation):
        return value
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        fitted = (_fit(value, arg) for arg in args)
        return next((x for x in fitted if x is not MISMATCH), MISMATCH)
    if origin is tuple and isinstance(value, tuple):
        each = _each(value, args)
        fitted = tuple(map(_fit, value, each))
        return MISMATCH if len(each) != len(value) or any(x is MISMATCH for x in fitted) else fitted
    whole = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if whole and annotation is float and abs(value) <= sys.float_info.max else MISMATCH


def _each(value: tuple, args: tuple) -> tuple:
    """The type of each element of a tuple of these type arguments."""
    return args[:1] * len(value) if args[-1] is Ellipsis else args


def _matches(value: Any, annotation: Any) -> bool:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_matches(value, arg) for arg in args)
    if origin is typing.Literal:
        return value in args
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        each = _each(value, args)
        return len(each) == len(value) and all(map(_matches, value, each))
    if annotation is None or annotation is type(None):
        return value is None
    if isinstance(value, bool):
        return annotation is bool
    return isinstance(value, annotation)


def _describe(annotation: Any) -> str:
    args = typing.get_args(annotation)
    if typing.get_origin(annotation) is typing.Literal:
        return "one of " + ", ".join(map(str, args))
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return " or ".join(map(_describe, args))
    if typing.get_origin(annotation) is tuple:
        return "a list such as 1,2,2 (nothing after = for an empty one)"
    names = {int: "an integer", float: "a number", bool: "true or false", str: "a string", type(None): "none"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))
