"""Commands about runs and models: train, sample, export, compose, import, info."""

import dataclasses
from pathlib import Path
from typing import Any

from flaxgen.cli.options import (
    RUN_OR_MODEL,
    add_devices,
    add_processes,
    add_set,
    check_out,
    check_seed,
    make_plan,
    parse_mesh,
)

STAGE = "draw with the unCLIP that `flaxgen compose` makes of it and the other stages"
DRAWS_NOT = {
    "classifier": "a classifier: it draws nothing, and guides a model by --classifier",
    "unclip": "an unCLIP, which draws from captions: use `flaxgen draw CAPTION --model` with it",
    "clip": f"a CLIP, which embeds pictures and captions and draws nothing: {STAGE}",
    "prior": f"a prior, which makes embeddings of captions and draws nothing: {STAGE}",
    "unclipdecoder": f"an unCLIP's decoder, which draws from CLIP embeddings alone: {STAGE}",
    "upsampler": f"an upsampler, which enlarges pictures and draws none of its own: {STAGE}",
}
"""Families that `sample` is not for, and what to do with them."""


def add_commands(commands) -> None:
    """Adds them to the parser."""
    _add_train(commands.add_parser("train", help="train an experiment, or go on with it"))
    _add_sample(commands.add_parser("sample", help="draw a grid of samples"))
    _add_export(commands.add_parser("export", help="write a model directory from a run"))
    _add_compose(commands.add_parser("compose", help="put the stages of an unCLIP into one model directory"))
    _add_import(commands.add_parser("import", help="read another project's weights into a model directory"))
    _add_info(commands.add_parser("info", help="parameters, config, step and size"))


def _add_train(parser):
    parser.add_argument("experiment", type=Path, help="a file with get_config(), such as experiments/ddpm_digits.py")
    parser.add_argument("--workdir", type=Path, required=True, help="the run's directory; an existing one goes on")
    add_set(parser, "batch_size=64 or net.channels=96")
    parser.add_argument("--steps", type=int, help="short for --set steps=N")
    add_devices(parser)
    parser.add_argument("--profile", action="store_true", help="trace a few steps to WORKDIR/profile")
    parser.add_argument("--wandb", metavar="PROJECT", help="tell a Weights & Biases project of every logged step")
    add_processes(parser)
    parser.set_defaults(run=_train)


def _add_sample(parser):
    parser.add_argument("model", type=Path, help=RUN_OR_MODEL)
    parser.add_argument("--num", type=int, default=64, help="how many (64)")
    parser.add_argument("--steps", type=int, help="sampling steps (the model's own default)")
    parser.add_argument("--sampler", help="ddpm, ddim, euler, heun, dpmpp_2m, unipc ... (the model's own default)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed draws the same pictures (0)")
    parser.add_argument("--out", type=Path, default=Path("samples.png"), help="a .png grid, or a .npz of all arrays")
    parser.add_argument("--class", dest="label", type=int, metavar="LABEL", help="the class to draw (all in turn)")
    parser.add_argument("--guidance", type=float, help="classifier-free guidance scale; 1 is none")
    parser.add_argument("--truncation", type=float, help="of a StyleGAN: psi, 1 for all variety, 0 for the mean alone")
    parser.add_argument("--classifier", type=Path, help="a classifier run or model to guide with")
    parser.add_argument("--classifier-scale", type=float, metavar="SCALE", help="strength of its guidance (1)")
    parser.add_argument("--beside-data", action="store_true", help="put real examples beside the drawn ones")
    parser.add_argument("--data", type=Path, metavar="DIR", help="where these are (where they were at training)")
    add_set(parser, "eta=0.5 or grid=karras (the model's `sampling` fields)")
    add_devices(parser)
    parser.set_defaults(run=_sample)


def _add_export(parser):
    parser.add_argument("source", type=Path, metavar="RUN_OR_MODEL", help=RUN_OR_MODEL)
    parser.add_argument("directory", type=Path, metavar="MODEL_DIR", help="where to write; must not exist yet")
    parser.add_argument(
        "--layout", choices=("flaxgen", "diffusers", "nvlabs"), default="flaxgen", help="whose (flaxgen)"
    )
    parser.set_defaults(run=_export)


def _add_compose(parser):
    parser.add_argument("directory", type=Path, metavar="MODEL_DIR", help="where to write; must not exist yet")
    parser.add_argument(
        "stages", nargs="+", metavar="STAGE=DIR", help="clip, prior, ar_prior, decoder, upsampler_1 or upsampler_2, "
        "and the run or model directory of it",
    )  # fmt: skip
    parser.add_argument("--half", action="store_true", help="round weights to float16")
    parser.set_defaults(run=_compose)


def _add_import(parser):
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a diffusers folder, or a Hub id; or NVlabs' StyleGAN2: a .safetensors file, or the folder of generator."
        "safetensors",
    )
    parser.add_argument("directory", type=Path, metavar="MODEL_DIR", help="where to write; must not exist yet")
    parser.add_argument("--revision", help="branch, tag or commit of the Hub id")
    add_set(parser, "generator.clamp=0 (of NVlabs' nets, what no tensor says)")
    parser.set_defaults(run=_import)


def _add_info(parser):
    parser.add_argument("source", type=Path, metavar="RUN_OR_MODEL_OR_FILE", help=f"{RUN_OR_MODEL}, or an experiment")
    parser.add_argument(
        "--mesh", metavar="data=N,fsdp=M", help="also what training takes of each device of such a mesh, here or not"
    )
    parser.set_defaults(run=_info)


def _train(parsed) -> int:
    from flaxgen import parallel, zoo
    from flaxgen.train import config as configs

    parallel.initialize(parsed.coordinator, parsed.num_processes, parsed.process_id)
    steps = [] if parsed.steps is None else [f"steps={parsed.steps}"]
    config = configs.override(zoo.read_experiment(parsed.experiment), [*parsed.set, *steps])
    zoo.train(config, parsed.workdir, make_plan(parsed), profile=parsed.profile, wandb=parsed.wandb)
    return 0


def _sample(parsed) -> int:
    _check_sample(parsed)
    import jax

    from flaxgen import zoo
    from flaxgen.train import config as configs
    from flaxgen.zoo import pictures

    model = zoo.load(parsed.model, make_plan(parsed))
    family = _family(model)
    if family in DRAWS_NOT:
        raise ValueError(f"{parsed.model} is {DRAWS_NOT[family]}")
    asked = _asked_of_gan(parsed) if family == "gan" else _asked_of_diffusion(parsed)
    real = _real_examples(parsed, model) if parsed.beside_data else None
    sampling = configs.override(model.config.sampling, parsed.set)
    samples = model.sample(jax.random.key(parsed.seed), parsed.num, label=parsed.label, sampling=sampling, **asked)
    pictures.save(parsed.out, samples, real, about={"model": parsed.model, "step": model.step, "seed": parsed.seed})
    print(f"wrote {parsed.out}: {parsed.num} samples of {parsed.model}, step {model.step}, seed {parsed.seed}")
    return 0


def _check_sample(parsed) -> None:
    """What can be said before anything is loaded."""
    check_out(parsed.out)
    check_seed(parsed.seed)
    if parsed.beside_data and parsed.out.suffix != ".png":
        raise ValueError(f"--beside-data needs a picture: expected --out to end in .png, got {parsed.out}")
    if parsed.data and not parsed.beside_data:
        raise ValueError(f"--data {parsed.data} says where the data of --beside-data are: give both or none")
    if parsed.classifier_scale is not None and not parsed.classifier:
        raise ValueError(
            f"--classifier-scale {parsed.classifier_scale} needs --classifier, a run or model to guide with"
        )


def _asked_of_gan(parsed) -> dict[str, Any]:
    """What a GAN is told beside class and sampling; the rest is not for it."""
    for name in ("steps", "sampler", "guidance", "classifier"):
        if getattr(parsed, name) is not None:
            raise ValueError(f"--{name} {getattr(parsed, name)} is for diffusion models: a GAN draws in one step")
    return {"truncation": parsed.truncation}


def _asked_of_diffusion(parsed) -> dict[str, Any]:
    if parsed.truncation is not None:
        raise ValueError(f"--truncation {parsed.truncation} is for GANs: a diffusion model takes --guidance")
    named = {name: getattr(parsed, name) for name in ("steps", "sampler", "guidance")}
    return {**named, "guide": _guide(parsed)}


def _family(model) -> str:
    from flaxgen.zoo import directory, unclip

    if isinstance(model, unclip.Model):
        return "unclip"
    return directory.family_name(type(model.config))


def _guide(parsed):
    """The classifier to guide with and its strength, if there is one."""
    from flaxgen import zoo

    if parsed.classifier is None:
        return None
    model = zoo.load(parsed.classifier)
    if _family(model) != "classifier":
        raise ValueError(f"--classifier {parsed.classifier} is a {_family(model)} model: expected a classifier")
    return model, 1.0 if parsed.classifier_scale is None else parsed.classifier_scale


def _real_examples(parsed, model):
    data = model.config.data
    if parsed.data:
        data = dataclasses.replace(data, path=str(parsed.data))
    try:
        return model.real_examples(parsed.num, data)
    except (ValueError, OSError) as error:
        reason = str(error).replace("--set data.path=DIR", "--data DIR")
        raise ValueError(f"--beside-data: {reason}") from error


def _export(parsed) -> int:
    from flaxgen import zoo

    zoo.export(parsed.source, parsed.directory, layout=parsed.layout)
    print(f"wrote {parsed.directory}")
    return 0


def _compose(parsed) -> int:
    from flaxgen.zoo import unclip

    pairs = [stage.partition("=") for stage in parsed.stages]
    wrong = [f"{name}{equals}{path}" for name, equals, path in pairs if not (name and path)]
    if wrong:
        raise ValueError(f"{wrong[0]}: expected STAGE=DIR, for example clip=runs/clip")
    names = [name for name, _, _ in pairs]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"{twice[0]} is given twice: expected one directory a stage")
    sources = {name: Path(path) for name, _, path in pairs}
    unclip.compose(parsed.directory, sources, "float16" if parsed.half else None)
    print(f"wrote {parsed.directory}: {', '.join(sources)}")
    return 0


def _import(parsed) -> int:
    from flaxgen import zoo

    zoo.import_model(parsed.source, parsed.directory, revision=parsed.revision, overrides=parsed.set)
    print(f"wrote {parsed.directory}")
    return 0


def _info(parsed) -> int:
    from flaxgen import zoo
    from flaxgen.zoo.describe import MeshShape

    print(zoo.describe(parsed.source, MeshShape(**parse_mesh(parsed.mesh)) if parsed.mesh else None))
    return 0
