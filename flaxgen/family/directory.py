"""What lies on disk of families: experiment files, and run directories, which a run claims."""

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from flaxgen import parallel
from flaxgen.family import files
from flaxgen.family.composite import INDEX, Composite
from flaxgen.family.family import FREE, Family
from flaxgen.family.files import TORN
from flaxgen.family.trained import Files
from flaxgen.train import config as configs
from flaxgen.types import Experiment, PRNGKey, State
from flaxgen.weights import store

Families = Sequence[Family | Composite]


def family_of(config: Any, families: Families) -> Family:
    """The family of a config.

    Raises:
        ValueError: if there is none.
    """
    for family in families:
        if isinstance(family, Family) and family.config is type(config):
            return family
    raise ValueError(f"a {type(config).__name__} is no config of a family: expected one of {_names(families)}")


def family_in(directory: Path, families: Families) -> Family | Composite:
    """The family of a run or model directory.

    Raises:
        ValueError: if it is none, or of a family that is not known.
    """
    for family in families:
        if family.reads(directory):
            return family
    path = directory / files.CONFIG
    if path.is_file() and "config" in store.read_json(path):
        known = ", ".join(next(iter(family.types)) for family in families if isinstance(family, Family))
        found = files.type_in(directory) or "config of no type"
        raise ValueError(f"{path} holds a {found!r}, which is no family: expected one of {known}")
    files.refuse(directory)


def _names(families: Families) -> str:
    return ", ".join(family.name for family in families)


def read_experiment(path: Path, families: Families) -> tuple[Any, int | None]:
    """The config that an experiment file's `get_config()` returns, and how many parameters its PUBLISHED says that the
    model it follows has (None: it has none).

    Raises:
        ValueError: if the file is missing, has no such function, or PUBLISHED is no count.
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
    try:
        family_of(config, families)
    except ValueError as error:
        raise ValueError(f"experiment {path}: get_config() returned what is none: {error}") from error
    published = getattr(module, "PUBLISHED", None)
    if published is not None and not (isinstance(published, int) and published > 0):
        raise ValueError(f"experiment {path}: PUBLISHED={published!r}, expected a count of parameters like 300_000_000")
    return config, published


def prepare(family: Family, config: Any, workdir: Path) -> Files:
    """The small files of a run of this config: those in `workdir`, else those of the model that it begins with, or new
    ones.

    Raises:
        ValueError: if what they are made from cannot be read, or is not what it was.
    """
    found = files.read_files(workdir, family.files)
    if config.start and not found:
        found = files.read_files(Path(config.start), family.files)
    return family.prepare(config, found)


def as_begun(family: Family, config: Any, workdir: Path) -> Any:
    """The config for the run in `workdir`, if there is one: what an older version began otherwise than is the default
    now goes on as it began, and a line on stderr says so."""
    if not (workdir / files.CONFIG).is_file():
        return config
    kept = configs.keep_former(config, family.read_config(workdir)[0])
    before, after = flat(family.encode(config)), flat(family.encode(kept))
    for key in after:
        if after[key] != before[key] and parallel.process_index() == 0:
            print(
                f"{workdir} goes on with {key}={after[key]}, as it began; new runs have {before[key]}", file=sys.stderr
            )
    return kept


def begin_with(family: Family, config: Any, experiment: Experiment) -> Experiment:
    """The experiment, which begins with the weights in `config.start`; what a state holds beside them, such as a
    discriminator, begins anew.

    Raises:
        ValueError: if there are none, they are of another kind or shape, or the state has no one net to begin with.
    """
    like = jax.eval_shape(experiment.init, jax.random.key(0))
    if not {"params", "ema_params", "held"} <= set(getattr(like, "_fields", ())):
        raise ValueError(f"start={config.start} cannot be: a {family.name} begins with fresh weights")
    start = Path(config.start)
    if not any((start / name).is_file() for name in (files.CONFIG, INDEX)):
        files.refuse(start)
    if not family.reads(start):
        raise ValueError(f"start={config.start} holds another kind of model: expected a {family.name}")
    params = store.fit(store.flatten(family.load(config.start).params), like.params, config.start)

    def init(key: PRNGKey) -> State:
        fresh = experiment.init(key)
        copies = [jax.tree.map(jnp.array, params) for _ in range(2)]  # each of them is donated
        held = fresh.held if family.init_held is None else family.init_held(config, key, copies[0])
        held = jax.tree.map(jnp.array, held)
        return fresh._replace(params=copies[0], ema_params=copies[1], held=held)

    return experiment._replace(init=init)


def claim(workdir: Path, family: Family, config: Any, prepared: Files) -> None:
    """Makes `workdir` the run of this config, or finds that it is; process 0 does, and all hear what came of it.

    Raises:
        ValueError, OSError: if it holds another experiment (naming the first field that differs), one that went further
            than `config.steps`, or something else, or cannot be written.
    """
    refusal = None
    if parallel.process_index() == 0:
        try:
            _claim(workdir, family, config, prepared)
        except (ValueError, OSError) as error:
            refusal = error
    if parallel.agree(int(refusal is not None)):
        raise refusal or ValueError(f"process 0 cannot use {workdir} and says why")


def _claim(workdir: Path, family: Family, config: Any, prepared: Files) -> None:
    if (workdir / files.CONFIG).is_file():
        _check_same(workdir, family, config)
    elif workdir.is_dir() and any(path.name not in {TORN, *prepared} for path in workdir.iterdir()):
        raise ValueError(f"{workdir} is not empty and holds no run: choose another --workdir")
    workdir.mkdir(parents=True, exist_ok=True)
    for name, content in prepared.items():
        (workdir / name).write_bytes(content)
    files.write_config(workdir, family.encode(config))


def _check_same(workdir: Path, family: Family, config: Any) -> None:
    saved = family.read_config(workdir)[0]
    ours, theirs = flat(family.encode(config)), flat(family.encode(saved))
    for key in sorted(ours.keys() | theirs.keys(), key=lambda key: (key.rpartition(".")[2] != "type", key)):
        if ours.get(key) != theirs.get(key) and not _is_free(key, family.free):
            raise ValueError(
                f"{workdir} holds another experiment: {key} is {theirs.get(key)!r} there and {ours.get(key)!r} "
                "here; choose another --workdir"
            )
    reached = files.steps_saved(workdir)[-1:]
    if reached and reached[0] > config.steps:
        raise ValueError(f"{workdir} is at step {reached[0]} already: expected --steps {reached[0]} or more, "
                         f"got {config.steps}")  # fmt: skip
    decays = any(key.endswith("optimizer.decay") and value != "constant" for key, value in ours.items())
    if reached and decays and config.steps != saved.steps:
        print(f"the learning rate now decays over {config.steps} steps, up to step {reached[0]} it did over "
              f"{saved.steps}: not the run that has {config.steps} from the start", file=sys.stderr)  # fmt: skip


def _is_free(key: str, own: frozenset[str]) -> bool:
    return any(key == free or key.startswith(f"{free}.") for free in FREE | own)


def flat(data: Any, prefix: str = "") -> dict[str, Any]:
    """Nested JSON objects by dotted path, of which a place in a list of objects is a part."""
    if isinstance(data, list) and any(isinstance(each, dict) for each in data):
        data = {str(i): each for i, each in enumerate(data)}
    if not isinstance(data, dict):
        return {prefix: data}
    return {k: v for key, value in data.items() for k, v in flat(value, f"{prefix}.{key}" if prefix else key).items()}
