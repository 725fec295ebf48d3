"""DALL-E 2 / unCLIP: the stages put together, and what can be done with them [Ramesh22]."""

from flaxgen.zoo.unclip.model import Model, Settings
from flaxgen.zoo.unclip.stages import (
    SHIPPED,
    STAGES,
    Stages,
    check_same_clip,
    compose,
    is_composite,
    load,
    write,
)

__all__ = [
    "SHIPPED",
    "STAGES",
    "Model",
    "Settings",
    "Stages",
    "check_same_clip",
    "compose",
    "is_composite",
    "load",
    "write",
]
