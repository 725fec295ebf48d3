"""Denoising diffusion of images and of points: DDPM, improved DDPM, ADM, EDM and rectified flow are configs of it."""

from flaxgen.zoo.diffusion.config import TYPES, Config, Objective, batch_spec
from flaxgen.zoo.diffusion.drawing import Sampling
from flaxgen.zoo.diffusion.model import Model, build
from flaxgen.zoo.diffusion.training import init_params, make_training
from flaxgen.zoo.process import Process

__all__ = [
    "TYPES",
    "Config",
    "Model",
    "Objective",
    "Process",
    "Sampling",
    "batch_spec",
    "build",
    "init_params",
    "make_training",
]
