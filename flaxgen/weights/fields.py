"""The fields of a diffusers model's config.json, checked before any is believed."""

from collections.abc import Mapping
from typing import Any


def read_fields(
    config: Mapping[str, Any],
    name: str,
    defaults: Mapping[str, Any],
    optional: tuple[str, ...] = (),
    supported: Mapping[str, tuple[Any, ...]] | None = None,
) -> dict[str, Any]:
    """All fields of the model class `name`: what `config` gives over the defaults.

    A field has to be of its default's type (None: a number, or several), or None where it is `optional`; one of
    `supported` has to have a value listed there.

    Raises:
        ValueError: naming a field or a value that is not known.
    """
    found = config.get("_class_name", name)
    if found != name:
        raise ValueError(f"config.json is of a {found}, expected a {name}")
    given = {key: value for key, value in config.items() if not key.startswith("_")}
    if unknown := sorted(set(given) - set(defaults)):
        raise ValueError(f"config.json: a {name} has no {unknown[0]!r}")
    supported = supported or {}
    for key, value in given.items():
        if key not in supported and not _is_like(value, defaults[key]) and not (value is None and key in optional):
            raise ValueError(f"config.json: {key}={value!r} is not of the type that {name} expects")
    fields = {**defaults, **given}
    for key, values in supported.items():
        if not any(fields[key] == value and type(value) in (type(fields[key]), float) for value in values):
            raise ValueError(
                f"config.json: {key}={fields[key]!r} is not supported, only {' or '.join(map(repr, values))}"
            )
    return fields


def _is_like(value: Any, default: Any) -> bool:
    """Whether a JSON value is of the type of a default; a default of None takes one number, or two."""
    if isinstance(value, list | tuple):
        return (default is None or isinstance(default, tuple)) and len({type(item) for item in value}) == 1
    if isinstance(default, float):
        return type(value) in (int, float)
    return type(value) is (int if default is None else type(default))
