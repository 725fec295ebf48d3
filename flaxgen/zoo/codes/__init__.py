"""Priors over an autoencoder's codes, and models of pixels: PixelCNN and its kin, transformers, MaskGIT."""

from flaxgen.nets.code_condition import CodeMap
from flaxgen.zoo.codes.config import Config, Drawing
from flaxgen.zoo.codes.family import FAMILY, WHOLE

__all__ = ["FAMILY", "WHOLE", "CodeMap", "Config", "Drawing"]
