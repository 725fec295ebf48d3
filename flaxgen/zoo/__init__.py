"""The model families, and what every one of them can do: train, load, export, import, describe."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flaxgen import parallel
from flaxgen.data import Order, batches, random_transform
from flaxgen.train import log, loop
from flaxgen.train.config import fingerprint
from flaxgen.types import State
from flaxgen.weights import hub
from flaxgen.zoo import diffusion, directory, files, gan, interchange, karlo, unclip
from flaxgen.zoo.describe import describe
from flaxgen.zoo.directory import load, read_experiment
from flaxgen.zoo.files import Files
from flaxgen.zoo.gan import nvlabs
from flaxgen.zoo.periodic import make_evaluate

__all__ = ["describe", "export", "import_model", "load", "read_experiment", "train"]
LAYOUTS = ("flaxgen", "diffusers", "nvlabs")
OF_DIFFUSERS = (diffusion.Model, unclip.Model)


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
    if config.start and not files.steps_saved(workdir):
        experiment = directory.begin_with(config, experiment)
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
        broken = getattr(source, "broken", {})
        return {"skipped_images": len(broken)} if broken else {}

    extras = loop.Extras(counters, trackers, profile, fingerprint=fingerprint(config, directory.FREE))
    if getattr(config, "evaluate_every", 0):
        evaluate = make_evaluate(config, workdir, plan)
        extras = extras._replace(evaluate_every=config.evaluate_every, evaluate=evaluate)
    return loop.run(experiment, config, workdir, plan, make_batches, extras)


def export(source: str | Path, target: str | Path, *, layout: str = "flaxgen") -> None:
    """Writes a model directory from a run, or a model in another project's layout.

    Raises:
        ValueError: if the target is not empty, or the layout has no place for the model.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout={layout!r} is not known: expected {', '.join(LAYOUTS)}")
    model, target = load(source), Path(target)
    if layout != "flaxgen":
        _export_to(layout, model, source, target)
    elif isinstance(model, unclip.Model):
        raise ValueError(f"{source} is an unCLIP, a model directory already: --layout diffusers writes another")
    else:
        directory.write_model(target, model.config, model.params, model.step, getattr(model, "found", {}))


def _export_to(layout: str, model: Any, source: str | Path, target: Path) -> None:
    kinds, whose = (gan.Model, "GANs") if layout == "nvlabs" else (OF_DIFFUSERS, "diffusion models and unCLIPs")
    if not isinstance(model, kinds):
        family = "unclip" if isinstance(model, unclip.Model) else directory.family_name(type(model.config))
        raise ValueError(f"{source} is a {family} model: --layout {layout} is for {whose}")
    if isinstance(model, unclip.Model):
        karlo.export_pipeline(model.stages, target)
        return
    directory.new_directory(target)
    if isinstance(model, gan.Model):
        nvlabs.export_state_dict(model, target)
    else:
        interchange.export_diffusers(model, target)


def import_model(
    source: str, target: str | Path, *, revision: str | None = None, overrides: Sequence[str] = ()
) -> None:
    """Reads into a model directory a diffusers folder or Hub id: a pipeline of a UNet2DModel, an unCLIP pipeline
    (Karlo), the prior of Kandinsky 2, or a PriorTransformer alone. Or the state_dict of NVlabs' StyleGAN2, a file or
    the folder of one; `overrides`, such as generator.clamp=0, give what it does not say.

    Raises:
        ValueError, OSError: if it cannot be read, or the target is not empty.
    """
    named = nvlabs.named_file(source)
    if named is not None and revision is not None:
        raise ValueError(f"revision={revision!r} is for Hub ids, but {source} is a file")
    folder = hub.resolve(source, revision) if named is None else named.parent
    found: Files = {}
    if state_dict := named or nvlabs.find_generator(folder):
        config, params = nvlabs.import_state_dict(state_dict, overrides)
    elif overrides:
        raise ValueError(f"--set {overrides[0]} is for StyleGAN2's state_dicts, and {source} has a config of its own")
    elif karlo.is_pipeline(folder):
        karlo.import_pipeline(folder, Path(target))
        return
    elif karlo.is_prior(folder):
        config, params, found = karlo.import_prior_alone(folder)
    else:
        config, params = interchange.import_diffusers(source, revision)
    directory.write_model(Path(target), config, params, 0, found)
