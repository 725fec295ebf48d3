"""Models of other projects: diffusers' pipelines of a UNet2DModel and a scheduler, read and written as folders."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from flaxgen.data import Data
from flaxgen.family.denoising import Objective
from flaxgen.family.files import new_directory
from flaxgen.family.process import Process
from flaxgen.family.sampling import Sampling
from flaxgen.interchange.layout import Layout, refuse_overrides
from flaxgen.nets.unet import UNet
from flaxgen.train.config import require
from flaxgen.types import Params
from flaxgen.weights import store, unet2d
from flaxgen.zoo.diffusion import FAMILY, Config, Model

SCHEDULES = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}
PREDICTIONS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
VARIANCES: dict[str | None, Literal["small", "large", "learned"]] = {
    None: "small",
    "fixed_small": "small",
    "fixed_small_log": "small",
    "fixed_large": "large",
    "fixed_large_log": "large",
    "learned_range": "learned",
}


class Kind(NamedTuple):
    """How a class of schedulers differs from DDPMScheduler: what a key that its config leaves out means, and which
    values of timestep_spacing are a grid of the same times here."""

    defaults: Mapping[str, Any]
    grids: tuple[str, ...] = ("leading", "trailing", "linspace")


DEFAULTS: Mapping[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "prediction_type": "epsilon",
    "rescale_betas_zero_snr": False,
    "variance_type": None,
    "clip_sample": True,
    "clip_sample_range": 1.0,
    "thresholding": False,
    "dynamic_thresholding_ratio": 0.995,
    "sample_max_value": 1.0,
    "timestep_spacing": "leading",
    "steps_offset": 0,
}
SOLVER = {"clip_sample": False, "timestep_spacing": "linspace"}
KINDS = {
    "DDPMScheduler": Kind({}),
    "DDIMScheduler": Kind({}),
    "PNDMScheduler": Kind({"clip_sample": False}),
    "DPMSolverMultistepScheduler": Kind(SOLVER, ("trailing",)),
    "UniPCMultistepScheduler": Kind(SOLVER, ("trailing",)),
    "EulerDiscreteScheduler": Kind(SOLVER, ("leading", "trailing")),
    "EulerAncestralDiscreteScheduler": Kind(SOLVER, ("leading", "trailing")),
    "HeunDiscreteScheduler": Kind({**SOLVER, "beta_start": 0.00085, "beta_end": 0.012}, ("leading", "trailing")),
}
"""The schedulers whose config describes a table of betas, and with it the process that the net was trained on."""
PROCESS_KEYS = {"trained_betas": None, "predict_epsilon": True, "use_flow_sigmas": False, "timestep_type": "discrete"}
"""Keys that change the process, and the one value of each that is known here."""
SIGMA_KEYS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas")
UNBOUNDED = 1e9
"""A sample_max_value that no threshold reaches, as in [Saharia22]. At diffusers' default of 1 thresholding clips."""


def import_diffusers(folder: Path) -> tuple[Config, Params]:
    """A folder with a UNet2DModel (itself, or in `unet/`) and, if it is there, its scheduler.

    The process is that of the scheduler, by default DDPM's, which a line on stderr then says. Fields of the config that
    are about training are not known and hold defaults.

    Raises:
        ValueError, OSError: if it cannot be read, or is of a kind that flaxgen does not know.
    """
    if (folder / "model_index.json").is_file():
        _check_parts(store.read_json(folder / "model_index.json"))
    net, params = unet2d.import_unet2d(folder / "unet" if (folder / "unet").is_dir() else folder)
    _check_net(net)
    described = _read_scheduler(folder)
    process = process_of(described)
    config = Config(
        seed=0,
        steps=1,
        batch_size=1,
        data=Data(source="folder", image_size=net.image_size, channels=net.in_channels),
        net=net,
        process=process,
        objective=Objective(loss="hybrid" if net.learned_variance else "mse"),
        sampling=sampling_of(described, net.learned_variance),
    )
    return config, params


def _check_parts(index: Mapping[str, Any]) -> None:
    """A latent or text-to-image pipeline has a UNet2DModel too, but not one of pixels."""
    parts = {name: part[1] if isinstance(part, list) and len(part) == 2 else part for name, part in index.items()
             if not name.startswith("_") and part != [None, None]}  # fmt: skip
    found = ", ".join(f"{name} ({part})" for name, part in sorted(parts.items()))
    require(
        parts.get("unet") == "UNet2DModel" and set(parts) <= {"unet", "scheduler"},
        f"model_index.json is of a {index.get('_class_name')} with {found or 'no parts'}: expected a pipeline of a "
        "UNet2DModel and a scheduler, like DDPMPipeline",
    )


def _check_net(net: UNet) -> None:
    require(
        net.time_embedding != "fourier",
        "config.json: time_embedding_type='fourier' is a net that takes noise levels (score SDE): expected "
        "'positional', whose time is the index of a table",
    )
    require(
        net.in_channels == net.out_channels,
        f"config.json: in_channels={net.in_channels}, out_channels={net.out_channels}: expected as many, or twice as "
        "many for a learned variance",
    )


def _read_scheduler(folder: Path) -> dict[str, Any]:
    places = (folder / "scheduler" / "scheduler_config.json", folder / "scheduler_config.json")
    for path in places:
        if path.is_file():
            return store.read_json(path)
    print(f"{folder} has no scheduler_config.json: taking the defaults of DDPMScheduler, linear betas and eps "
          "prediction", file=sys.stderr)  # fmt: skip
    return {"_class_name": "DDPMScheduler"}


def _with_defaults(scheduler: Mapping[str, Any]) -> tuple[Kind, dict[str, Any]]:
    name = scheduler.get("_class_name")
    require(isinstance(name, str) and name in KINDS, f"a scheduler of _class_name={name!r} is not known: expected one "
            f"of {', '.join(KINDS)}")  # fmt: skip
    kind = KINDS[str(name)]
    values = {**DEFAULTS, **kind.defaults, **scheduler}
    for key, default in DEFAULTS.items():
        number = type(default) in (int, float)
        require(type(values[key]) in (int, float) if number else not isinstance(values[key], list | dict),
                f"scheduler {key}={values[key]!r}: expected a {'number' if number else 'single value'}")  # fmt: skip
    return kind, values


def process_of(scheduler: Mapping[str, Any]) -> Process:
    """The noise process that a scheduler_config.json describes.

    Raises:
        ValueError: naming the value that flaxgen does not know.
    """
    _, given = _with_defaults(scheduler)
    schedule, prediction = given["beta_schedule"], given["prediction_type"]
    require(schedule in SCHEDULES, f"scheduler beta_schedule={schedule!r}: expected one of {', '.join(SCHEDULES)}")
    require(prediction in PREDICTIONS, f"scheduler prediction_type={prediction!r}: expected {', '.join(PREDICTIONS)}")
    for key, known in PROCESS_KEYS.items():
        value = given.get(key, known)
        require(value == known, f"scheduler {key}={value!r} is not known here: expected {known!r}")
    timesteps = given["num_train_timesteps"]
    require(
        type(timesteps) is int and timesteps > 0, f"scheduler num_train_timesteps={timesteps!r}: expected 1 or more"
    )
    return Process(
        schedule=SCHEDULES[schedule],
        timesteps=timesteps,
        # Theirs are the betas of the table, ours those of 1000 steps of the same process.
        beta_start=given["beta_start"] * timesteps / 1000,
        beta_end=given["beta_end"] * timesteps / 1000,
        zero_terminal_snr=bool(given["rescale_betas_zero_snr"]),
        prediction=PREDICTIONS[prediction],
    )


def sampling_of(scheduler: Mapping[str, Any], learned_variance: bool) -> Sampling:
    """How the scheduler would sample: threshold, variance and grid; steps and sampler are flaxgen's defaults.

    A grid that flaxgen does not have is left at the default, which a line on stderr says.

    Raises:
        ValueError: naming the value that flaxgen does not know.
    """
    kind, given = _with_defaults(scheduler)
    variance = given["variance_type"]
    require(variance in VARIANCES and (learned_variance or VARIANCES[variance] != "learned"), f"scheduler "
            f"variance_type={variance!r} of a net with{'' if learned_variance else 'out'} a learned variance: expected "
            f"fixed_small, fixed_large, or learned_range with one")  # fmt: skip
    return Sampling(
        grid=_grid_of(kind, given),
        threshold=_threshold_of(given),
        variance="learned" if learned_variance else VARIANCES[variance],
    )


def _threshold_of(given: Mapping[str, Any]) -> Literal["clip", "dynamic", "none"]:
    largest, ratio, bound = (
        given[key] for key in ("sample_max_value", "dynamic_thresholding_ratio", "clip_sample_range")
    )
    if given["thresholding"]:
        require(largest == 1 or largest >= UNBOUNDED, f"scheduler sample_max_value={largest!r} with thresholding: "
                f"expected 1, which clips, or {UNBOUNDED:g} and more for no bound")  # fmt: skip
        require(largest == 1 or ratio == 0.995, f"scheduler dynamic_thresholding_ratio={ratio!r}: expected 0.995")
        return "clip" if largest == 1 else "dynamic"
    if not given["clip_sample"]:
        return "none"
    require(bound == 1, f"scheduler clip_sample_range={bound!r}: expected 1, the range of pictures")
    return "clip"


def _grid_of(kind: Kind, given: Mapping[str, Any]) -> str:
    spacing = given["timestep_spacing"]
    odd = [f"{key}={given[key]!r}" for key in SIGMA_KEYS if given.get(key)]
    if spacing == "leading" and given["steps_offset"]:
        odd.append(f"steps_offset={given['steps_offset']!r}")
    if not odd and spacing in kind.grids:
        return spacing
    said = ", ".join(odd) or f"timestep_spacing={spacing!r} of {given['_class_name']}"
    print(f"scheduler {said} is no grid of flaxgen: sampling.grid is {Sampling.grid}", file=sys.stderr)
    return Sampling.grid


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
        "sample_max_value": UNBOUNDED if model.config.sampling.threshold == "dynamic" else 1.0,
    }
    if model.config.sampling.grid in KINDS["DDPMScheduler"].grids:
        scheduler["timestep_spacing"] = model.config.sampling.grid
    index = {
        "_class_name": "DDPMPipeline",
        "scheduler": ["diffusers", "DDPMScheduler"],
        "unet": ["diffusers", "UNet2DModel"],
    }
    (directory / "scheduler").mkdir()
    (directory / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler, indent=2))
    (directory / "model_index.json").write_text(json.dumps(index, indent=2))


def _matches(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("model_index.json", "unet/config.json")) or (
        (folder / "config.json").is_file()
        and store.read_json(folder / "config.json").get("_class_name") == "UNet2DModel"
    )


def _read(folder: Path, target: Path, overrides: Sequence[str]) -> None:
    refuse_overrides(folder, overrides)
    config, params = import_diffusers(folder)
    FAMILY.write_model(target, config, params, 0)


def _write(model: Model, directory: Path) -> None:
    new_directory(directory)
    export_diffusers(model, directory)


LAYOUT = Layout(
    "diffusers",
    "model_index.json, or config.json of a UNet2DModel, itself or in unet/",
    FAMILY,
    _matches,
    _read,
    _write,
    files=("*.json", "unet/*", "diffusion_pytorch_model*"),
)
