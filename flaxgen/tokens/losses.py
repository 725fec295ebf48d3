"""What a model of text and codes minimises."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

TEXT_WEIGHT = 1 / 8
"""Of the text in the loss of text and codes together [Ramesh21, sec. 2.2]."""


def nats_per_token(logits: Float[Array, "*N V"], tokens: Int[Array, "*N"]) -> Float[Array, ""]:
    """The mean cross-entropy of `tokens`, in nats; log V where all logits are equal."""
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, tokens))


def joint_loss(
    text_nats: Float[Array, ""], code_nats: Float[Array, ""], text_weight: float = TEXT_WEIGHT
) -> Float[Array, ""]:
    """Text and codes, each in nats a token of its own kind, weighted 1/8 and 7/8 [Ramesh21, sec. 2.2]."""
    return text_weight * text_nats + (1 - text_weight) * code_nats
