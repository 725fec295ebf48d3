"""ControlNets in diffusers' folders: parts of a model of latent diffusion [Zhang23]."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flaxgen.data import Data
from flaxgen.family.files import new_directory
from flaxgen.interchange.layout import Layout, refuse_overrides
from flaxgen.weights import store
from flaxgen.weights.controlnet import KIND, export_controlnet, import_controlnet
from flaxgen.weights.unet2d import STEM
from flaxgen.zoo.latent.control import FAMILY, Config
from flaxgen.zoo.latent.control_runs import CONTROL


def _matches(folder: Path) -> bool:
    config = folder / "config.json"
    return config.is_file() and store.read_json(config).get("_class_name") == KIND


def _read(folder: Path, target: Path, overrides: Sequence[str]) -> None:
    refuse_overrides(folder, overrides)
    net, params = import_controlnet(folder, keep_dtype=True)
    config = Config(seed=0, steps=1, batch_size=1, data=Data(source="folder"), net=net)
    FAMILY.write_model(target, config, params, 0)


def _write(model: Any, directory: Path) -> None:
    new_directory(directory)
    export_controlnet(model.config.net, model.params, directory)


def _write_run(model: Any, directory: Path) -> None:
    new_directory(directory)
    export_controlnet(model.config.control, model.params, directory)


LAYOUT = Layout(
    "diffusers",
    f"config.json of a {KIND}",
    FAMILY,
    _matches,
    _read,
    _write,
    files=("config.json", f"{STEM}*"),
)
RUN = Layout("diffusers", "", CONTROL, lambda place: False, _read, _write_run)
"""Of runs of ours."""
