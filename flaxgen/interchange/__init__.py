"""Models of other projects, read and written: one layout a file."""

from flaxgen.interchange import (
    autoencoders,
    controlnet,
    dalle_mini,
    diffusers,
    karlo,
    latent_pipelines,
    nvlabs,
    peft,
    single_files,
    textual_inversion,
    transformers,
)
from flaxgen.interchange.layout import Layout

__all__ = ["LAYOUTS", "Layout"]
LAYOUTS = (
    single_files.LAYOUT,
    autoencoders.TAMING,
    nvlabs.LAYOUT,
    karlo.PIPELINE,
    karlo.PRIOR,
    latent_pipelines.LAYOUT,
    controlnet.LAYOUT,
    controlnet.RUN,
    transformers.LAYOUT,
    dalle_mini.LAYOUT,
    autoencoders.FLAVA,
    autoencoders.OPENAI,
    autoencoders.DIFFUSERS,
    diffusers.LAYOUT,
    peft.LAYOUT,
    textual_inversion.LAYOUT,
)
"""In the order in which they are looked for."""
