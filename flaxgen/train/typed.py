"""Values of the types that the fields of a config name: from text, from JSON, or not at all."""

import ast
import math
import sys
import types
import typing
from typing import Any

MISMATCH = object()
"""No value at all: what does not fit."""


def parse(path: str, text: str, annotation: Any) -> Any:
    """Text to a value of the annotated type; what is no Python literal is a string.

    Raises:
        ValueError: one line that names `path`, the text, and what was expected.
    """
    literal = {"none": "None", "null": "None", "true": "True", "false": "False"}.get(text.lower(), text)
    try:
        value = _tuples(ast.literal_eval(literal))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        value = text
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{path}={text}: expected a finite number")
    for candidate in (value, text, (value,) if text else (), _as_int(value)):
        fitted = fit(candidate, annotation)
        if fitted is not MISMATCH:
            return fitted
    raise ValueError(f"{path}={text}: expected {describe(annotation)}")


def _tuples(value: Any) -> Any:
    """Lists as tuples, all the way down."""
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def _as_int(value: Any) -> Any:
    """1e5 is a fine way to write a count."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def fit(value: Any, annotation: Any) -> Any:
    """The value, with integers as numbers where numbers are meant, or MISMATCH."""
    if _matches(value, annotation):
        return value
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        fitted = (fit(value, arg) for arg in args)
        return next((x for x in fitted if x is not MISMATCH), MISMATCH)
    if origin is tuple and isinstance(value, tuple):
        each = _each(value, args)
        fitted = tuple(map(fit, value, each))
        return MISMATCH if len(each) != len(value) or any(x is MISMATCH for x in fitted) else fitted
    whole = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if whole and annotation is float and abs(value) <= sys.float_info.max else MISMATCH


def types_of(value: tuple, annotation: Any) -> tuple:
    """The type of each element of a tuple that is of the annotated type."""
    options = (annotation, *typing.get_args(annotation))
    args = next(typing.get_args(option) for option in options if typing.get_origin(option) is tuple)
    return _each(value, args)


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


def describe(annotation: Any) -> str:
    """What is expected, for a message."""
    args = typing.get_args(annotation)
    if typing.get_origin(annotation) is typing.Literal:
        return "one of " + ", ".join(map(str, args))
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return " or ".join(map(describe, args))
    if typing.get_origin(annotation) is tuple:
        return "a list such as 1,2,2 (nothing after = for an empty one)"
    names = {int: "an integer", float: "a number", bool: "true or false", str: "a string", type(None): "none"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))
