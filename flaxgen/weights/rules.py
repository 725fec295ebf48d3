"""Rule tables between the tensors of another layout and flaxgen's parameters.

One line says both directions: `Rule("down.{i}.conv.weight", "down_{i}/conv/kernel", CONV)`. A name in braces stands for
a number, the same on both sides. A table is checked to be a bijection on what it meets: every tensor is matched by one
rule, and the way back is the same rule read from the right.
"""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

Transform = Callable[[np.ndarray], np.ndarray]


class Layout(NamedTuple):
    """A rearrangement of numbers and its exact inverse, for tensors of `ndim` dimensions; None is any."""

    to_flax: Transform
    from_flax: Transform
    ndim: int | None = None


SAME = Layout(lambda x: x, lambda x: x)
LINEAR = Layout(np.transpose, np.transpose, 2)
"""[out, in] <-> [in, out]"""
CONV = Layout(lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1), 4)
"""[out, in, height, width] <-> [height, width, in, out]"""


class Rule(NamedTuple):
    """`tensor` is the name in the other layout, `param` the path in flaxgen's."""

    tensor: str
    param: str
    layout: Layout = SAME


def under(places: Sequence[tuple[str, str]], rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """The rules of a block, at every place (tensor prefix, parameter prefix) where the block stands."""
    return tuple(Rule(f"{t}.{r.tensor}", f"{p}/{r.param}", r.layout) for t, p in places for r in rules)


def to_params(rules: Sequence[Rule], tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Parameters by path, of tensors in the other layout.

    Raises:
        ValueError: naming a tensor that no rule matches, that two match, or that has too few or too many dimensions.
    """
    out: dict[str, np.ndarray] = {}
    for name, value in tensors.items():
        rule, param = _translate(name, [(rule, rule.tensor, rule.param) for rule in rules])
        if rule.layout.ndim not in (None, value.ndim):
            raise ValueError(f"tensor {name!r} has shape {value.shape}, expected {rule.layout.ndim} dimensions")
        if param in out:
            raise ValueError(f"tensor {name!r} stands for {param!r}, which another tensor gave already")
        out[param] = np.asarray(rule.layout.to_flax(value), order="C")
    return out


def from_params(rules: Sequence[Rule], params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of `to_params`: the same numbers in the other layout.

    Raises:
        ValueError: naming a parameter that no rule, or more than one, matches.
    """
    out: dict[str, np.ndarray] = {}
    for path, value in params.items():
        rule, name = _from_param(rules, path)
        if name in out:
            raise ValueError(f"parameter {path!r} stands for {name!r}, which another parameter gave already")
        out[name] = np.asarray(rule.layout.from_flax(value), order="C")
    return out


def tensor_name(rules: Sequence[Rule], path: str) -> str:
    """What the other layout calls the parameter at `path`; ValueError if no rule, or more than one, matches."""
    return _from_param(rules, path)[1]


def _from_param(rules: Sequence[Rule], path: str) -> tuple[Rule, str]:
    return _translate(path, [(rule, rule.param, rule.tensor) for rule in rules])


def _translate(name: str, sides: Sequence[tuple[Rule, str, str]]) -> tuple[Rule, str]:
    """The one rule whose source side reads `name`, and what its other side makes of it."""
    found = [(rule, target.format(**m.groupdict())) for rule, s, target in sides if (m := _regex(s).fullmatch(name))]
    if len(found) != 1:
        what = "no rule matches" if not found else f"{len(found)} rules match"
        raise ValueError(f"{what} {name!r}: this is not a layout that flaxgen knows")
    return found[0]


@functools.cache
def _regex(template: str) -> re.Pattern[str]:
    """Braces as named groups of digits without leading zeros, everything else to the letter."""
    parts = re.split(r"\{(\w+)\}", template)
    return re.compile("".join(f"(?P<{p}>0|[1-9][0-9]*)" if i % 2 else re.escape(p) for i, p in enumerate(parts)))
