"""What lies on disk: experiment files, run directories and model directories.

A run directory has `config.json`, `metrics.jsonl`, `previews/`, `tensorboard/` and `checkpoints/`; a model directory
has `config.json` and `model.safetensors`. No code is ever loaded from either.
"""

import contextlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

import flaxgen
from flaxgen import parallel
from flaxgen.data import Data
from flaxgen.nets.classifier import NoisyClassifier
from flaxgen.nets.mlp import MLP
from flaxgen.nets.unet import UNet
from flaxgen.train import checkpoint
from flaxgen.train import config as configs
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.types import Experiment, Params, PRNGKey
from flaxgen.weights import store
from flaxgen.zoo import classifier, diffusion

CONFIG, WEIGHTS, CHECKPOINTS = "config.json", "model.safetensors", "checkpoints"
TORN = f"{CONFIG}.tmp"
FREE = {"steps", "log_every", "preview_every", "checkpoint_every", "keep_checkpoints", "sampling", "data.path",
        "data.threads", "data.prefetch", "data.max_broken"}  # fmt: skip
"""What may change between two commands of one run."""


class Family(NamedTuple):
    """What the commands need of a model family: from its config to a run on real data, to the functions `(init,
    make_train_step)` and the batch shapes of one without, to fresh parameters, and to a model."""

    build: Callable[[Any], Experiment]
    make_training: Callable[[Any], tuple[Callable, Callable]]
    batch_spec: Callable[[Any], dict[str, jax.ShapeDtypeStruct]]
    init_params: Callable[[Any, PRNGKey], Params]
    model: Callable[[Any, Params, int, parallel.Plan], Any]


FAMILIES: dict[type, Family] = {
    module.Config: Family(module.build, module.make_training, module.batch_spec, module.init_params, module.Model)
    for module in (diffusion, classifier)
}
KNOWN: dict[str, type] = {
    "Diffusion": diffusion.Config,
    "Classifier": classifier.Config,
    **{
        kind.__name__: kind
        for kind in (
            Data, UNet, MLP, NoisyClassifier, Optimizer, Ema, diffusion.Process, diffusion.Objective, diffusion.Sampling
        )
    },
}  # fmt: skip
"""All that may appear in a config.json."""


def read_experiment(path: Path) -> Any:
    """The config that an experiment file's `get_config()` returns.

    Raises:
        ValueError: if the file is missing, or has no such function.
    """
    if not path.is_file():
        raise ValueError(f"experiment {path} does not exist: expected a file such as experiments/ddpm_digits.py")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"experiment {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise ValueError(f"experiment {path} has no get_config(): see experiments/ddpm_digits.py")
    config = module.get_config()
    if type(config) not in FAMILIES:
        raise ValueError(f"experiment {path}: get_config() returned a {type(config).__name__}, expected a zoo Config")
    return config


def encode(config: Any) -> dict[str, Any]:
    """The config as JSON values."""
    return configs.encode(config, KNOWN)


def decode(data: Any) -> Any:
    """The inverse of `encode`."""
    return configs.decode(data, KNOWN)


def read_config(directory: Path) -> tuple[Any, int]:
    """The config in a run or model directory, and the step its weights are of (0 for a run).

    Raises:
        ValueError: if there is none, or it is not one that this version knows.
    """
    path = directory / CONFIG
    if not path.is_file():
        raise ValueError(f"{directory} is no run or model directory: it has no {CONFIG}")
    data = store.read_json(path)
    config, step = data.get("config"), data.get("step", 0)
    if config is None:
        raise ValueError(f"{path} is not flaxgen's: use `flaxgen import {directory} MODEL_DIR` for other layouts")
    try:
        config = decode(config)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if type(config) not in FAMILIES:
        raise ValueError(f"{path} holds no run: expected a config of type {' or '.join(map(family_name, FAMILIES))}")
    if not isinstance(step, int):
        raise ValueError(f"{path}: step={step!r}: expected an integer")
    return config, step


def write_config(directory: Path, config: Any, **more: int) -> None:
    """Writes config.json whole or not at all."""
    text = json.dumps({"flaxgen": flaxgen.__version__, **more, "config": encode(config)}, indent=2)
    (directory / TORN).write_text(text + "\n")
    os.replace(directory / TORN, directory / CONFIG)


def claim(workdir: Path, config: Any) -> None:
    """Makes `workdir` the run of this config, or finds that it is; process 0 does, and all hear what came of it.

    Raises:
        ValueError, OSError: if it holds another experiment (naming the first field that differs), one that went further
            than `config.steps`, or something else, or cannot be written.
    """
    refusal = None
    if parallel.process_index() == 0:
        try:
            _claim(workdir, config)
        except (ValueError, OSError) as error:
            refusal = error
    if parallel.agree(int(refusal is not None)):
        raise refusal or ValueError(f"process 0 cannot use {workdir} and says why")


def _claim(workdir: Path, config: Any) -> None:
    if (workdir / CONFIG).is_file():
        _check_same(workdir, config, read_config(workdir)[0])
    elif workdir.is_dir() and any(path.name != TORN for path in workdir.iterdir()):
        raise ValueError(f"{workdir} is not empty and holds no run: choose another --workdir")
    workdir.mkdir(parents=True, exist_ok=True)
    write_config(workdir, config)


def _check_same(workdir: Path, config: Any, saved: Any) -> None:
    ours, theirs = _flat(encode(config)), _flat(encode(saved))
    for key in sorted(ours.keys() | theirs.keys(), key=lambda key: (key.rpartition(".")[2] != "type", key)):
        if ours.get(key) != theirs.get(key) and not _is_free(key):
            raise ValueError(
                f"{workdir} holds another experiment: {key} is {theirs.get(key)!r} there and {ours.get(key)!r} "
                "here; choose another --workdir"
            )
    reached = _steps_saved(workdir)[-1:]
    if reached and reached[0] > config.steps:
        raise ValueError(f"{workdir} is at step {reached[0]} already: expected --steps {reached[0]} or more, "
                         f"got {config.steps}")  # fmt: skip
    decays = any(key.endswith("optimizer.decay") and value != "constant" for key, value in ours.items())
    if reached and decays and config.steps != saved.steps:
        print(f"the learning rate now decays over {config.steps} steps, up to step {reached[0]} it did over "
              f"{saved.steps}: not the run that has {config.steps} from the start", file=sys.stderr)  # fmt: skip


def _steps_saved(workdir: Path) -> list[int]:
    """The steps of the checkpoints in a run directory, good or not."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return checkpoint.steps_in(workdir / CHECKPOINTS)
    return []


def _is_free(key: str) -> bool:
    return any(key == free or key.startswith(f"{free}.") for free in FREE)


def _flat(data: Any, prefix: str = "") -> dict[str, Any]:
    """Nested JSON objects by dotted path."""
    if not isinstance(data, dict):
        return {prefix: data}
    return {k: v for key, value in data.items() for k, v in _flat(value, f"{prefix}.{key}" if prefix else key).items()}


def load(path: str | Path, plan: parallel.Plan | None = None) -> Any:
    """The model in a run directory (the average of its newest good checkpoint) or a model directory, with its verbs.

    `plan` says on which devices it runs; by default on one.

    Raises:
        ValueError: if there is no model, or a tensor is missing, unknown or of the wrong shape.
    """
    directory = Path(path)
    config, step = read_config(directory)
    family = FAMILIES[type(config)]
    like = jax.eval_shape(lambda: family.init_params(config, jax.random.key(0)))
    if (directory / WEIGHTS).is_file():
        params = store.load_params(directory / WEIGHTS, like)
    elif (directory / CHECKPOINTS).is_dir():
        step, fields = checkpoint.read(directory / CHECKPOINTS, ("ema_params",))
        params = store.fit(store.flatten(fields["ema_params"]), like, str(directory / CHECKPOINTS))
    else:
        raise ValueError(f"{directory} has neither {WEIGHTS} nor {CHECKPOINTS}/: was anything trained there?")
    return family.model(config, jax.device_put(params), step, plan or parallel.make_plan("jit"))


def write_model(directory: Path, config: Any, params: Params, step: int) -> None:
    """Writes a model directory.

    Raises:
        ValueError: if it exists.
    """
    new_directory(directory)
    store.save_params(directory / WEIGHTS, params)
    write_config(directory, config, step=step)


def new_directory(directory: Path) -> None:
    """Makes a directory that must not hold anything yet."""
    if directory.is_dir() and any(directory.iterdir()):
        raise ValueError(f"{directory} is not empty: choose a new directory")
    directory.mkdir(parents=True, exist_ok=True)


def describe(path: Path) -> str:
    """A run or model in words: what it is, its step, its parameters by part, its size, its config."""
    config, step = read_config(path)
    family = FAMILIES[type(config)]
    like = jax.eval_shape(lambda: family.init_params(config, jax.random.key(0)))
    sizes = {name: sum(x.size for x in jax.tree.leaves(part)) for name, part in like.items()}
    total = sum(sizes.values())
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:8]
    fields = {key: value for key, value in _flat(encode(config)).items() if key.rpartition(".")[2] != "type"}
    lines = [
        f"{path}: {family_name(type(config))} with a {type(config.net).__name__}, {_progress(path, config, step)}",
        f"parameters  {total:,} ({4 * total / 2**20:.1f} MiB in float32)",
        *(f"  {size:>12,}  {name}" for name, size in largest),
        f"on disk     {_bytes_in(path) / 2**20:.1f} MiB",
        "config",
        *(f"  {key} = {_shown(value)}" for key, value in fields.items()),
    ]
    return "\n".join(lines)


def _progress(path: Path, config: Any, step: int) -> str:
    if not (path / WEIGHTS).is_file():
        step = max(_steps_saved(path), default=0)
    elif not step:
        return "imported"
    return f"at step {step:,} of {config.steps:,}" if step else "nothing saved yet"


def _bytes_in(path: Path) -> int:
    """Size of the files below; those that vanish meanwhile, as in a run that goes on, count nothing."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total


def family_name(kind: type) -> str:
    """What the family of a config is called."""
    return next(name for name, known in KNOWN.items() if known is kind).lower()


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
