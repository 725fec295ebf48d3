"""Requests as values: what is asked of a model, checked before anything is loaded.

A request is a frozen dataclass whose fields are made by `option`, `positional` and `picture`: each has a type, a
default, a range and one line of help. From that one declaration follow the flags of the command line, the keyword
arguments and the help of the Python method, every check, and what is written into a picture so that it can be drawn
again.
"""

import dataclasses
import difflib
import hashlib
import math
import types
import typing
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np

LARGEST_SEED = 2**32 - 1
MISSING = dataclasses.MISSING
SPEC = "spec"


class Spec(NamedTuple):
    """What a field of a request is: `default_text` says what None stands for, `metavar` what the value is called."""

    help: str
    least: float | int | None = None
    most: float | int | None = None
    above: float | int | None = None
    choices: tuple[str, ...] = ()
    default_text: str = ""
    metavar: str = ""
    flag: str = ""
    is_positional: bool = False
    channels: int = 0

    @property
    def is_picture(self) -> bool:
        """Whether the field is a picture, of so many `channels`."""
        return self.channels > 0


class RequestError(ValueError):
    """A field of a request that is out of range; the command line says it with the name of the flag."""

    def __init__(self, field: str, value: Any, expected: str):
        super().__init__(f"{field}={value!r}: expected {expected}")
        self.field, self.value, self.expected = field, value, expected


class Clash(ValueError):
    """Fields of a request that do not go together. The text has them in braces, for which a name with its value is put,
    or with None the name alone; the command line puts flags."""

    def __init__(self, text: str, **fields: Any):
        super().__init__(text.format_map({k: k if v is None else f"{k}={v}" for k, v in fields.items()}))
        self.text, self.fields = text, fields


def option(
    default: Any, help: str, *, least: float | int | None = None, most: float | int | None = None,
    above: float | int | None = None,
    choices: tuple[str, ...] = (), default_text: str = "", flag: str = "",
) -> Any:  # fmt: skip
    """A field with a default. On the command line it is a flag of its name, or `flag`: a name, or with a blank between
    a name and what the value is called, such as "class LABEL"."""
    name, _, metavar = flag.partition(" ")
    spec = Spec(help, least, most, above, choices, default_text, metavar, name)
    return dataclasses.field(default=default, metadata={SPEC: spec})


def positional(help: str, metavar: str = "") -> Any:
    """A field that has to be given, by its place."""
    return dataclasses.field(metadata={SPEC: Spec(help, metavar=metavar, is_positional=True)})


def picture(help: str, channels: int = 3) -> Any:
    """A picture that has to be given: a file, an array or a PIL image; masks have 1 channel."""
    return dataclasses.field(metadata={SPEC: Spec(help, is_positional=True, channels=channels)})


def picture_option(help: str, flag: str = "") -> Any:
    """A picture that may be given, by a flag."""
    name, _, metavar = flag.partition(" ")
    spec = Spec(help, default_text="none", metavar=metavar or "IMAGE", flag=name, channels=3)
    return dataclasses.field(default=None, metadata={SPEC: spec})


def pictures(help: str) -> Any:
    """Any number of pictures, each as in `picture`; the field's type is a tuple."""
    return dataclasses.field(default=(), metadata={SPEC: Spec(help, is_positional=True, channels=3)})


@dataclasses.dataclass(frozen=True, eq=False)
class InputPicture:
    """A picture that was given: uint8 `pixels` [H W C], and the file that they are of, if any."""

    pixels: np.ndarray
    path: str = ""

    def with_channels(self, channels: int) -> np.ndarray:
        """The pixels in colour (3) or grey (1)."""
        from PIL import Image

        if channels == self.pixels.shape[-1]:
            return self.pixels
        return np.asarray(Image.fromarray(self.pixels).convert("L"))[..., None]

    @property
    def digest(self) -> str:
        """16 digits of a hash of the pixels."""
        return hashlib.sha256(f"{self.pixels.shape}".encode() + self.pixels.tobytes()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What all requests have: a verb, and checks of every field.

    Raises:
        RequestError: naming the first field that is of the wrong type or out of range.
    """

    verb: ClassVar[str] = ""
    examples: ClassVar[tuple[str, ...]] = ()
    out: ClassVar[str] = "out.png"
    model_first: ClassVar[bool] = False
    """Whether the command line takes the model by its place, as there is no other input."""

    seed: int = option(0, "the same seed draws the same pictures", least=0, most=LARGEST_SEED)

    def __post_init__(self):
        for name, spec in specs(type(self)).items():
            value = _converted(name, getattr(self, name), annotation(type(self), name), spec)
            object.__setattr__(self, name, value)
            _check_range(name, value, spec)


R = TypeVar("R", bound=Request)


def make(kind: type[R], values: Mapping[str, Any]) -> R:
    """The request with these fields, each brought to the type of its field: one caption is a tuple of one, a path a
    picture.

    Raises:
        RequestError: naming the first field that cannot be, or is out of range.
        ValueError: naming a field that lacks, or that there is not.
    """
    known = specs(kind)
    unknown = [name for name in values if name not in known]
    if unknown:
        near = difflib.get_close_matches(unknown[0], known, n=1)
        meant = f", did you mean {near[0]}?" if near else ""
        raise ValueError(f"{kind.verb} has no {unknown[0]!r}: expected {', '.join(known)}{meant}")
    lacking = [name for name in known if name not in values and default_of(kind, name) is MISSING]
    if lacking:
        raise ValueError(f"{kind.verb} needs {', '.join(lacking)}")
    return kind(
        **{name: _converted(name, value, annotation(kind, name), known[name]) for name, value in values.items()}
    )


def specs(kind: type[Request]) -> dict[str, Spec]:
    """The fields of a kind of request, those given by their place first."""
    found = {f.name: f.metadata[SPEC] for f in dataclasses.fields(kind)}
    return dict(sorted(found.items(), key=lambda item: not item[1].is_positional))


def annotation(kind: type[Request], name: str) -> Any:
    """The type of a field."""
    return typing.get_type_hints(kind)[name]


def default_of(kind: type[Request], name: str) -> Any:
    """The default of a field; `dataclasses.MISSING` where it has to be given."""
    return next(f.default for f in dataclasses.fields(kind) if f.name == name)


def plain_type(annotated: Any) -> type:
    """The type of a field's value where it is not None; of several values that of one."""
    inner = [arg for arg in typing.get_args(annotated) if arg not in (type(None), Ellipsis)]
    if typing.get_origin(annotated) in (typing.Union, types.UnionType, tuple) and inner:
        return plain_type(inner[0])
    if typing.get_origin(annotated) is typing.Literal:
        return str
    return annotated


def is_many(annotated: Any) -> bool:
    """Whether a field holds several values."""
    options = typing.get_args(annotated) if typing.get_origin(annotated) in (typing.Union, types.UnionType) else ()
    return any(typing.get_origin(kind) is tuple for kind in (annotated, *options))


def _converted(name: str, value: Any, annotated: Any, spec: Spec) -> Any:
    """The value as its field holds it: one string as a tuple of one, whole numbers as numbers, files as pictures."""
    if spec.is_picture:
        if not is_many(annotated):
            return None if value is None and not spec.is_positional else read_input(value, spec.channels)
        return tuple(read_input(one, spec.channels) for one in _each_picture(value))
    kind = plain_type(annotated)
    if value is None and type(None) in typing.get_args(annotated):
        return None
    if is_many(annotated):
        if not isinstance(value, Iterable):
            raise RequestError(name, value, "one or more")
        many = (value,) if isinstance(value, str) else tuple(value)
        return tuple(_converted_one(name, one, kind) for one in many)
    return _converted_one(name, value, kind)


def _each_picture(value: Any) -> Iterable[Any]:
    """The pictures in a list of them, in an array [N H W C], or in one file, array or image."""
    if isinstance(value, tuple | list) or (isinstance(value, np.ndarray) and value.ndim == 4):
        return value
    return (value,)


def _converted_one(name: str, value: Any, kind: type) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is str and isinstance(value, Path):
        return str(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
        raise RequestError(name, value, names.get(kind, kind.__name__))
    return value


def _check_range(name: str, value: Any, spec: Spec) -> None:
    for one in value if isinstance(value, tuple) else (value,):
        if isinstance(one, int | float) and not _inside(one, spec):
            raise RequestError(name, one, describe_range(spec))
        if spec.choices and one is not None and one not in spec.choices:
            near = difflib.get_close_matches(str(one), spec.choices, n=1)
            meant = f", did you mean {near[0]}?" if near else ""
            raise RequestError(name, one, f"one of {', '.join(spec.choices)}{meant}")
    if spec.is_positional and not spec.is_picture and value == ():
        raise RequestError(name, value, "one or more")


def _inside(value: float | int, spec: Spec) -> bool:
    return (
        math.isfinite(value)
        and (spec.least is None or value >= spec.least)
        and (spec.most is None or value <= spec.most)
        and (spec.above is None or value > spec.above)
    )


def describe_range(spec: Spec) -> str:
    """The values that a number may have, in words."""
    most = "" if spec.most is None else f"{spec.most:.10g}"
    if spec.least is not None:
        return f"{spec.least:.10g} to {most}" if most else f"{spec.least:.10g} or more"
    if spec.above is not None:
        return f"a number above {spec.above:.10g}" + (f", at most {most}" if most else "")
    return f"at most {most}" if most else "a finite number"


def read_input(value: Any, channels: int = 3) -> InputPicture:
    """A picture from a file, an array [H W] or [H W C], uint8 or float in [-1, 1], or a PIL image; a mask of 1 channel
    may be of any other numbers as well, and is marked where they are above 0, or where it is transparent.

    Raises:
        ValueError, OSError: if it cannot be read, naming the file.
    """
    from PIL.Image import DecompressionBombWarning

    from flaxgen.data.decode import decode_image, decode_mask

    if isinstance(value, InputPicture):
        return value
    if isinstance(value, str | Path):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DecompressionBombWarning)  # decode_image has a limit of its own
                content = Path(value).read_bytes()
                pixels = decode_mask(content) if channels == 1 else decode_image(content, channels)
                return InputPicture(pixels, str(value))
        except ValueError as error:
            raise ValueError(f"{value}: {error}") from error
    pixels = np.asarray(value)
    pixels = pixels[0] if pixels.ndim == 4 and len(pixels) == 1 else pixels
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3, 4):
        raise ValueError(f"a picture of shape {np.shape(value)}: expected a file, a PIL image or an array [H W 3]")
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * 255
    elif pixels.dtype != np.uint8 and channels == 1:
        pixels = (pixels > 0).astype(np.uint8) * 255
    elif pixels.dtype != np.uint8:
        if not np.issubdtype(pixels.dtype, np.floating):
            raise ValueError(f"a picture of {pixels.dtype}: expected uint8, or floats in [-1, 1]")
        pixels = np.clip(np.round((pixels + 1) * 127.5), 0, 255).astype(np.uint8)
    if channels == 1:
        opaque = pixels.shape[-1] < 4 or bool((pixels[..., 3] == 255).all())
        return InputPicture(pixels[..., :3].max(-1, keepdims=True) if opaque else 255 - pixels[..., 3:])
    return InputPicture(np.repeat(pixels, channels, -1) if pixels.shape[-1] == 1 else pixels[..., :3])


def to_json(request: Request) -> dict[str, Any]:
    """The request as JSON values, with its verb; of a picture its file and a hash of its pixels."""
    values: dict[str, Any] = {"verb": request.verb}
    for name in specs(type(request)):
        value = getattr(request, name)
        values[name] = [_stored(one) for one in value] if isinstance(value, tuple) else _stored(value)
    return values


def _stored(value: Any) -> Any:
    if isinstance(value, InputPicture):
        return {"path": str(Path(value.path).resolve()) if value.path else "", "pixels": value.digest}
    return value


def from_json(kind: type[R], values: Mapping[str, Any]) -> R:
    """The inverse of `to_json`.

    Raises:
        ValueError: for a field that is not known, or a picture that is no longer what it was.
        OSError: if a picture is gone.
    """
    fields = {name: value for name, value in values.items() if name != "verb"}
    for name, spec in specs(kind).items():
        if spec.is_picture and name in fields:
            stored, many = fields[name], is_many(annotation(kind, name))
            if stored is None:
                continue
            read = [_read_again(one, spec.channels) for one in (stored if many else [stored])]
            fields[name] = tuple(read) if many else read[0]
    return make(kind, fields)


def _read_again(stored: Any, channels: int) -> InputPicture:
    path, digest = (stored.get(name, "") for name in ("path", "pixels")) if isinstance(stored, dict) else ("", "")
    if not path:
        raise ValueError("the picture it was drawn from was no file: it cannot be drawn again")
    read = read_input(path, channels)
    if read.digest != digest:
        raise ValueError(f"{path} is no longer the picture that this was drawn from")
    return read


def schema(kind: type[Request]) -> dict[str, Any]:
    """The JSON schema of a kind of request."""
    names = {int: "integer", float: "number", bool: "boolean", str: "string"}
    properties, required = {}, []
    for name, spec in specs(kind).items():
        annotated, default = annotation(kind, name), default_of(kind, name)
        one: dict[str, Any] = {"type": "string", "format": "picture"} if spec.is_picture else {
            "type": names[plain_type(annotated)]
        }  # fmt: skip
        bounds = {"minimum": spec.least, "maximum": spec.most, "exclusiveMinimum": spec.above}
        one |= {word: value for word, value in bounds.items() if value is not None}
        one |= {"enum": list(spec.choices)} if spec.choices else {}
        entry = {"type": "array", "items": one} if is_many(annotated) else one
        properties[name] = {**entry, "description": spec.help}
        if default is MISSING:
            required.append(name)
        elif default is not None:
            properties[name]["default"] = list(default) if isinstance(default, tuple) else default
    return {"title": kind.verb, "type": "object", "properties": properties, "required": required,
            "additionalProperties": False}  # fmt: skip
