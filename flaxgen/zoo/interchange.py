"""Models of other projects: diffusers' pipelines of a UNet2DModel and a scheduler, read and written as folders."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from flaxgen.data import Data
from flaxgen.nets.unet import UNet
from flaxgen.train.optim import require
from flaxgen.types import Params
from flaxgen.weights import hub, store, unet2d
from flaxgen.zoo.diffusion import Config, Model, Objective, Process, Sampling

SCHEDULES = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}
PREDICTIONS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
VARIANCES: dict[str, Literal["small", "large", "learned"]] = {
    "fixed_small": "small",
    "fixed_small_log": "small",
    "fixed_large": "large",
    "fixed_large_log": "large",
    "learned_range": "learned",
}


def import_diffusers(source: str, revision: str | None = None) -> tuple[Config, Params]:
    """A folder with a UNet2DModel (itself, or in `unet/`) and, if it is there, its scheduler; or such a Hub id.

    The process is that of the scheduler, by default DDPM's. Fields of the config that are about training are not known
    and hold defaults.

    Raises:
        ValueError, OSError: if it cannot be found or reached, or is of a kind that flaxgen does not know.
    """
    folder = hub.resolve(source, revision)
    net, params = unet2d.import_unet2d(folder / "unet" if (folder / "unet").is_dir() else folder)
    scheduler = next((p for p in (folder / "scheduler" / "scheduler_config.json", folder / "scheduler_config.json")
                      if p.is_file()), None)  # fmt: skip
    described = store.read_json(scheduler) if scheduler else {}
    learned = net.learned_variance
    config = Config(
        seed=0,
        steps=1,
        batch_size=1,
        data=Data(source="folder", image_size=net.image_size, channels=net.in_channels),
        net=net,
        process=process_of(described),
        objective=Objective(loss="hybrid" if learned else "mse"),
        sampling=sampling_of(described, learned),
    )
    return config, params


def process_of(scheduler: Mapping[str, Any]) -> Process:
    """The noise process that a scheduler_config.json describes.

    Raises:
        ValueError: naming the value that flaxgen does not know.
    """
    schedule = scheduler.get("beta_schedule", "linear")
    prediction = scheduler.get("prediction_type", "epsilon")
    require(schedule in SCHEDULES, f"scheduler beta_schedule={schedule!r}: expected one of {', '.join(SCHEDULES)}")
    require(prediction in PREDICTIONS, f"scheduler prediction_type={prediction!r}: expected {', '.join(PREDICTIONS)}")
    require(scheduler.get("trained_betas") is None, "scheduler trained_betas: a table of its own is not known here")
    timesteps = int(scheduler.get("num_train_timesteps", 1000))
    return Process(
        schedule=SCHEDULES[schedule],
        timesteps=timesteps,
        # Theirs are the betas of the table, ours those of 1000 steps of the same process.
        beta_start=float(scheduler.get("beta_start", 1e-4)) * timesteps / 1000,
        beta_end=float(scheduler.get("beta_end", 0.02)) * timesteps / 1000,
        zero_terminal_snr=bool(scheduler.get("rescale_betas_zero_snr", False)),
        prediction=PREDICTIONS[prediction],
    )


def sampling_of(scheduler: Mapping[str, Any], learned_variance: bool) -> Sampling:
    """How the scheduler would sample: thresholding and variance; steps and sampler are flaxgen's defaults."""
    threshold = "clip" if scheduler.get("clip_sample", True) else "none"
    variance = VARIANCES.get(scheduler.get("variance_type", "fixed_small"), "small")
    return Sampling(
        threshold="dynamic" if scheduler.get("thresholding") else threshold,
        variance="learned" if learned_variance else variance,
    )


def export_diffusers(model: Model, directory: Path) -> None:
    """Writes a DDPMPipeline folder: model_index.json, unet/ and scheduler/.

    Raises:
        ValueError: if diffusers has no such net or process.
    """
    process, net = model.config.process, model.config.net
    if not isinstance(net, UNet):
        raise ValueError(f"a {type(net).__name__} has no counterpart in diffusers: only UNet has")
    names = {name: theirs for table in (SCHEDULES, PREDICTIONS) for theirs, name in table.items()}
    for field, value in (("schedule", process.schedule), ("prediction", process.prediction)):
        require(value in names, f"process.{field}={value!r} has no counterpart in diffusers")
    require(process.timesteps > 0 and process.shift == 1, "diffusers knows tables only, without shift")
    unet2d.export_unet2d(net, model.params, directory / "unet")
    variances = {"small": "fixed_small", "large": "fixed_large", "learned": "learned_range"}
    scheduler = {
        "_class_name": "DDPMScheduler",
        "num_train_timesteps": process.timesteps,
        "beta_start": process.beta_start * 1000 / process.timesteps,
        "beta_end": process.beta_end * 1000 / process.timesteps,
        "beta_schedule": names[process.schedule],
        "prediction_type": names[process.prediction],
        "rescale_betas_zero_snr": process.zero_terminal_snr,
        "variance_type": variances[model.config.sampling.variance],
        "clip_sample": model.config.sampling.threshold != "none",
        "thresholding": model.config.sampling.threshold == "dynamic",
    }
    index = {
        "_class_name": "DDPMPipeline",
        "scheduler": ["diffusers", "DDPMScheduler"],
        "unet": ["diffusers", "UNet2DModel"],
    }
    (directory / "scheduler").mkdir()
    (directory / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler, indent=2))
    (directory / "model_index.json").write_text(json.dumps(index, indent=2))
