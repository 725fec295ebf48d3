"""How well pictures fit their captions, by the angle between CLIP embeddings [Hessel21]."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from flaxgen.types import Scalar


def clip_scores(
    image: Float[Array | np.ndarray, "N D"], text: Float[Array | np.ndarray, "N D"], weight: Scalar = 100.0
) -> Float[Array, " N"]:
    """weight * max(cos(image, text), 0) of each pair of projected embeddings, from 0 to `weight`; they are normalised
    here. [Hessel21, eq. 1] has the weight 2.5; most tables since have 100. The mean over the pairs is the score."""
    image, text = jnp.asarray(image, jnp.float32), jnp.asarray(text, jnp.float32)
    lengths = jnp.linalg.norm(image, axis=1) * jnp.linalg.norm(text, axis=1)
    cosine = (image * text).sum(axis=1) / jnp.maximum(lengths, jnp.finfo(jnp.float32).tiny)
    return weight * jnp.maximum(cosine, 0)
