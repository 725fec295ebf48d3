"""Autoencoders of all kinds: AE, VAE, VQ-VAE, VQ-VAE-2, dVAE, VQGAN."""

from flaxgen.family.bottlenecks import Bottleneck, Gaussian
from flaxgen.family.codebooks import Codebook, Finite, Gumbel, Signs
from flaxgen.family.levels import Levels
from flaxgen.zoo.autoencoder.config import Adversary, Config, Perceptual, Reconstruction
from flaxgen.zoo.autoencoder.family import FAMILY

__all__ = [
    "FAMILY",
    "Adversary",
    "Bottleneck",
    "Codebook",
    "Config",
    "Finite",
    "Gaussian",
    "Gumbel",
    "Levels",
    "Perceptual",
    "Reconstruction",
    "Signs",
]
