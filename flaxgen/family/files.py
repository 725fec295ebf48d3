"""What a run directory and a model directory hold, below the level of families: config, weights, and the small files
that belong to a model (a tokenizer, the fingerprint of its CLIP).

A run directory has `config.json`, `metrics.jsonl`, `previews/`, `tensorboard/` and `checkpoints/`; a model directory
has `config.json` and `model.safetensors`. No code is ever loaded from either.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np

import flaxgen
from flaxgen import programs
from flaxgen.family.unread import Unread
from flaxgen.train import checkpoint
from flaxgen.train import config as configs
from flaxgen.train.config import require
from flaxgen.types import Params, PRNGKey
from flaxgen.weights import store
from flaxgen.weights.tree import leaves_of, unflatten

CONFIG, WEIGHTS, CHECKPOINTS = "config.json", "model.safetensors", "checkpoints"
TORN = f"{CONFIG}.tmp"


def type_in(directory: Path) -> str:
    """What kind of config a run or model directory has, "" where there is none."""
    if not (directory / CONFIG).is_file():
        return ""
    config = store.read_json(directory / CONFIG).get("config")
    return str(config.get("type", "")) if isinstance(config, dict) else ""


def read_config(directory: Path, known: configs.Types, kind: type | None = None) -> tuple[Any, int]:
    """The config in a run or model directory, and the step its weights are of (0 for a run).

    Raises:
        ValueError: if there is none, it is not one of the types `known`, or not of the `kind` that is wanted.
    """
    path = directory / CONFIG
    if not path.is_file():
        refuse(directory)
    data = store.read_json(path)
    config, step = data.get("config"), data.get("step", 0)
    if config is None:
        refuse(directory)
    if kind is not None and isinstance(config, dict) and known.get(found := str(config.get("type"))) is not kind:
        wanted = next(name for name, one in known.items() if one is kind)
        raise ValueError(f"{directory} is of type {found}: expected a run or model directory of type {wanted}")
    try:
        config = configs.decode(config, known)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(step, int):
        raise ValueError(f"{path}: step={step!r}: expected an integer")
    return config, step


def refuse(directory: Path) -> NoReturn:
    """Raises ValueError: it is no run or model directory, and perhaps another project's."""
    path = directory / CONFIG
    if path.is_file():
        raise ValueError(f"{path} is not flaxgen's: use `flaxgen import {directory} MODEL_DIR` for other layouts")
    other = (directory / "model_index.json").is_file()
    hint = f": for another project's, use `flaxgen import {directory} MODEL_DIR`" if other else ""
    raise ValueError(f"{directory} is no run or model directory: it has no {CONFIG}{hint}")


def write_config(directory: Path, encoded: Mapping[str, Any], **more: int) -> None:
    """Writes config.json whole or not at all."""
    text = json.dumps({"flaxgen": flaxgen.__version__, **more, "config": encoded}, indent=2)
    (directory / TORN).write_text(text + "\n")
    os.replace(directory / TORN, directory / CONFIG)


def read_weights(directory: Path, init: Callable[[PRNGKey], Params], step: int) -> tuple[Params, int]:
    """The parameters of a model directory, or the average of a run's newest good checkpoint, on the default device, and
    the step they are of (`step` of a model directory); `init` makes such parameters.

    Raises:
        ValueError: if there are none, or a tensor is missing, unknown or of the wrong shape.
    """
    if (directory / WEIGHTS).is_file():
        return unread_weights(directory, init).read(), step
    like = programs.shapes(init)
    if (directory / CHECKPOINTS).is_dir():
        step, fields = checkpoint.read(directory / CHECKPOINTS, ("ema_params",))
        params = store.fit(store.flatten(fields["ema_params"]), like, str(directory / CHECKPOINTS))
        return jax.device_put(params), step
    raise ValueError(f"{directory} has neither {WEIGHTS} nor {CHECKPOINTS}/: was anything trained there?")


def unread_weights(directory: Path, init: Callable[[PRNGKey], Params]) -> Unread:
    """The parameters of a model directory for whoever is to read them, each time on the default device; reading raises
    ValueError if the file has been changed since.

    Raises:
        ValueError: if there is no such file, or by its header a tensor is missing, unknown or of the wrong shape.
    """
    path, like = directory / WEIGHTS, programs.shapes(init)
    require(path.is_file(), f"{directory} has no {WEIGHTS}: `flaxgen export` makes a model directory of a run")
    tensors = store.open_file(path)
    store.check_entries(store.read_header(path), like, str(path))
    return Unread(lambda: store.fit(tensors, like, str(path), place=jax.device_put))


def as_stored(directory: Path, params: Params) -> Params:
    """The parameters of a model directory, which are wider where they are computed with, in the dtypes that they have
    in its file: the same numbers. Those of a run are as they are."""
    if not (directory / WEIGHTS).is_file():
        return params
    header = store.read_header(directory / WEIGHTS)
    return unflatten({name: np.asarray(leaf, header[name].dtype) for name, leaf in leaves_of(params).items()})


def read_files(directory: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    """Those of the named files that are there."""
    return {name: (directory / name).read_bytes() for name in names if (directory / name).is_file()}


def write_model(
    directory: Path,
    encoded: Mapping[str, Any],
    params: Params,
    step: int,
    files: Mapping[str, bytes],
    dtype: str | None = None,
) -> None:
    """Writes a model directory; `dtype` is what the weights are rounded to, None is as they are.

    Raises:
        ValueError: if it holds anything yet.
    """
    new_directory(directory)
    store.save_params(directory / WEIGHTS, params, dtype)
    for name, content in files.items():
        (directory / name).write_bytes(content)
    write_config(directory, encoded, step=step)


def new_directory(directory: Path) -> None:
    """Makes a directory that must not hold anything yet."""
    if directory.is_dir() and any(directory.iterdir()):
        raise ValueError(f"{directory} is not empty: choose a new directory")
    directory.mkdir(parents=True, exist_ok=True)


def steps_saved(directory: Path) -> list[int]:
    """The steps of the checkpoints in a run directory, good or not."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return checkpoint.steps_in(directory / CHECKPOINTS)
    return []


def fingerprint(params: Params) -> str:
    """What tells parameters from others: 12 digits of a hash of their names and bytes."""
    digest = hashlib.sha256()
    for name, value in sorted(store.flatten(params).items()):
        digest.update(f"{name} {value.dtype} {value.shape}".encode() + np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()[:12]


def bytes_in(directory: Path) -> int:
    """Size of the files below; those that vanish meanwhile, as in a run that goes on, count nothing."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total
