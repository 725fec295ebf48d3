"""Diffusion over the latents of an autoencoder: LDM and Stable Diffusion [Rombach22]."""

from flaxgen.zoo.latent.config import Config, Text
from flaxgen.zoo.latent.control import FAMILY as CONTROLNET
from flaxgen.zoo.latent.family import FAMILY, WHOLE
from flaxgen.zoo.latent.lora import LORA, Lora, LoraConfig

__all__ = ["CONTROLNET", "FAMILY", "LORA", "WHOLE", "Config", "Lora", "LoraConfig", "Text"]
