"""DALL-E 2 / unCLIP: the stages put together, and what can be done with them [Ramesh22]."""

from flaxgen.zoo.unclip.drawing import Model
from flaxgen.zoo.unclip.family import FAMILY

__all__ = ["FAMILY", "Model"]
