"""Priors of unCLIP: from a caption to the CLIP embedding of a picture of it [Ramesh22, sec. 2.2]."""

from flaxgen.zoo.prior.config import Config
from flaxgen.zoo.prior.model import FAMILY, Model

__all__ = ["FAMILY", "Config", "Model"]
