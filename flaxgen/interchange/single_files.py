"""Single .safetensors files of Stable Diffusion: which version a file or a model is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flaxgen.interchange import single_file, single_file_3
from flaxgen.interchange.layout import Layout
from flaxgen.nets.mmdit import MMDiT
from flaxgen.zoo.latent import WHOLE


def _matches(place: Path) -> bool:
    try:
        is_file = place.suffix == ".safetensors" and place.is_file()
        return is_file and (single_file_3.matches(place) or single_file.matches(place))
    except ValueError:  # what is damaged is another layout's to name
        return False


def _read(path: Path, target: Path, overrides: Sequence[str]) -> None:
    said = {name: value for name, _, value in (override.partition("=") for override in overrides)}
    (single_file_3 if single_file_3.matches(path) else single_file).import_single(path, target, said)


def _write(model: Any, directory: Path) -> None:
    is_third = isinstance(model.whole.config.net, MMDiT)
    (single_file_3 if is_third else single_file).export_single(model, directory)


LAYOUT = Layout(
    "stability",
    "a single .safetensors file of Stable Diffusion under its authors' names",
    WHOLE,
    _matches,
    _read,
    _write,
)
