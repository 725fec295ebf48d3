"""Commands made from what models can be asked: sample, draw, vary, blend, edit, inpaint ... and `again`, `show`,
`models`."""

import argparse
import inspect
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

from flaxgen.cli.options import RUN_OR_MODEL, add_devices, make_plan


class Flag(NamedTuple):
    """A field of the requests of one verb, and the families that have it."""

    spec: Any
    annotation: Any
    default: Any
    families: tuple[str, ...]


def add_commands(commands) -> None:
    """Adds a command for each verb of the families, and those about pictures that were drawn."""
    kinds = _kinds()
    for verb, by_family in kinds.items():
        first = next(iter(by_family.values()))
        parser = commands.add_parser(
            verb, help=(inspect.getdoc(first) or "").splitlines()[0].rstrip(".").lower(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog="examples:\n" + "\n".join(f"  {example}" for example in first.examples),
        )  # fmt: skip
        _add_fields(parser, by_family)
        parser.set_defaults(run=_perform, kinds=by_family)

    again = commands.add_parser("again", help="draw a picture again from what is written in it")
    again.add_argument("picture", type=Path, help="a picture that flaxgen drew")
    again.add_argument("--model", help="the model, where it lies elsewhere now")
    _add_output(again, "again.png")
    again.set_defaults(run=_again)

    show = commands.add_parser("show", help="print how a picture was drawn")
    show.add_argument("picture", type=Path, help="a picture that flaxgen drew")
    show.set_defaults(run=_show)

    listing = commands.add_parser("models", help="list the models that are at hand")
    listing.add_argument("folder", type=Path, nargs="*", help="where to look as well (runs, models)")
    listing.set_defaults(run=_models)


def _kinds() -> dict[str, dict[str, Any]]:
    """The requests of each verb, by family."""
    from flaxgen import verbs

    kinds: dict[str, dict[str, Any]] = {}
    for family in verbs.families():
        for kind in family.requests:
            kinds.setdefault(kind.verb, {})[family.name] = kind
    return kinds


def _add_fields(parser, by_family: dict[str, Any]) -> None:
    first = next(iter(by_family.values()))
    if first.model_first:
        parser.add_argument("model", help=RUN_OR_MODEL)
    for name, flag in _flags(by_family).items():
        if flag.spec.is_positional:
            parser.add_argument(name, help=flag.spec.help, **_how_many(flag), **_metavar(flag))
        else:
            _add_flag(parser, name, flag, flag.families if len(flag.families) < len(by_family) else ())
    if not first.model_first:
        parser.add_argument(
            "--model", default=argparse.SUPPRESS, help="a model that comes along, or a directory (scenes)"
        )
    _add_output(parser, first.out)


def _how_many(flag: Flag) -> dict[str, Any]:
    """What says that a positional field takes several values, or may be left out."""
    from flaxgen.family.request import MISSING

    if flag.default is MISSING:
        return {"nargs": "+"} if _is_many(flag) else {}
    return {"nargs": "*" if _is_many(flag) else "?", "default": argparse.SUPPRESS}


def _flags(by_family: dict[str, Any]) -> dict[str, Flag]:
    """All fields of the requests of one verb, those given by their place first."""
    from flaxgen.family import request

    flags: dict[str, Flag] = {}
    for family, kind in by_family.items():
        for name, spec in request.specs(kind).items():
            having = (*flags[name].families, family) if name in flags else (family,)
            known = flags[name] if name in flags else Flag(
                spec, request.annotation(kind, name), request.default_of(kind, name), ()
            )  # fmt: skip
            flags[name] = known._replace(families=having)
    return flags


def _add_flag(parser, name: str, flag: Flag, only: tuple[str, ...]) -> None:
    from flaxgen.family.request import plain_type

    spec = flag.spec
    kind = str if spec.is_picture else plain_type(flag.annotation)
    default = spec.default_text or ("" if flag.default in (None, "", ()) else _shown(flag.default))
    notes = [*([default] if default and kind is not bool else []), *([f"{', '.join(only)} only"] if only else [])]
    text = spec.help + "".join(f" ({note})" for note in notes)
    more: dict[str, Any] = {"action": "store_true"} if kind is bool else {"type": _reader(kind), **_metavar(flag)}
    if spec.choices:
        more = {"choices": spec.choices}
    if _is_many(flag):
        more["nargs"] = "+"
    parser.add_argument(flag_of(name, spec), dest=name, default=argparse.SUPPRESS, help=text, **more)


def _reader(kind: type):
    """Reads a value, or leaves it as it is for the request to refuse in its own words."""

    def read(text: str):
        try:
            return kind(text)
        except ValueError:
            return text

    return read


def flag_of(name: str, spec) -> str:
    """What a field is called on the command line."""
    return f"--{spec.flag or name.replace('_', '-')}"


def _metavar(flag: Flag) -> dict[str, Any]:
    return {"metavar": flag.spec.metavar} if flag.spec.metavar else {}


def _is_many(flag: Flag) -> bool:
    from flaxgen.family.request import is_many

    return is_many(flag.annotation)


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def _add_output(parser, out: str) -> None:
    parser.add_argument(
        "--out", type=Path, default=Path(out), help=f"a .png, .jpg, .webp, .gif or .npz file, or a folder ({out})"
    )
    parser.add_argument("--force", action="store_true", help="overwrite what is there; else the name gets a number")
    parser.add_argument("--sequential", action="store_true",
                        help="one part of the model in memory at a time, read when it draws")  # fmt: skip
    add_devices(parser)


def read_request(kind: type, given: dict[str, Any], what: str) -> Any:
    """The request with these fields.

    Raises:
        ValueError: naming a flag that this kind does not have, or that is out of range.
    """
    from flaxgen.family.request import Clash, RequestError, make, specs

    known = specs(kind)
    unknown = [name for name in given if name not in known]
    if unknown:
        names = ", ".join(flag_of(name, spec) for name, spec in known.items() if not spec.is_positional)
        raise ValueError(f"{_said(unknown[0], given[unknown[0]])}: {what} has no such setting, only {names}")
    try:
        return make(kind, given)
    except RequestError as error:
        spec = known[error.field]
        name = error.field if spec.is_positional else flag_of(error.field, spec)
        raise ValueError(f"{name} {error.value}: expected {error.expected}") from error
    except Clash as error:
        flags = {name: flag_of(name, known[name]) for name in error.fields}
        said = {name: flag if error.fields[name] is None else f"{flag} {error.fields[name]}"
                for name, flag in flags.items()}  # fmt: skip
        raise ValueError(error.text.format_map(said)) from error


def with_article(name: str) -> str:
    """The name of a family after a or an."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _said(name: str, value: Any) -> str:
    return f"--{name.replace('_', '-')} {_shown(value)}"


def _perform(parsed) -> int:
    """Checks the whole request, then loads the model, draws with a bar and writes the pictures."""
    from flaxgen import verbs
    from flaxgen.family.directory import family_in
    from flaxgen.family.pictures import check_suffix

    _check_out(parsed.out, check_suffix)
    named = getattr(parsed, "model", None)
    path = verbs.find(named)
    family = family_in(path, verbs.families())
    kind = next((kind for kind in family.requests if kind.verb == parsed.command), None)
    if kind is None:
        able = ", ".join(one.verb for one in family.requests)
        lacks = f"{family.name} model: it has no {parsed.command}, only {able}"
        raise ValueError(f"{named or path} is {with_article(lacks if able else f'{family.name}: it {family.instead}')}")
    fields = {name for one in parsed.kinds.values() for name in _flags({"": one})}
    given = {name: value for name, value in vars(parsed).items() if name in fields}
    request = read_request(kind, given, with_article(f"{family.name} model"))
    return _draw(parsed, family, path, request)


def _draw(parsed, family: Any, path: Path, request: Any, about: dict[str, Any] | None = None) -> int:
    """Loads the model, with the weights that `about` names where it is given, draws and writes."""
    from flaxgen import verbs
    from flaxgen.family.composite import Composite
    from flaxgen.family.pictures import IMAGES
    from flaxgen.family.trained import Bar

    plan, parsed.asked = make_plan(parsed), request
    if getattr(request, "beside_data", False) and parsed.out.suffix not in IMAGES:
        raise ValueError(
            f"--out {parsed.out}: --beside-data makes a sheet, expected --out to end in {', '.join(IMAGES)}"
        )
    if not isinstance(family, Composite):
        family.requests[type(request)].check(family.read_config(path)[0], request)
    parsed.in_parts = isinstance(family, Composite)
    model = verbs.load(path, plan, sequential=parsed.sequential)
    only = None if about is None else _number_in(about, model, parsed.picture)
    _warn_of_words(model, request)
    bar = Bar(model.handler(type(request)).stages(request))
    try:
        drawn = model.perform(request, bar)
    finally:
        bar.close()
    written = drawn.save(parsed.out, force=parsed.force, only=only)
    size = "x".join(map(str, drawn.arrays.shape[1:3][::-1]))
    count = len(drawn) if only is None else 1
    what = f"{count} points" if drawn.are_points else f"{count} picture{'s' * (count > 1)} of {size}"
    files = " and ".join(map(str, [written, *drawn.beside_files(written)]))
    print(f"wrote {files}: {what}, {request.verb}, seed {request.seed}" + (f"; {drawn.note}" if drawn.note else ""))
    for caption, scores in drawn.scores_by_caption():
        print(f"  CLIP score {' '.join(f'{score:.3f}' for score in scores)}  {_printable(caption)}")
    return 0


def _printable(text: str) -> str:
    """The text with a mark for each character that cannot be printed here."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


def _warn_of_words(model: Any, request: Any) -> None:
    """Says which words of the captions the model has never seen."""
    unseen = model.unseen_words(request)
    if unseen:
        print(f"warning: this model has never seen the word{'s' * (len(unseen) > 1)} {', '.join(unseen)} in training",
              file=sys.stderr)  # fmt: skip


def _check_out(out: Path, check_suffix) -> None:
    """Raises ValueError or OSError unless pictures can be written there; makes the folders above it."""
    try:
        check_suffix(out)
    except ValueError as error:
        raise ValueError(f"--out {error}") from error
    if out.suffix and out.is_dir():
        raise ValueError(f"--out {out} is a directory: expected the name of a file")
    out.parent.mkdir(parents=True, exist_ok=True)


def _again(parsed) -> int:
    """Draws what a picture says it was drawn by, with the same weights."""
    from flaxgen import verbs
    from flaxgen.family.directory import family_in
    from flaxgen.family.pictures import check_suffix, read_about
    from flaxgen.family.request import from_json

    _check_out(parsed.out, check_suffix)
    about = read_about(parsed.picture)
    path = verbs.find(parsed.model or about["model"])
    family = family_in(path, verbs.families())
    wanted = about["request"].get("verb")
    kind = next((kind for kind in family.requests if kind.verb == wanted), None)
    if kind is None:
        raise ValueError(f"{parsed.picture} is of {wanted!r}, which {with_article(family.name)} model does not have")
    return _draw(parsed, family, path, from_json(kind, about["request"]), about)


def _number_in(about: dict[str, Any], model: Any, picture: Path) -> int | None:
    """Which picture of its sheet it is, None for the sheet; raises ValueError where the model has other weights."""
    if model.fingerprint != about.get("weights"):
        raise ValueError(
            f"{model.name} has other weights ({model.fingerprint}) than drew {picture} ({about.get('weights')}): "
            "name the model with --model"
        )
    return about.get("picture")


def _show(parsed) -> int:
    from flaxgen.family.pictures import read_about

    print(_printable(json.dumps(read_about(parsed.picture), indent=2, ensure_ascii=False)))
    return 0


def _models(parsed) -> int:
    """A line for each model that comes along, and for each run and model directory below the folders."""
    from flaxgen import verbs
    from flaxgen.family.directory import family_in

    for folder in parsed.folder:
        if not folder.is_dir():
            raise ValueError(f"{folder} is no folder of runs and models")
    rows = [(name, path) for name, path in verbs.shipped().items()]
    below = parsed.folder or [Path("runs"), Path("models")]
    rows += [(str(path), path) for folder in below if folder.is_dir() for path in sorted(folder.iterdir())]
    for name, path in rows:
        try:
            family = family_in(path, verbs.families())
        except (ValueError, OSError):
            continue
        print(f"{name:24} {family.name:12} {', '.join(kind.verb for kind in family.requests) or family.instead}")
    return 0
