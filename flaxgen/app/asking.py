"""From JSON to requests: which fields may be asked over a network, within which bounds, and what is wrong in one line.

A field is offered if it is a number, a choice, a yes or no, a picture or one of TEXTS. All other texts name files,
folders or settings of the machine, and stay with the command line.
"""

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

from flaxgen.app.catalogue import Entry
from flaxgen.app.limits import MOST, MOST_OF_OTHERS, SIDES, Limits
from flaxgen.family import request as requests
from flaxgen.family.request import MISSING, Clash, InputPicture, Request, RequestError, Spec

TEXTS = ("captions", "caption", "caption_from", "caption_to", "negative", "sampler")
LOCAL = ("beside_data",)
"""What needs the machine's own data."""
ADVANCED = (
    "candidates", "through", "prior_guidance", "guidance", "steps", "eta", "sampler", "clip_skip", "tile", "top_k",
    "top_p", "temperature", "rows", "feather", "first", "classifier_scale", "hint_strength", "plain", "fit_noise",
    "hint_2_strength", "hint_edges", "hint_guess", "noise_level",
)  # fmt: skip
"""Fields that most drawings leave as they are."""
MANY_PICTURES = ("candidates", "num", "frames")
"""Fields that multiply how much is drawn."""


class Wrong(ValueError):
    """A request that cannot be: `field` is the one that is wrong, None where it is several or the whole."""

    def __init__(self, message: str, field: str | None = None):
        super().__init__(message)
        self.field = field


def offered(kind: type[Request]) -> dict[str, Spec]:
    """The fields that may be asked over a network."""
    return {name: spec for name, spec in requests.specs(kind).items() if _is_offered(kind, name, spec)}


def _is_offered(kind: type[Request], name: str, spec: Spec) -> bool:
    is_text = requests.plain_type(requests.annotation(kind, name)) is str
    return name not in LOCAL and (spec.is_picture or bool(spec.choices) or not is_text or name in TEXTS)


def verbs_of(entry: Entry) -> dict[str, type[Request]]:
    """The verbs of a model for which all fields that have to be given are offered."""
    return {
        verb: kind for verb, kind in entry.verbs.items()
        if all(name in offered(kind) for name in requests.specs(kind) if requests.default_of(kind, name) is MISSING)
    }  # fmt: skip


def most_of(name: str, spec: Spec) -> int:
    """The largest whole number that a field may have."""
    own = MOST.get(name, MOST_OF_OTHERS)
    return own if spec.most is None else int(spec.most) if name == "seed" else min(int(spec.most), max(own, SIDES[-1]))


def schema(kind: type[Request], limits: Limits) -> dict[str, Any]:
    """The JSON schema of what may be asked; "x-advanced" marks what most leave as it is, and of pictures the format
    "mask" one that marks with white."""
    whole, fields = requests.schema(kind), offered(kind)
    properties = {name: {**whole["properties"][name], "x-advanced": name in ADVANCED} for name in fields}
    for name, spec in fields.items():
        annotated, entry = requests.annotation(kind, name), properties[name]
        one = entry.get("items", entry)
        if spec.channels == 1:
            one["format"] = "mask"
        if name in ("width", "height"):
            one["enum"] = list(SIDES)
        elif one["type"] == "integer":
            one["maximum"] = most_of(name, spec)
        elif one["type"] == "string" and not spec.choices and not spec.is_picture:
            one["maxLength"] = limits.caption
        if requests.is_many(annotated):
            entry["minItems"] = int(spec.is_positional)
            entry["maxItems"] = limits.inputs if spec.is_picture else limits.captions
        if spec.default_text:
            entry["x-default"] = spec.default_text
    needed = [name for name, entry in properties.items() if name in whole["required"] or entry.get("minItems")]
    return {**whole, "properties": properties, "required": needed}


def examples(entry: Entry, kind: type[Request]) -> list[dict[str, Any]]:
    """Fields of requests with captions that the model knows."""
    names, captions = offered(kind), entry.examples
    if "captions" in names:
        return [{"captions": [caption]} for caption in captions]
    if "caption_from" in names:
        return [{"caption_from": one, "caption_to": other} for one, other in itertools.pairwise(captions)]
    return [{"caption": caption} for caption in captions] if "caption" in names else []


def read(
    entry: Entry, verb: str, values: Mapping[str, Any], picture: Callable[[str, int], InputPicture], limits: Limits
) -> Request:
    """The request of that model with these JSON values; `picture(id, channels)` reads one that is named.

    Raises:
        Wrong: naming the field, if the model cannot do that, or it is out of bounds.
    """
    kind = verbs_of(entry).get(verb)
    if kind is None:
        raise Wrong(f"{entry.name} has no {verb!r}: expected {', '.join(verbs_of(entry))}", "verb")
    fields = offered(kind)
    for name in values:
        if name not in fields:
            raise Wrong(f"{verb} has no {name!r} here: expected {', '.join(fields)}", name)
    given = {name: _value(kind, name, fields[name], value, picture, limits) for name, value in values.items()}
    for name, spec in fields.items():
        if spec.is_positional and given.get(name) in (None, ()):
            raise Wrong(f"{verb} needs {name}", name)
    try:
        request = requests.make(kind, given)
        _check_amount(request, limits)
        entry.requests[kind].check(getattr(entry.blank, "config", entry.blank), request)
        entry.requests[kind].settings(entry.blank, request)
    except RequestError as error:
        raise Wrong(str(error), error.field) from error
    except Clash as error:
        raise Wrong(str(error), next(iter(error.fields))) from error
    except Wrong:
        raise
    except ValueError as error:
        raise Wrong(
            " ".join(str(error).split()), next((n for n in fields if str(error).startswith(f"{n}=")), None)
        ) from error
    return request


def _value(kind: type[Request], name: str, spec: Spec, value: Any, picture: Callable, limits: Limits) -> Any:
    """One field's value within its bounds; a picture for an id."""
    many = requests.is_many(requests.annotation(kind, name))
    if not many and isinstance(value, list | dict):
        raise Wrong(f"{name}: expected one value, not several", name)
    most = limits.inputs if spec.is_picture else limits.captions
    if many and isinstance(value, list) and len(value) > most:
        raise Wrong(f"{name}: expected at most {most}, not {len(value)}", name)
    if value is None:
        return None
    each = value if isinstance(value, list) else [value]
    read = [_one(name, spec, one, picture, limits) for one in each]
    return tuple(read) if many else read[0]


def _one(name: str, spec: Spec, value: Any, picture: Callable, limits: Limits) -> Any:
    if spec.is_picture:
        if not isinstance(value, str):
            raise Wrong(f"{name}: expected the id of a picture", name)
        try:
            return picture(value, spec.channels)
        except LookupError as error:
            raise Wrong(f"{name}: there is no such picture", name) from error
    if isinstance(value, str):
        return _text(name, spec, value, limits)
    if isinstance(value, bool) or not isinstance(value, int | float):
        if isinstance(value, bool):
            return value
        raise Wrong(f"{name}: expected a plain value", name)
    if not math.isfinite(value):
        raise Wrong(f"{name}: expected a finite number", name)
    if name in ("width", "height") and value not in SIDES:
        raise Wrong(f"{name}={value}: expected one of {', '.join(map(str, SIDES))}", name)
    if isinstance(value, int) and abs(value) > most_of(name, spec):
        raise Wrong(f"{name}={value:.10g}: expected at most {most_of(name, spec)}", name)
    if abs(value) > 1e9 and isinstance(value, float):
        raise Wrong(f"{name}={value:.10g}: expected a smaller number", name)
    return value


def _text(name: str, spec: Spec, value: str, limits: Limits) -> str:
    if len(value) > limits.caption:
        raise Wrong(f"{name} has {len(value)} characters: expected at most {limits.caption}", name)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise Wrong(f"{name} is no text: it has half a character", name) from error
    return value


def _check_amount(request: Request, limits: Limits) -> None:
    """Raises Wrong if all that is drawn for the request is too much."""
    factors = {name: getattr(request, name, None) or 1 for name in MANY_PICTURES}
    factors["captions"] = len(getattr(request, "captions", ())) or 1
    drawn = math.prod(factors.values())
    largest = max(factors, key=lambda name: factors[name])
    if drawn > limits.pictures:
        asked = ", ".join(f"{name}={value}" for name, value in factors.items() if value > 1)
        raise Wrong(f"{asked} is {drawn} pictures: expected at most {limits.pictures}", largest)
    steps = getattr(request, "steps", None) or 1
    if drawn * steps > limits.work:
        raise Wrong(f"steps={steps} of {drawn} pictures: expected at most {limits.work} steps in all", "steps")


def as_json(request: Request, values: Mapping[str, Any]) -> dict[str, Any]:
    """All fields of a request that are offered as JSON, with the ids of pictures that `values` have."""
    fields = {}
    for name, spec in offered(type(request)).items():
        value = getattr(request, name)
        fields[name] = values.get(name) if spec.is_picture else list(value) if isinstance(value, tuple) else value
    return fields
