"""Generators against discriminators: the game of 2014, DCGAN, WGAN-GP and StyleGAN2-ADA are configs of it."""

from flaxgen.zoo.gan.config import Augmentation, Config, HalfLife, Regularizers, Sampling
from flaxgen.zoo.gan.family import FAMILY
from flaxgen.zoo.gan.model import Model

__all__ = ["FAMILY", "Augmentation", "Config", "HalfLife", "Model", "Regularizers", "Sampling"]
