"""DALL-E 1 and dalle-mini: a transformer over captions and codes, an autoencoder, and a CLIP that chooses."""

from flaxgen.family.captions import TOKENIZER, Vocabulary
from flaxgen.zoo.dalle.config import Config
from flaxgen.zoo.dalle.family import FAMILY, WHOLE
from flaxgen.zoo.dalle.model import Model

__all__ = ["FAMILY", "TOKENIZER", "WHOLE", "Config", "Model", "Vocabulary"]
