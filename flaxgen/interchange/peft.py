"""LoRAs as peft and diffusers read them, of runs of ours; they are drawn with by --lora, and not imported."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flaxgen.family.files import new_directory
from flaxgen.interchange.layout import Layout
from flaxgen.weights.lora import write_lora
from flaxgen.zoo.latent.adapt import UNET
from flaxgen.zoo.latent.lora import LORA, factors_of

FILE = "pytorch_lora_weights.safetensors"
"""What diffusers' `load_lora_weights` looks for in a folder."""


def export_lora(model: Any, directory: Path) -> None:
    """Writes FILE of a LoRA's factors into a new directory.

    Raises:
        ValueError: if the directory is not empty.
    """
    new_directory(directory)
    factors = factors_of(model.config, model.params)
    write_lora(directory / FILE, {UNET: factors}, {UNET: model.config.net})


def _read(place: Path, target: Path, overrides: Sequence[str]) -> None:
    raise ValueError(f"{place} is a LoRA: draw with it by --lora {place}")


LAYOUT = Layout("peft", "", LORA, lambda place: False, _read, export_lora)
