"""Models of other projects: diffusers' pipelines of a UNet2DModel and a scheduler, read and written as folders."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flaxgen.data import Data
from flaxgen.family.denoising import Objective
from flaxgen.family.files import new_directory
from flaxgen.interchange.layout import Layout, refuse_overrides
from flaxgen.interchange.schedulers import process_of, sampling_of, scheduler_config
from flaxgen.nets.unet import UNet
from flaxgen.train.config import require
from flaxgen.types import Params
from flaxgen.weights import store, unet2d
from flaxgen.zoo.diffusion import FAMILY, Config, Model

PIPELINES = {
    "DDPMScheduler": "DDPMPipeline",
    "DDIMScheduler": "DDIMPipeline",
    "PNDMScheduler": "PNDMPipeline",
    "DPMSolverMultistepScheduler": "DDPMPipeline",
}
"""The pipelines of diffusers that draw with a class of schedulers; none does with the others."""


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


def export_diffusers(model: Model, directory: Path) -> None:
    """Writes a pipeline's folder: model_index.json, unet/ and scheduler/, of the class that samples as the model does.

    Raises:
        ValueError: if diffusers has no such net or process.
    """
    process, net = model.config.process, model.config.net
    if not isinstance(net, UNet):
        raise ValueError(f"no pipeline of diffusers draws pixels with a {type(net).__name__}: only with a UNet")
    scheduler = scheduler_config(process, model.config.sampling, net.learned_variance)
    unet2d.export_unet2d(net, model.params, directory / "unet")
    name = scheduler["_class_name"]
    if name not in PIPELINES:
        print(f"no pipeline of diffusers draws pixels with a {name}: use unet/ and scheduler/ by themselves, as "
              "DDPMPipeline does not scale what the net reads", file=sys.stderr)  # fmt: skip
    index = {
        "_class_name": PIPELINES.get(name, "DDPMPipeline"),
        "scheduler": ["diffusers", name],
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
