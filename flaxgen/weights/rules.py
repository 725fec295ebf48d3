"""Rule tables between the tensors of another layout and flaxgen's parameters.

One line says both directions: `Rule("down.{i}.conv.weight", "down_{i}/conv/kernel", CONV)`. A name in braces stands for
a number, the same on both sides. Several names on one side are the parts of the one tensor on the other:
`Rule("{i}.in_proj_weight", ("{i}/query/kernel", "{i}/key/kernel", "{i}/value/kernel"), LINEAR)`. A table is checked to
be a bijection on what it meets: every tensor is matched by one rule, and the way back is the same rule read from the
right. Layouts are in `weights/layouts.py`; `weights/generate.py` makes tables from nets.
"""

import functools
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from flaxgen.weights.layouts import CONV, LINEAR, SAME, STACKED, Layout, Parts
from flaxgen.weights.lazy import Lazy, Tensors

__all__ = [
    "CONV",
    "LINEAR",
    "SAME",
    "Layout",
    "Rule",
    "from_params",
    "regex_of",
    "row_finder",
    "several",
    "tensor_name",
    "tensor_namer",
    "to_params",
    "under",
]

Names = str | tuple[str, ...]
Sides = tuple[tuple[str, ...], tuple[str, ...]]
"""A rule's names in the direction in which it is read: what is there, and what is made of it."""


class Rule(NamedTuple):
    """`tensor` is the name in the other layout, `param` the path in flaxgen's; one of the two may be several.

    `layout` is between a tensor, or a part of one, and its parameter. `parts` says how several are one: tensors are
    joined before their layout is changed, and a tensor is split before.
    """

    tensor: Names
    param: Names
    layout: Layout = SAME
    parts: Parts = STACKED


class _Step(NamedTuple):
    """How one array is made: of `sources`, by `rule`, as number `part` of `count`."""

    rule: Rule
    sources: tuple[str, ...]
    part: int
    count: int


def under(places: Sequence[tuple[str, str]], rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """The rules of a block, at every place (tensor prefix, parameter prefix) where the block stands."""
    return tuple(
        r._replace(tensor=_prefixed(f"{tensor}.", r.tensor), param=_prefixed(f"{param}/", r.param))
        for tensor, param in places
        for r in rules
    )


def _prefixed(prefix: str, names: Names) -> Names:
    return prefix + names if isinstance(names, str) else tuple(prefix + name for name in names)


def several(names: Names) -> tuple[str, ...]:
    """One side of a rule, be it one name or more."""
    return (names,) if isinstance(names, str) else names


def _from_tensor(rule: Rule) -> Sides:
    return several(rule.tensor), several(rule.param)


def _from_param(rule: Rule) -> Sides:
    return several(rule.param), several(rule.tensor)


def to_params(rules: Sequence[Rule], tensors: Tensors) -> Lazy:
    """Parameters by path, each made of tensors in the other layout when it is asked for.

    Asking raises ValueError naming a tensor of too few or too many dimensions, or that cannot be split or squeezed.

    Raises:
        ValueError: naming a tensor that no rule matches, that two match, or that is missing beside another.
    """
    steps = _plan(_Table(rules, _from_tensor), tensors, "tensor")
    return Lazy({path: functools.partial(_make_param, tensors, step) for path, step in steps.items()})


def _make_param(tensors: Tensors, step: _Step) -> np.ndarray:
    values, layout = [tensors[name] for name in step.sources], step.rule.layout
    for name, value in zip(step.sources, values, strict=True):
        if layout.ndim not in (None, value.ndim):
            raise ValueError(f"tensor {name!r} has shape {value.shape}, expected {layout.ndim} dimensions")
    try:
        whole = _join(step.rule.parts, values)
        part = step.rule.parts.split(whole, step.count)[step.part] if step.count > 1 else whole
        return np.asarray(layout.to_flax(part), order="C")
    except ValueError as error:
        raise ValueError(f"tensor {step.sources[0]!r} has shape {values[0].shape}: {error}") from error


def from_params(rules: Sequence[Rule], params: Tensors) -> Lazy:
    """The inverse of `to_params`: the same numbers in the other layout, each tensor made when it is asked for.

    Raises:
        ValueError: naming a parameter that no rule, or more than one, matches, or that is missing beside another.
    """
    steps = _plan(_Table(rules, _from_param), params, "parameter")
    return Lazy({name: functools.partial(_make_tensor, params, step) for name, step in steps.items()})


def _make_tensor(params: Tensors, step: _Step) -> np.ndarray:
    values, parts = [params[path] for path in step.sources], step.rule.parts
    try:
        whole = _join(parts, [step.rule.layout.from_flax(value) for value in values])
        part = parts.split(whole, step.count)[step.part] if step.count > 1 else whole
    except ValueError as error:
        raise ValueError(f"parameter {step.sources[0]!r} has shape {values[0].shape}: {error}") from error
    return np.asarray(part, order="C")


def _join(parts: Parts, values: list[np.ndarray]) -> np.ndarray:
    """Several arrays as one that splits into the same again."""
    if len(values) == 1:
        return values[0]
    if len({value.dtype for value in values}) > 1:
        raise ValueError(f"its parts are of dtypes {', '.join(str(value.dtype) for value in values)}, expected one")
    shapes = [value.shape for value in values]
    try:
        whole = parts.join(values)
        again = [part.shape for part in parts.split(whole, len(values))]
    except ValueError:
        again = None
    if again != shapes:
        raise ValueError(f"its parts have shapes {', '.join(map(str, shapes))}, which are not parts of one tensor")
    return whole


def tensor_name(rules: Sequence[Rule], path: str) -> str:
    """What the other layout calls the parameter at `path`; ValueError if no rule, or more than one, matches."""
    return tensor_namer(rules)(path)


def tensor_namer(rules: Sequence[Rule]) -> Callable[[str], str]:
    """`tensor_name` of a table, for many paths."""
    table = _Table(rules, _from_param)

    def name(path: str) -> str:
        rule, places = table.find(path)
        return " + ".join(template.format(**places) for template in several(rule.tensor))

    return name


def row_finder(rules: Sequence[Rule]) -> Callable[[str, int], tuple[str, np.ndarray]]:
    """(path of a kernel, its columns) -> the name of the tensor that it is made of, and which of that tensor's rows
    the columns are: of several that are one, or of halves that are swapped."""
    table = _Table(rules, _from_param)

    def find(path: str, columns: int) -> tuple[str, np.ndarray]:
        rule, places = table.find(path)
        params = [template.format(**places) for template in several(rule.param)]
        whole = np.arange(len(params) * columns).reshape(-1, *[1] * ((rule.layout.ndim or 2) - 1))
        parts = [whole] if len(params) == 1 else rule.parts.split(whole, len(params))
        rows = rule.layout.to_flax(parts[params.index(path)]).ravel()
        return several(rule.tensor)[0].format(**places), rows

    return find


class _Table:
    """Rules to be read in one direction: names without braces are looked up, the others tried."""

    def __init__(self, rules: Sequence[Rule], sides: Callable[[Rule], Sides]):
        self.sides = sides
        self._literal: dict[str, list[Rule]] = {}
        self._templates: list[tuple[re.Pattern[str], Rule]] = []
        for rule in rules:
            for source in sides(rule)[0]:
                if "{" in source:
                    self._templates.append((regex_of(source), rule))
                else:
                    self._literal.setdefault(source, []).append(rule)

    def find(self, name: str) -> tuple[Rule, dict[str, str]]:
        """The one rule that reads `name`, and the numbers in its braces."""
        matches = [(rule, match.groupdict()) for regex, rule in self._templates if (match := regex.fullmatch(name))]
        matches += [(rule, {}) for rule in self._literal.get(name, ())]
        if len(matches) != 1:
            what = "no rule matches" if not matches else f"{len(matches)} rules match"
            raise ValueError(f"{what} {name!r}: this is not a layout that flaxgen knows")
        return matches[0]


def _plan(table: _Table, names: Iterable[str], what: str) -> dict[str, _Step]:
    """How each array of the other side is made."""
    steps: dict[str, _Step] = {}
    known = dict.fromkeys(names)
    for name in known:
        rule, places = table.find(name)
        sources, targets = (tuple(template.format(**places) for template in side) for side in table.sides(rule))
        if missing := [source for source in sources if source not in known]:
            raise ValueError(f"{what} {missing[0]!r} is missing: with {name!r} it makes {' and '.join(targets)}")
        for part, target in enumerate(targets if name == sources[0] else ()):
            if target in steps:
                raise ValueError(f"{what} {name!r} stands for {target!r}, which another {what} gave already")
            steps[target] = _Step(rule, sources, part, len(targets))
    return steps


@functools.cache
def regex_of(template: str) -> re.Pattern[str]:
    """What matches a template: braces as named groups of digits without leading zeros, the rest to the letter."""
    parts = re.split(r"\{(\w+)\}", template)
    return re.compile("".join(f"(?P<{p}>0|[1-9][0-9]*)" if i % 2 else re.escape(p) for i, p in enumerate(parts)))
