"""Priors of unCLIP: from a caption to the CLIP embedding of a picture of it [Ramesh22, sec. 2.2]."""

from flaxgen.zoo.prior.config import FILE_NAMES, TYPES, Config, batch_spec, prepare
from flaxgen.zoo.prior.model import Model
from flaxgen.zoo.prior.training import build, init_params, make_training

__all__ = [
    "FILE_NAMES",
    "TYPES",
    "Config",
    "Model",
    "batch_spec",
    "build",
    "init_params",
    "make_training",
    "prepare",
]
