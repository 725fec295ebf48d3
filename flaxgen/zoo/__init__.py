"""The model families, and what every one of them can do: train, load, export, import, describe."""

from pathlib import Path
from typing import Any

from flaxgen import parallel
from flaxgen.data import Images, Order, batches, random_transform
from flaxgen.train import log, loop
from flaxgen.types import State
from flaxgen.zoo import directory, interchange
from flaxgen.zoo.directory import describe, load, read_experiment

__all__ = ["describe", "export", "import_model", "load", "read_experiment", "train"]


def train(
    config: Any, workdir: str | Path, plan: parallel.Plan, *, profile: bool = False, wandb: str | None = None
) -> State:
    """Trains in `workdir`, or goes on with the run that is there; returns the last state.

    `profile` writes a trace of a few steps to `workdir/profile`; `wandb` is the Weights & Biases project that is told
    of every logged step.

    Raises:
        ValueError, OSError: if config, data, devices and `workdir` do not fit together; see also `train.loop.run`.
    """
    workdir = Path(workdir)
    parallel.check_batch(config.batch_size, plan, getattr(config, "accumulate", 1))
    prepared = directory.prepare(config, workdir)
    experiment = directory.FAMILIES[type(config)].build(config, prepared)
    trackers = ()
    if wandb is not None and parallel.process_index() == 0:
        trackers = (log.wandb_tracker(wandb, workdir, directory.encode(config)),)
    directory.claim(workdir, config, prepared)
    source, data = experiment.source, config.data
    order = Order(config.seed, config.batch_size, parallel.process_index(), parallel.process_count())

    def make_batches(step: int):
        return batches(
            source,
            order,
            start_step=step,
            fields=experiment.batch_fields,
            transform=random_transform(data),
            threads=data.threads,
            prefetch=data.prefetch,
        )

    def counters():
        return {"skipped_images": len(source.broken)} if isinstance(source, Images) and source.broken else {}

    return loop.run(experiment, config, workdir, plan, make_batches, loop.Extras(counters, trackers, profile))


def export(source: str | Path, target: str | Path, *, layout: str = "flaxgen") -> None:
    """Writes a model directory from a run, or a model in another project's layout.

    Raises:
        ValueError: if the target is not empty, or the layout has no place for the model.
    """
    model, target = load(source), Path(target)
    if layout == "flaxgen":
        directory.write_model(target, model.config, model.params, model.step)
    elif layout == "diffusers":
        directory.new_directory(target)
        interchange.export_diffusers(model, target)
    else:
        raise ValueError(f"layout={layout!r} is not known: expected flaxgen or diffusers")


def import_model(source: str, target: str | Path, *, revision: str | None = None) -> None:
    """Reads a diffusers folder or Hub id into a model directory.

    Raises:
        ValueError, OSError: if it cannot be read, or the target is not empty.
    """
    config, params = interchange.import_diffusers(source, revision)
    directory.write_model(Path(target), config, params, 0)
