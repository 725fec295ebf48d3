"""DALL-E 1: a transformer over captions and codes, an autoencoder, and a CLIP that chooses."""

from flaxgen.zoo.dalle.config import Config
from flaxgen.zoo.dalle.family import FAMILY, WHOLE

__all__ = ["FAMILY", "WHOLE", "Config"]
