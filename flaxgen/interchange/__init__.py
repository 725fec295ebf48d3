"""Models of other projects, read and written: one layout a file."""

from flaxgen.interchange import diffusers, karlo, nvlabs, transformers
from flaxgen.interchange.layout import Layout

__all__ = ["LAYOUTS", "Layout"]
LAYOUTS = (nvlabs.LAYOUT, karlo.PIPELINE, karlo.PRIOR, transformers.LAYOUT, diffusers.LAYOUT)
"""In the order in which they are looked for."""
