"""Priors over an autoencoder's codes, and models of pixels: PixelCNN and its kin, transformers, MaskGIT."""

from flaxgen.zoo.codes.config import Config, Drawing
from flaxgen.zoo.codes.family import FAMILY

__all__ = ["FAMILY", "Config", "Drawing"]
