"""diffusers' pipelines that become a model of latent diffusion: which of them a folder or a model is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flaxgen.interchange import dit, stable_diffusion, stable_diffusion_3
from flaxgen.interchange.karlo.layout import INDEX
from flaxgen.interchange.layout import Layout, refuse_overrides
from flaxgen.nets.dit import DiT
from flaxgen.nets.mmdit import MMDiT
from flaxgen.nets.unet import UNet
from flaxgen.train.config import require
from flaxgen.zoo.latent import WHOLE

VERSIONS = (stable_diffusion, stable_diffusion_3, dit)
WRITERS = {UNet: stable_diffusion, MMDiT: stable_diffusion_3, DiT: dit}
"""Who writes the pipeline of a net of that class."""


def is_pipeline(folder: Path) -> bool:
    """Whether the folder is one of those."""
    return any(version.is_pipeline(folder) for version in VERSIONS)


def export_pipeline(model: Any, directory: Path) -> None:
    """Writes a folder that diffusers' pipeline of the same parts reads.

    Raises:
        ValueError: naming what diffusers has no counterpart of, or if the directory is not empty.
    """
    kind = type(model.whole.config.net)
    known = " or ".join(f"a {net.__name__}" for net in WRITERS)
    require(kind in WRITERS, f"no pipeline of diffusers draws latents with a {kind.__name__} here, only with {known}: "
            "not exported")  # fmt: skip
    WRITERS[kind].export_pipeline(model, directory)


def _read(folder: Path, target: Path, overrides: Sequence[str]) -> None:
    refuse_overrides(folder, overrides)
    next(version for version in VERSIONS if version.is_pipeline(folder)).import_pipeline(folder, target)


LAYOUT = Layout(
    "diffusers",
    f"{INDEX} of one of {', '.join(name for version in VERSIONS for name in version.PIPELINES)}",
    WHOLE,
    is_pipeline,
    _read,
    export_pipeline,
    files=("*.json", *(f"{name}/*" for name in ("unet", "vae", "scheduler", "t*", "image_*", "feature_extractor"))),
)
