"""Families by their configs, and what lies on disk of them: experiment files, run directories, model directories."""

import functools
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from flaxgen import parallel
from flaxgen.train import config as configs
from flaxgen.types import Experiment, Params, PRNGKey, TrainState
from flaxgen.weights import store
from flaxgen.zoo import classifier, clip, decoder, diffusion, files, gan, prior, unclip, upsampler
from flaxgen.zoo.files import TORN, Files, new_directory

__all__ = ["FAMILIES", "KNOWN", "TORN", "claim", "load", "new_directory", "read_experiment", "write_model"]

FREE = {"steps", "log_every", "preview_every", "checkpoint_every", "keep_checkpoints", "sampling", "data.path",
        "data.threads", "data.prefetch", "data.max_broken", "clip", "cache", "start", "evaluate_every",
        "evaluation", "diverged_ratio", "diverged_steps"}  # fmt: skip
"""What may change between two commands of one run."""


class Family(NamedTuple):
    """What the commands need of a model family: from its config to a run on real data, to the functions `(init,
    make_train_step)` and the batch shapes of one without, to fresh parameters, and to a model.

    `file_names` are the small files that belong to its models; `prepare(config, found)` makes those that a new run
    needs, or takes them from what was `found` in an older one. `parameters(config)` are those that `info` counts, where
    they are not those of a model.
    """

    build: Callable[[Any, Files], Experiment]
    make_training: Callable[[Any], tuple[Callable, Callable]]
    batch_spec: Callable[[Any], dict[str, jax.ShapeDtypeStruct]]
    init_params: Callable[[Any, PRNGKey], Params]
    model: Callable[[Any, Params, int, parallel.Plan, Files], Any]
    prepare: Callable[[Any, Files], Files] = lambda config, found: found
    file_names: tuple[str, ...] = ()
    parameters: Callable[[Any], Params] | None = None


def _plain(module: ModuleType) -> Family:
    """A family whose models are config and weights and nothing else."""
    return Family(
        lambda config, _: module.build(config),
        module.make_training,
        module.batch_spec,
        module.init_params,
        lambda config, params, step, plan, _: module.Model(config, params, step, plan),
    )


def _with_files(module: ModuleType) -> Family:
    return Family(
        module.build,
        module.make_training,
        module.batch_spec,
        module.init_params,
        module.Model,
        module.prepare,
        module.FILE_NAMES,
    )


FAMILIES: dict[type, Family] = {
    diffusion.Config: _plain(diffusion),
    classifier.Config: _plain(classifier),
    clip.Config: _with_files(clip),
    prior.Config: _with_files(prior),
    decoder.Config: _with_files(decoder),
    upsampler.Config: _plain(upsampler),
    gan.Config: _plain(gan)._replace(parameters=gan.parameters),
}
KNOWN: dict[str, type] = {
    **diffusion.TYPES,
    **classifier.TYPES,
    **clip.TYPES,
    **prior.TYPES,
    **decoder.TYPES,
    **upsampler.TYPES,
    **gan.TYPES,
}
"""All that may appear in a config.json."""


def read_experiment(path: Path) -> Any:
    """The config that an experiment file's `get_config()` returns; raises as `read_experiment_file`."""
    return read_experiment_file(path)[0]


def read_experiment_file(path: Path) -> tuple[Any, int | None]:
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
    if type(config) not in FAMILIES:
        raise ValueError(f"experiment {path}: get_config() returned a {type(config).__name__}, expected a zoo Config")
    published = getattr(module, "PUBLISHED", None)
    if published is not None and not (isinstance(published, int) and published > 0):
        raise ValueError(f"experiment {path}: PUBLISHED={published!r}, expected a count of parameters like 300_000_000")
    return config, published


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
    config, step = files.read_config(directory, KNOWN)
    if type(config) not in FAMILIES:
        known = " or ".join(map(family_name, FAMILIES))
        raise ValueError(f"{directory / files.CONFIG} holds no run: expected a config of type {known}")
    return config, step


def prepare(config: Any, workdir: Path) -> Files:
    """The small files of a run of this config: those in `workdir`, else those of the model that it begins with, or new
    ones.

    Raises:
        ValueError: if what they are made from cannot be read, or is not what it was.
    """
    family = FAMILIES[type(config)]
    found = files.read_files(workdir, family.file_names)
    if config.start and not found:
        found = files.read_files(Path(config.start), family.file_names)
    return family.prepare(config, found)


def begin_with(config: Any, experiment: Experiment) -> Experiment:
    """The experiment, which begins with the weights in `config.start`.

    Raises:
        ValueError: if there are none, they are of another kind or shape, or the family keeps more than one net.
    """
    key = jax.random.key(0)
    like = jax.eval_shape(experiment.init, key)
    if not isinstance(like, TrainState):
        raise ValueError(f"start={config.start} cannot be: a {family_name(type(config))} begins with fresh weights")
    model = load(config.start)
    if type(getattr(model, "config", None)) is not type(config):
        raise ValueError(f"start={config.start} holds another kind of model: expected a {family_name(type(config))}")
    params = store.fit(store.flatten(model.params), like.params, config.start)

    def init(key: PRNGKey) -> TrainState:
        fresh = experiment.init(key)
        copies = (jax.tree.map(jnp.array, params) for _ in range(2))  # each of them is donated
        return fresh._replace(params=next(copies), ema_params=next(copies))

    return experiment._replace(init=init)


def claim(workdir: Path, config: Any, prepared: Files) -> None:
    """Makes `workdir` the run of this config, or finds that it is; process 0 does, and all hear what came of it.

    Raises:
        ValueError, OSError: if it holds another experiment (naming the first field that differs), one that went further
            than `config.steps`, or something else, or cannot be written.
    """
    refusal = None
    if parallel.process_index() == 0:
        try:
            _claim(workdir, config, prepared)
        except (ValueError, OSError) as error:
            refusal = error
    if parallel.agree(int(refusal is not None)):
        raise refusal or ValueError(f"process 0 cannot use {workdir} and says why")


def _claim(workdir: Path, config: Any, prepared: Files) -> None:
    if (workdir / files.CONFIG).is_file():
        _check_same(workdir, config, read_config(workdir)[0])
    elif workdir.is_dir() and any(path.name not in {TORN, *prepared} for path in workdir.iterdir()):
        raise ValueError(f"{workdir} is not empty and holds no run: choose another --workdir")
    workdir.mkdir(parents=True, exist_ok=True)
    for name, content in prepared.items():
        (workdir / name).write_bytes(content)
    files.write_config(workdir, encode(config))


def _check_same(workdir: Path, config: Any, saved: Any) -> None:
    ours, theirs = flat(encode(config)), flat(encode(saved))
    for key in sorted(ours.keys() | theirs.keys(), key=lambda key: (key.rpartition(".")[2] != "type", key)):
        if ours.get(key) != theirs.get(key) and not _is_free(key):
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


def _is_free(key: str) -> bool:
    return any(key == free or key.startswith(f"{free}.") for free in FREE)


def flat(data: Any, prefix: str = "") -> dict[str, Any]:
    """Nested JSON objects by dotted path."""
    if not isinstance(data, dict):
        return {prefix: data}
    return {k: v for key, value in data.items() for k, v in flat(value, f"{prefix}.{key}" if prefix else key).items()}


def load(path: str | Path, plan: parallel.Plan | None = None) -> Any:
    """The model in a run directory (the average of its newest good checkpoint) or a model directory, with its verbs.

    `plan` says on which devices it runs; by default on one.

    Raises:
        ValueError: if there is no model, or a tensor is missing, unknown or of the wrong shape.
    """
    directory, plan = Path(path), plan or parallel.make_plan("jit")
    if unclip.is_composite(directory):
        return unclip.Model(unclip.load(directory, plan))
    config, step = read_config(directory)
    family = FAMILIES[type(config)]
    params, step = files.read_weights(directory, functools.partial(family.init_params, config), step)
    found = files.read_files(directory, family.file_names)
    return family.model(config, params, step, plan, found)


def abstract_params(config: Any) -> Params:
    """Shapes and dtypes of the parameters, as ShapeDtypeStructs; of a GAN those of both nets."""
    counted = FAMILIES[type(config)].parameters
    if counted is not None:
        return counted(config)
    return jax.eval_shape(lambda: FAMILIES[type(config)].init_params(config, jax.random.key(0)))


def write_model(
    directory: Path, config: Any, params: Params, step: int, found: Files | None = None, dtype: str | None = None
) -> None:
    """Writes a model directory; see `files.write_model`."""
    files.write_model(directory, encode(config), params, step, found or {}, dtype)


def family_name(kind: type) -> str:
    """What the family of a config is called."""
    return next(name for name, known in KNOWN.items() if known is kind).lower()
