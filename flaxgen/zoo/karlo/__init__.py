"""unCLIP pipelines of diffusers as folders: Karlo's two, and the prior of Kandinsky 2 [Karlo]."""

from flaxgen.zoo.karlo.layout import is_pipeline, is_prior
from flaxgen.zoo.karlo.reading import import_pipeline, import_prior_alone
from flaxgen.zoo.karlo.writing import export_pipeline

__all__ = ["export_pipeline", "import_pipeline", "import_prior_alone", "is_pipeline", "is_prior"]
