"""The command that measures pictures: eval."""

import contextlib
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flaxgen.cli.options import RUN_OR_MODEL, add_devices, add_processes, add_set, check_seed, make_plan
from flaxgen.cli.requests import read_request, with_article

SOURCES = """\
SOURCE is a folder of pictures, a folder or glob of .tar shards, or one of the sources that come with flaxgen, `scenes`
and `digits`, with a split as in digits:test. `own` is what the model was trained on, and own:test another split of it.
Figures are comparable only if features, size and number of pictures are the same: all are in the result.
"""
OWN = "own"
NAMED = ("digits", "scenes")
FLOATS = "{:.6g}"
SPELLED = (
    ("--set data.", "--set-data "),
    ("set data.image_size", "--set-data image_size=N"),
    ("set data.", "--set-data "),
    ("set image_size", "--set-data image_size=N"),
    ("allow_shared", "--allow-shared"),
)
"""What errors of the parts below say, and what it is called here."""
SETTINGS = ("steps", "sampler", "guidance", "truncation")
"""What of the settings used is written beside the figures."""
STRENGTHS = ("guidance", "truncation")
"""Numbers among the results that are no figures."""
MANY = 10_000
"""Pictures that a model draws where nothing is said."""


def add_commands(commands) -> None:
    """Adds it to the parser."""
    parser = commands.add_parser(
        "eval", help="measure how good pictures are: FID, KID, precision, recall, CLIP score ...", epilog=SOURCES
    )
    parser.add_argument("model", type=Path, nargs="?", help=f"{RUN_OR_MODEL}; an unCLIP draws the captions of --data")
    parser.add_argument("--data", metavar="SOURCE", help="the real pictures that the model is compared with (own)")
    parser.add_argument("--real", metavar="SOURCE", help="without a model: the real pictures")
    parser.add_argument("--fake", metavar="SOURCE", help="without a model: the pictures to measure")
    parser.add_argument(
        "--metrics", default="fid,kid,prec_recall", metavar="NAME,NAME",
        help="fid, kid, is, prec_recall, density_coverage, cmmd, clip_score (fid,kid,prec_recall)",
    )  # fmt: skip
    parser.add_argument(
        "--features", default="pixels", metavar="NET",
        help="what they look at: pixels, inception:FILE, clip:MODEL or classifier:MODEL (pixels)",
    )  # fmt: skip
    parser.add_argument("--num", type=int, help="how many pictures (of a model 10000, of a folder all)")
    parser.add_argument("--num-real", type=int, default=0, metavar="N", help="how many real ones (all)")
    parser.add_argument("--seed", type=int, default=0, help="of samples, of the order of pictures, of subsets (0)")
    parser.add_argument("--batch", type=int, default=64, help="pictures looked at together (64)")
    parser.add_argument("--out", type=Path, default=Path("eval.json"), help="the figures as flat JSON (eval.json)")
    parser.add_argument("--reference", type=Path, metavar="NPZ", help="where statistics of the real pictures are kept")
    parser.add_argument("--allow-shared", action="store_true", help="measure though the two sets share pictures")
    parser.add_argument(
        "--reconstruct", action="store_true", help="of an autoencoder: what becomes of the real pictures (rFID)"
    )
    _add_overrides(parser)
    add_devices(parser)
    add_processes(parser)
    parser.set_defaults(run=_eval)


def _add_overrides(parser) -> None:
    parser.add_argument("--steps", type=int, help="sampling steps (the model's own default)")
    parser.add_argument("--sampler", help="ddpm, ddim, euler, heun, dpmpp_2m, unipc ... (the model's own default)")
    parser.add_argument("--guidance", type=float, help="classifier-free guidance scale; 1 is none")
    add_set(parser, "eta=0.5 or grid=karras (the model's `sampling` fields)")
    for name, example in (("data", "image_size=64 or caption_field=title"), ("metrics", "kid_subsets=50 or splits=5")):
        parser.add_argument(
            f"--set-{name}", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
            help=f"how {'pictures are read' if name == 'data' else 'it is measured'}, such as {example}",
        )  # fmt: skip


def _eval(parsed) -> int:
    """Measures, shows a table, writes JSON; what was gathered on the way lies beside it until then."""
    from flaxgen import parallel

    _check(parsed)
    parallel.initialize(parsed.coordinator, parsed.num_processes, parsed.process_id)
    with _in_words_of_the_command_line():
        results = _measured(parsed, make_plan(parsed))
    if parallel.process_index() == 0:
        parsed.out.write_text(json.dumps(results, indent=2) + "\n", "utf-8")
        _progress(parsed.out).unlink(missing_ok=True)
        print(_table(results))
        print(f"wrote {parsed.out}")
    return 0


def _check(parsed) -> None:
    """What can be said before anything is loaded."""
    if parsed.model is None and (parsed.real is None and parsed.fake is None):
        raise ValueError("nothing to measure: give a run or model directory, or --real SOURCE --fake SOURCE")
    if parsed.model is None and parsed.fake is None:
        raise ValueError(f"--real {parsed.real} is compared with nothing: give --fake SOURCE too, or a model")
    if parsed.model is not None and (parsed.real or parsed.fake):
        raise ValueError(f"{parsed.model} draws the pictures to measure: give --data SOURCE, not --real or --fake")
    if parsed.model is None and parsed.data is not None:
        raise ValueError(f"--data {parsed.data} is what a model is compared with: give a model, or --real and --fake")
    for name in ("steps", "sampler", "guidance", "set", "reconstruct") if parsed.model is None else ():
        if getattr(parsed, name):
            raise ValueError(f"--{name} is for a model that draws, and there is none")
    if parsed.out.suffix != ".json" or parsed.out.is_dir():
        raise ValueError(f"--out {parsed.out}: expected the name of a file that ends in .json")
    if parsed.reference is not None and parsed.reference.suffix != ".npz":
        raise ValueError(f"--reference {parsed.reference}: expected a name that ends in .npz")
    check_seed(parsed.seed)
    parsed.out.parent.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def _in_words_of_the_command_line() -> Iterator[None]:
    """Errors name the options of this command, and samples that are not finite are wrong input like others."""
    try:
        yield
    except FloatingPointError as error:
        raise ValueError(str(error)) from error
    except ValueError as error:
        spelled = str(error)
        for ours, theirs in SPELLED:
            spelled = spelled.replace(ours, theirs)
        raise ValueError(spelled) from error


def _measured(parsed, plan) -> dict[str, Any]:
    from flaxgen.family.evaluation import Evaluation
    from flaxgen.measure.evaluate import evaluate
    from flaxgen.measure.features import make_extractor
    from flaxgen.train import config as configs

    metrics = tuple(name.strip() for name in parsed.metrics.split(",") if name.strip())
    num = MANY if parsed.num is None else parsed.num
    asked = Evaluation(metrics, num, parsed.seed, num_real=parsed.num_real, batch=parsed.batch,
                       allow_shared=parsed.allow_shared)  # fmt: skip
    asked = configs.override(asked, parsed.set_metrics)
    real, fake, about = (_of_sources if parsed.model is None else _of_model)(parsed, asked, plan)
    if parsed.num is None and fake.count is not None:
        asked = dataclasses.replace(asked, num=fake.count)
    extractor = make_extractor(parsed.features)
    progress = _progress(parsed.out)
    try:
        found = evaluate(real, fake, extractor, asked, plan, reference=parsed.reference, progress=progress)
    except KeyboardInterrupt:
        if progress.exists():
            print(f"what was gathered is kept in {progress}: the same command goes on", file=sys.stderr)
        raise
    return {**found, **about}


def _of_sources(parsed, asked, plan):
    """Two sets that lie somewhere."""
    from flaxgen.family.evaluation import CAPTIONS, METRICS
    from flaxgen.measure.picture_sets import of_data

    captions = any(CAPTIONS in METRICS[name].kept for name in asked.metrics)
    fake = of_data(_data(parsed.fake, None, parsed.set_data), parsed.seed, captions=captions)
    real = None if parsed.real is None else of_data(_data(parsed.real, None, parsed.set_data), parsed.seed)
    return real, fake, {"fake": parsed.fake} | ({} if parsed.real is None else {"real": parsed.real})


def _of_model(parsed, asked, plan):
    """What a model draws, and the real pictures, where a metric needs them."""
    from flaxgen import verbs
    from flaxgen.family.evaluation import METRICS
    from flaxgen.measure.picture_sets import of_captions, of_data, of_reconstructions, of_samples

    model: Any = verbs.load(parsed.model, plan)
    names = ("steps", "sampler", "guidance", "set")
    given = {name: value for name in names if (value := getattr(parsed, name))}
    data = _data(parsed.data or OWN, model.data, parsed.set_data)
    request = None
    if parsed.reconstruct:
        if "reconstruct" not in model.verbs or given:
            raise ValueError(f"--reconstruct is for autoencoders, without settings of drawing: {parsed.model} is "
                             f"{with_article(f'{model.kind} model')}")  # fmt: skip
        fake = of_reconstructions(model, data, parsed.seed)
    elif "sample" in model.verbs and draws_pictures(model):
        request = read_request(
            model.verbs["sample"], {**given, "seed": parsed.seed}, with_article(f"{model.kind} model")
        )
        model.handler(type(request)).check(getattr(model, "config", model), request)
        fake = of_samples(model, request)
    elif "draw" in model.verbs:
        asking = {**given, "seed": parsed.seed, "captions": ("any",)}
        request = read_request(model.verbs["draw"], asking, with_article(f"{model.kind} model"))
        fake = of_captions(model, data, request, parsed.batch)
    else:
        raise ValueError(f"{parsed.model} draws no pictures by itself: expected a model that has `sample` or `draw`")
    compares = any(METRICS[name].compares for name in asked.metrics)
    real = of_data(data, parsed.seed) if compares else None
    settings = {} if request is None else model.settings(request)
    used = {name: value for name, value in settings.items() if name in SETTINGS}
    used |= {"reconstructed": True} if parsed.reconstruct else {}
    return real, fake, {"model": str(parsed.model), "data": parsed.data or OWN, "step": model.step, **used}


def draws_pictures(model) -> bool:
    """Whether what it samples are pictures, and not points; what is made of several models samples pictures."""
    return not hasattr(model, "family") or "point" not in model.family.batch_spec(model.config)


def _data(named: str, own, changes: list[str]):
    """The source that SOURCE names; what is not said is as in `own`, or pictures as they are."""
    from flaxgen.data import Data
    from flaxgen.train import config as configs

    name, _, split = named.partition(":")
    base = own or Data("folder")
    if name == OWN and own is None:
        raise ValueError(f"{named} is what a model was trained on, and there is none: name another SOURCE")
    if name == OWN:
        data = dataclasses.replace(own, split=split or own.split)
    elif name in NAMED:
        channels = {"digits": 1, "scenes": 3}[name] if own is None else own.channels
        data = dataclasses.replace(base, source=name, path="", split=split or "train", channels=channels)
    else:
        data = dataclasses.replace(base, source=_kind(named), path=named, split="train", caption_field="")
    return configs.override(data, changes)


def _kind(path: str) -> str:
    """Whether these are pictures or shards of them."""
    folder = Path(path)
    shards = path.endswith(".tar") or (folder.is_dir() and any(folder.glob("*.tar")))
    return "webdataset" if shards else "folder"


def _progress(out: Path) -> Path:
    return out.with_name(f"{out.name}.progress.npz")


def _table(results: dict[str, Any]) -> str:
    """Figures first, then what they were measured with."""
    figures = {name: value for name, value in results.items() if isinstance(value, float) and name not in STRENGTHS}
    rest = {name: value for name, value in results.items() if name not in figures}
    width = max(map(len, results))
    rows = [f"{name:{width}}  {FLOATS.format(value)}" for name, value in figures.items()]
    return "\n".join([*rows, "", *(f"{name:{width}}  {value}" for name, value in rest.items())])
