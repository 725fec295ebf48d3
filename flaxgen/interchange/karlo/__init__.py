"""unCLIP pipelines of diffusers as folders: Karlo's two, and the prior of Kandinsky 2 [Karlo]."""

from collections.abc import Sequence
from pathlib import Path

from flaxgen.interchange.karlo.layout import PIPELINES, is_pipeline, is_prior
from flaxgen.interchange.karlo.reading import import_pipeline, import_prior_alone
from flaxgen.interchange.karlo.writing import export_pipeline
from flaxgen.interchange.layout import Layout, refuse_overrides
from flaxgen.zoo.prior import FAMILY as PRIOR_FAMILY
from flaxgen.zoo.unclip import FAMILY as UNCLIP

__all__ = ["PIPELINE", "PRIOR", "export_pipeline"]


def _read_pipeline(folder: Path, target: Path, overrides: Sequence[str]) -> None:
    refuse_overrides(folder, overrides)
    import_pipeline(folder, target)


def _read_prior(folder: Path, target: Path, overrides: Sequence[str]) -> None:
    refuse_overrides(folder, overrides)
    stage = import_prior_alone(folder)
    PRIOR_FAMILY.write_model(target, stage.config, stage.params, 0, stage.files)


PIPELINE = Layout(
    "diffusers",
    f"model_index.json of one of {', '.join(PIPELINES)}",
    UNCLIP,
    is_pipeline,
    _read_pipeline,
    lambda model, directory: export_pipeline(model.parts, directory),
    files=("*/*", "*.json"),
)
PRIOR = Layout("diffusers", "config.json of a PriorTransformer", PRIOR_FAMILY, is_prior, _read_prior,
               files=("*.json", "diffusion_pytorch_model*"))  # fmt: skip
