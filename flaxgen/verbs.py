"""What every face of flaxgen calls: train, load, export, import, compose, describe."""

import functools
import importlib.metadata
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flaxgen
from flaxgen import parallel
from flaxgen.data import Order, batches, identity
from flaxgen.family import directory, files
from flaxgen.family.card import make_card
from flaxgen.family.composite import Composite
from flaxgen.family.describe import MeshShape
from flaxgen.family.describe import describe as describe_path
from flaxgen.family.family import FREE, Family
from flaxgen.interchange import LAYOUTS
from flaxgen.measure.periodic import make_evaluate
from flaxgen.train import log, loop
from flaxgen.train.config import fingerprint, require
from flaxgen.types import State
from flaxgen.weights import hub
from flaxgen.weights.variants import link_variant
from flaxgen.zoo import FAMILIES

PLUGINS = "flaxgen.families"
"""The entry points by which installed packages name families of their own."""
MODELS = Path(flaxgen.__file__).parent / "models"
SHIPPED = "scenes"
"""The model that is meant where none is named."""


@functools.cache
def families() -> tuple[Family | Composite, ...]:
    """Those of flaxgen, and those that installed packages declare."""
    return (*FAMILIES, *(entry.load() for entry in importlib.metadata.entry_points(group=PLUGINS)))


def family_of(config: Any) -> Family:
    """The family of a config."""
    return directory.family_of(config, families())


def read_experiment(path: Path) -> Any:
    """The config that an experiment file's `get_config()` returns.

    Raises:
        ValueError: if the file is missing, or returns no config.
    """
    return directory.read_experiment(path, families())[0]


def shipped() -> dict[str, Path]:
    """The models that come with the package, by name."""
    return {path.name: path for path in sorted(MODELS.iterdir()) if path.is_dir()} if MODELS.is_dir() else {}


def find(model: str | Path | None = None) -> Path:
    """The directory of a model: one that comes with the package by its name, or a run or model directory; by default
    SHIPPED.

    Raises:
        ValueError: if there is none.
    """
    named = shipped()
    if model is None and SHIPPED not in named:
        raise ValueError("this installation comes without a model: name one with --model DIR")
    name = SHIPPED if model is None else str(model)
    path = Path(name)
    if path.is_dir() or name not in named:
        return path
    return named[name]


def load(model: str | Path | None = None, plan: parallel.Plan | None = None, *, sequential: bool = False) -> Any:
    """The model in a run directory (the average of its newest good checkpoint), in a model directory, or that comes
    with the package under a name; by default SHIPPED. A Hub id is a model in flaxgen's layout there.

    `plan` says on which devices it runs; by default on one. A `sequential` model, which has to be one of several parts,
    has one of them in memory at a time: it reads its weights when it draws, and drops them after.

    Raises:
        ValueError: if there is no model, it has no parts, or a tensor is missing, unknown or of the wrong shape.
        OSError: if a Hub id cannot be reached.
    """
    path = find(model)
    if not path.is_dir() and "/" in str(model) and not Path(str(model)).parent.is_dir():
        path = hub.resolve(str(model))
    family = directory.family_in(path, families())
    in_parts = isinstance(family, Composite)
    require(in_parts or not sequential, f"sequential: {path} is of {family.name}, which has one part: it is for models "
            "of several, such as `flaxgen compose` makes")  # fmt: skip
    return family.load(path, plan, sequential)


def train(
    config: Any,
    workdir: str | Path,
    plan: parallel.Plan | None = None,
    *,
    profile: bool = False,
    wandb: str | None = None,
    accept_new_data: bool = False,
) -> State:
    """Trains in `workdir`, or resumes the run that is there; returns the last state. Without a `plan` it is on one
    device.

    `profile` writes a trace of a few steps to `workdir/profile`; `wandb` is the Weights & Biases project that gets
    every logged step. With `accept_new_data` a run whose data have changed goes on with them.

    Raises:
        ValueError, OSError: if config, data, devices and `workdir` do not fit together; see also `train.loop.run`.
    """
    workdir, family, plan = Path(workdir), family_of(config), plan or parallel.make_plan("jit")
    config = directory.as_begun(family, config, workdir)
    parallel.check_batch(config.batch_size, plan, getattr(config, "accumulate", 1))
    prepared = directory.prepare(family, config, workdir)
    experiment = family.build(config, prepared)
    transform = family.augment(config, prepared)
    if config.start and not files.steps_saved(workdir):
        experiment = directory.begin_with(family, config, experiment)
    trackers = ()
    if wandb is not None and parallel.process_index() == 0:
        trackers = (log.wandb_tracker(wandb, workdir, family.encode(config)),)
    directory.claim(workdir, family, config, prepared)
    source, data = experiment.source, config.data
    order = Order(config.seed, config.batch_size, parallel.process_index(), parallel.process_count())

    def make_batches(step: int):
        return batches(
            source,
            order,
            start_step=step,
            fields=experiment.batch_fields,
            transform=transform,
            threads=data.threads,
            prefetch=data.prefetch,
        )

    def counters():
        broken = getattr(source, "broken", {})
        return {"skipped_images": len(broken)} if broken else {}

    extras = loop.Extras(
        counters,
        trackers,
        profile,
        fingerprint=fingerprint(config, FREE | family.free),
        data=identity(data) if parallel.process_index() == 0 else {},
        accept_new_data=accept_new_data,
    )
    if getattr(config, "evaluate_every", 0):
        evaluate = make_evaluate(family, config, workdir, plan)
        extras = extras._replace(evaluate_every=config.evaluate_every, evaluate=evaluate)
    return loop.run(experiment, config, workdir, plan, make_batches, extras)


def export(source: str | Path, target: str | Path, *, layout: str = "flaxgen", dtype: str | None = None) -> None:
    """Writes a model directory from a run, or a model in another project's layout, with weights in the dtypes that they
    are stored in. `dtype` is what those of a model directory are rounded to, such as "float16".

    Raises:
        ValueError: if the target is not empty, or the layout has no place for the model, or none for the dtype.
    """
    source, target = Path(source), Path(target)
    known = dict.fromkeys(["flaxgen", *(one.name for one in LAYOUTS)])
    if layout not in known:
        raise ValueError(f"layout={layout!r} is not known: expected {', '.join(known)}")
    family = directory.family_in(source, families())
    if layout == "flaxgen":
        if isinstance(family, Composite):
            raise ValueError(f"{source} is of {family.name}, a model directory already: --layout writes another")
        model = family.as_stored(family.load(source))
        family.write_model(target, model.config, model.params, model.step, model.files, dtype)
        return
    require(dtype is None, f"dtype={dtype}: the layout {layout} has weights as they are")
    writers = [one for one in LAYOUTS if one.name == layout and one.write is not None]
    for one in writers:
        if one.family is family and one.write is not None:
            one.write(family.as_stored(family.load(source)), target)
            return
    takes = ", ".join(one.family.name for one in writers)
    raise ValueError(f"{source} is a {family.name} model: --layout {layout} is for {takes}")


def import_model(
    source: str,
    target: str | Path,
    *,
    revision: str | None = None,
    overrides: Sequence[str] = (),
    variant: str | None = None,
) -> None:
    """Writes a model directory from another project's file, folder or Hub id, in one of LAYOUTS; `overrides`, such as
    generator.clamp=0, give what a layout does not say. A `variant` of the weights, such as "fp16", is taken where there
    is one.

    Raises:
        ValueError, OSError: if it cannot be read, is of no known layout, there is no such variant, or the target is not
            empty.
    """
    place = Path(source)
    if place.suffix and not place.is_dir() and any(layout.matches(place) for layout in LAYOUTS):
        require(revision is None, f"revision={revision!r} is for Hub ids, but {source} is a file")
        require(variant is None, f"variant={variant!r} is for folders, but {source} is a file: name the variant's own")
        located = hub.Source(place)
    else:
        located = hub.locate(source, revision)
    for layout in LAYOUTS:
        if layout.matches(located.fetch(*layout.marks)):
            if variant is None:
                layout.read(located.fetch_plain(*layout.files), Path(target), overrides)
                return
            with tempfile.TemporaryDirectory() as view:
                folder = link_variant(located.fetch_variant(variant, *layout.files), variant, Path(view))
                layout.read(folder, Path(target), overrides)
            return
    looked = "; ".join(layout.looked_for for layout in LAYOUTS if layout.looked_for)
    raise ValueError(f"{source} is of no layout that is known here, looked for: {looked}")


def compose(target: str | Path, sources: Mapping[str, Path], *, dtype: str | None = None) -> None:
    """Writes the model directory of a composite from runs or model directories by the names of its parts; `dtype` is
    what weights are rounded to, such as "float16".

    Raises:
        ValueError: if the parts are those of no composite or do not belong together, or the directory is not empty.
    """
    known = [family for family in families() if isinstance(family, Composite)]
    fitting = max(known, key=lambda composite: len(set(sources) & set(composite.parts)))
    fitting.compose(Path(target), {name: find(path) for name, path in sources.items()}, dtype)


def push(model: str | Path, repository: str, *, private: bool = False) -> str:
    """Puts a model directory, with a model card, into a Hub repository; returns its address.

    Raises:
        ValueError: if it is no model directory, or `repository` is no Hub id.
        OSError: if the Hub cannot be reached, or refuses.
    """
    path = find(model)
    return hub.upload(path, repository, card=make_card(path, repository, families()), private=private)


def describe(path: str | Path, mesh: MeshShape | None = None) -> str:
    """A run, a model or an experiment in words; see `family.describe`."""
    return describe_path(find(path), families(), mesh)


def read_config(path: str | Path) -> tuple[Any, int]:
    """The config in a run or model directory, and the step its weights are of (0 for a run).

    Raises:
        ValueError: if there is none, or it is not one that this version knows.
    """
    family = directory.family_in(Path(path), families())
    if isinstance(family, Composite):
        raise ValueError(f"{path} is of {family.name}, which has a config for each of its parts")
    return family.read_config(Path(path))
