"""The families of models."""

from flaxgen.zoo import (
    autoencoder,
    classifier,
    clip,
    codes,
    dalle,
    decoder,
    diffusion,
    gan,
    latent,
    prior,
    t5,
    unclip,
    upsampler,
)
from flaxgen.zoo.latent import control_runs, lora, words

FAMILIES = (
    diffusion.FAMILY,
    classifier.FAMILY,
    clip.FAMILY,
    prior.FAMILY,
    decoder.FAMILY,
    upsampler.FAMILY,
    gan.FAMILY,
    autoencoder.FAMILY,
    codes.FAMILY,
    unclip.FAMILY,
    dalle.FAMILY,
    dalle.WHOLE,
    latent.FAMILY,
    lora.LORA,
    words.WORD,
    control_runs.CONTROL,
    latent.CONTROLNET,
    t5.FAMILY,
    latent.WHOLE,
    codes.WHOLE,
)
"""All of them; a directory belongs to the first that `reads` it."""
