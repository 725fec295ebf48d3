"""JSON that others wrote: read within bounds, so that no text can hang, exhaust the memory or the stack."""

import json
import re
from collections.abc import Callable
from typing import Any

MAX_BYTES = 64 * 2**20
MAX_DEPTH = 100
"""Lists and objects inside each other: of configs, headers and captions there are a dozen at most."""
MAX_DIGITS = 100
"""Of an integer: transformers writes one of 31 for "no limit"; time and memory grow as their square."""
MAX_FRACTION = 1100
"""Characters of another number: a double has no more than 1,075 digits."""
TOKENS = re.compile(r'"(?:[^"\\]|\\.?)*+(?:"|\Z)|[\[{}\]]', re.DOTALL)
"""Strings, of which one may be torn, and brackets; in linear time."""


def loads(text: str | bytes, hook: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """The value of a JSON text; `hook` makes the value of an object from its pairs, otherwise a dict.

    Raises:
        ValueError: one line that says why, if it is not JSON in UTF-8, or exceeds a bound.
    """
    if len(text) > MAX_BYTES:
        raise ValueError(f"it has {len(text)} bytes, more than the {MAX_BYTES} that are read")
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"byte {error.start} is not UTF-8") from error
    _check_depth(text)
    try:
        return json.loads(text, object_pairs_hook=hook, parse_int=_integer, parse_float=_number)
    except RecursionError as error:  # the stack was nearly full before
        raise ValueError("it is nested too deeply") from error


def _check_depth(text: str) -> None:
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    depth = 0
    for token in TOKENS.finditer(text):
        mark = token[0][0]
        depth += (mark in "[{") - (mark in "]}")
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested deeper than {MAX_DEPTH}, at character {token.start()}")


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"an integer has {len(digits)} digits, more than {MAX_DIGITS}")
    return int(digits)


def _number(digits: str) -> float:
    if len(digits) > MAX_FRACTION:
        raise ValueError(f"a number has {len(digits)} digits, more than {MAX_FRACTION}")
    return float(digits)
