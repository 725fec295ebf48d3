"""The embedding of a picture by a CLIP as what a net over latents reads: with noise on it, as Stable unCLIP was tuned
to [Stability23], or as its one token, as a net for variations alone was [Pinkney22]."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from flaxgen.diffusion.interpolate import slerp
from flaxgen.family.process import make_schedule
from flaxgen.nets import layers
from flaxgen.types import Scalar
from flaxgen.zoo.latent.config import NO_PICTURE, Config, ImageEmbedding
from flaxgen.zoo.latent.statistics import statistics_of

NOISE = NO_PICTURE - 2
"""A number that no picture has, for the key of the noise on embeddings."""

_between = jax.jit(slerp)


def noised(
    how: ImageEmbedding,
    embedding: Float[Array, " D"],
    level: Scalar,
    noise: Float[Array, " D"],
    statistics: Mapping[str, Float[Array, " D"]],
) -> Float[Array, " 2*D"]:
    """An embedding as a net reads it that was trained on noise of all levels, and is told which: with the noise of that
    entry of the table on what is normalised, and waves of the level behind it."""
    mean, std = statistics["mean"], statistics["std"]
    alpha, sigma = make_schedule(how.noise)((level + 1) / how.noise.timesteps)
    mixed = (alpha * (embedding - mean) / std + sigma * noise) * std + mean
    return jnp.concatenate([mixed, layers.sinusoidal(jnp.full(1, level, jnp.float32), len(mean), "cos_sin", 0)[0]])


def embed(parts: Any, image: Any) -> Float[np.ndarray, "1 D"]:
    """The embedding of a picture as the vision tower gives it, of its middle square at the size that the tower sees."""
    tower = dataclasses.replace(parts.vision, config=dataclasses.replace(parts.vision.config, normalise=False))
    return tower.encode_image(image.with_channels(3)[None]).astype(np.float32)


def between(
    a: Float[np.ndarray, "1 D"], b: Float[np.ndarray, "1 D"], weights: Float[np.ndarray, " N"]
) -> Float[np.ndarray, "N D"]:
    """Embeddings on the great circle from a to b."""
    return np.concatenate([np.asarray(_between(a, b, weight)) for weight in weights])


def condition(
    parts: Any, embeddings: Float[np.ndarray, "N D"], level: int, seed: int, numbers: Sequence[int]
) -> dict[str, np.ndarray]:
    """What the net reads of embeddings, the noise on each by its number."""
    config: Config = parts.config
    how, width = config.image_embedding, embeddings.shape[1]
    assert how is not None
    if how.place == "token":
        return {"tokens": embeddings[:, None]}
    statistics, key = statistics_of(parts.denoiser.files, width), jax.random.fold_in(jax.random.key(seed), NOISE)
    rows = []
    for embedding, number in zip(embeddings, numbers, strict=True):
        noise = jax.random.normal(jax.random.fold_in(key, number), (width,))
        rows.append(np.asarray(_noised(how, embedding, float(level), noise, statistics)))
    return {"vector": np.stack(rows)}


_noised = jax.jit(noised, static_argnums=0)


def nothing(config: Config, num: int) -> dict[str, np.ndarray]:
    """What the net reads where no picture is shown: zeros, as it was trained without one now and then."""
    how, net = config.image_embedding, config.net
    if how is None:
        return {}
    if how.place == "token":
        return {"tokens": np.zeros((num, 1, net.token_dim), np.float32)}
    return {"vector": np.zeros((num, net.vector_dim), np.float32)}
