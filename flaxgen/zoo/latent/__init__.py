"""Diffusion over the latents of an autoencoder: LDM and Stable Diffusion [Rombach22]."""

from flaxgen.zoo.latent.config import Config, Text
from flaxgen.zoo.latent.control import FAMILY as CONTROLNET
from flaxgen.zoo.latent.family import FAMILY, WHOLE

__all__ = ["CONTROLNET", "FAMILY", "WHOLE", "Config", "Text"]
