"""Generators against discriminators: the game of 2014, DCGAN, WGAN-GP and StyleGAN2-ADA are configs of it."""

from flaxgen.zoo.gan.config import (
    TYPES,
    Augmentation,
    Config,
    HalfLife,
    Regularizers,
    Sampling,
    batch_spec,
    draws_pictures,
)
from flaxgen.zoo.gan.model import Model, build
from flaxgen.zoo.gan.training import init_params, make_training, parameters

__all__ = [
    "TYPES",
    "Augmentation",
    "Config",
    "HalfLife",
    "Model",
    "Regularizers",
    "Sampling",
    "batch_spec",
    "build",
    "draws_pictures",
    "init_params",
    "make_training",
    "parameters",
]
