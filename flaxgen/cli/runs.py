"""Commands about runs and models: train, export, compose, import, push, info, plot, watch."""

import sys
import time
from pathlib import Path

from flaxgen.cli.options import (
    RUN_OR_MODEL,
    add_devices,
    add_processes,
    add_set,
    make_plan,
    parse_mesh,
)


def add_commands(commands) -> None:
    """Adds them to the parser."""
    _add_train(commands.add_parser("train", help="train an experiment, or resume it"))
    _add_export(commands.add_parser("export", help="write a model directory from a run"))
    _add_compose(commands.add_parser("compose", help="put the parts of an unCLIP into one model directory"))
    _add_import(commands.add_parser("import", help="read another project's weights into a model directory"))
    _add_push(commands.add_parser("push", help="put a model directory into a repository of the Hugging Face Hub"))
    _add_info(commands.add_parser("info", help="parameters, config, step and size"))
    _add_plot(commands.add_parser("plot", help="the curves and previews of runs as one HTML page"))
    _add_watch(commands.add_parser("watch", help="how far a run is, in the terminal"))


def _add_train(parser):
    parser.add_argument("experiment", type=Path, help="a file with get_config(), such as experiments/ddpm_digits.py")
    parser.add_argument("--workdir", type=Path, required=True, help="the run's directory; an existing one is resumed")
    add_set(parser, "batch_size=64 or net.channels=96")
    parser.add_argument("--steps", type=int, help="short for --set steps=N")
    add_devices(parser)
    parser.add_argument(
        "--accept-new-data", action="store_true", help="go on with a run whose data have changed since it began"
    )
    parser.add_argument("--profile", action="store_true", help="trace a few steps to WORKDIR/profile")
    parser.add_argument("--wandb", metavar="PROJECT", help="log every step to a Weights & Biases project too")
    add_processes(parser)
    parser.set_defaults(run=_train)


def _add_export(parser):
    parser.add_argument("source", type=Path, metavar="RUN_OR_MODEL", help=RUN_OR_MODEL)
    parser.add_argument("directory", type=Path, metavar="MODEL_DIR", help="where to write; must not exist yet")
    parser.add_argument(
        "--layout",
        default="flaxgen",
        help="whose: flaxgen, diffusers, transformers, nvlabs, taming, openai, dalle-mini, peft, "
        "stability, textual-inversion (flaxgen)",
    )
    _add_precision(parser, "weights of a model directory")
    parser.set_defaults(run=_export)


def _add_precision(parser, what: str):
    """How weights are written, where that is not as they are stored."""
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--half", action="store_true", help=f"round {what} to float16")
    either.add_argument(
        "--single", action="store_true", help=f"write {what} in float32, though they are stored in less"
    )


def _dtype(parsed) -> str | None:
    return "float16" if parsed.half else "float32" if parsed.single else None


def _add_compose(parser):
    parser.add_argument("directory", type=Path, metavar="MODEL_DIR", help="where to write; must not exist yet")
    parser.add_argument(
        "stages", nargs="+", metavar="PART=DIR", help="clip, prior, ar_prior, decoder, upsampler_1 or upsampler_2, "
        "and the run or model directory of it",
    )  # fmt: skip
    _add_precision(parser, "weights")
    parser.set_defaults(run=_compose)


def _add_import(parser):
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a folder, a file or a Hub id of another project: diffusers' UNet2DModel, unCLIP and autoencoders, "
        "transformers' CLIP, NVlabs' StyleGAN2, CompVis' VQGAN, OpenAI's dVAE",
    )
    parser.add_argument("directory", type=Path, metavar="MODEL_DIR", help="where to write; must not exist yet")
    parser.add_argument("--revision", help="branch, tag or commit of the Hub id")
    parser.add_argument("--variant", metavar="NAME", help="of the weights, such as fp16 for model.fp16.safetensors")
    add_set(parser, "generator.clamp=0, or size=256 (what no tensor says)")
    parser.set_defaults(run=_import)


def _add_push(parser):
    parser.add_argument("model", type=Path, metavar="MODEL_DIR", help="a model directory (of `export` or `compose`)")
    parser.add_argument("repository", metavar="USER/NAME", help="the Hub id; it is made if it is not there")
    parser.add_argument("--private", action="store_true", help="a new repository is seen by its owner alone")
    parser.set_defaults(run=_push)


def _add_info(parser):
    parser.add_argument("source", type=Path, metavar="RUN_OR_MODEL_OR_FILE", help=f"{RUN_OR_MODEL}, or an experiment")
    parser.add_argument(
        "--mesh", metavar="data=N,fsdp=M", help="also what training takes of each device of such a mesh, here or not"
    )
    parser.set_defaults(run=_info)


def _add_plot(parser):
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run directories, drawn in the same axes")
    parser.add_argument("--out", type=Path, default=Path("runs.html"), help="the page that is written (runs.html)")
    parser.set_defaults(run=_plot)


def _add_watch(parser):
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run directories")
    parser.add_argument("--every", type=float, default=5.0, metavar="SECONDS", help="how often it looks (5)")
    parser.add_argument("--once", action="store_true", help="look once, and end")
    parser.set_defaults(run=_watch)


def _train(parsed) -> int:
    from flaxgen import parallel, verbs
    from flaxgen.train import config as configs

    parallel.initialize(parsed.coordinator, parsed.num_processes, parsed.process_id)
    steps = [] if parsed.steps is None else [f"steps={parsed.steps}"]
    config = parsed.asked = configs.override(verbs.read_experiment(parsed.experiment), [*parsed.set, *steps])
    verbs.train(
        config,
        parsed.workdir,
        make_plan(parsed),
        profile=parsed.profile,
        wandb=parsed.wandb,
        accept_new_data=parsed.accept_new_data,
    )
    return 0


def _export(parsed) -> int:
    from flaxgen import verbs

    verbs.export(parsed.source, parsed.directory, layout=parsed.layout, dtype=_dtype(parsed))
    print(f"wrote {parsed.directory}")
    return 0


def _compose(parsed) -> int:
    from flaxgen import verbs

    pairs = [stage.partition("=") for stage in parsed.stages]
    wrong = [f"{name}{equals}{path}" for name, equals, path in pairs if not (name and path)]
    if wrong:
        raise ValueError(f"{wrong[0]}: expected PART=DIR, for example clip=runs/clip")
    names = [name for name, _, _ in pairs]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"{twice[0]} is given twice: expected one directory a part")
    sources = {name: Path(path) for name, _, path in pairs}
    verbs.compose(parsed.directory, sources, dtype=_dtype(parsed))
    print(f"wrote {parsed.directory}: {', '.join(sources)}")
    return 0


def _import(parsed) -> int:
    from flaxgen import verbs

    given = {"revision": parsed.revision, "overrides": parsed.set, "variant": parsed.variant}
    verbs.import_model(parsed.source, parsed.directory, **given)
    print(f"wrote {parsed.directory}")
    return 0


def _push(parsed) -> int:
    from flaxgen import verbs

    print(f"pushed to {verbs.push(parsed.model, parsed.repository, private=parsed.private)}")
    return 0


def _info(parsed) -> int:
    from flaxgen import verbs
    from flaxgen.family.describe import MeshShape

    print(verbs.describe(parsed.source, MeshShape(**parse_mesh(parsed.mesh)) if parsed.mesh else None))
    return 0


def _plot(parsed) -> int:
    from flaxgen.measure import curves

    parsed.out.write_text(curves.make_page([curves.read_run(run) for run in parsed.runs]), encoding="utf-8")
    print(f"wrote {parsed.out}")
    return 0


def _watch(parsed) -> int:
    """Until Ctrl-C, or until all runs are done; lines are written over where a terminal can do that."""
    from flaxgen.measure import curves

    if not parsed.every > 0:
        raise ValueError(f"--every {parsed.every}: expected seconds above 0")
    over = ""
    while True:
        told = [curves.read_run(run) for run in parsed.runs]
        lines = [line for run in told for line in curves.make_lines(run)]
        print(over + "\n".join(lines), flush=True)
        if parsed.once or all(run.is_done for run in told):
            return 0
        over = f"\x1b[{len(lines)}A\x1b[J" if sys.stdout.isatty() else ""
        time.sleep(parsed.every)
