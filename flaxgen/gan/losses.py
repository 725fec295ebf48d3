"""The games that GANs play, on logits: what the discriminator and what the generator minimise.

Each is a mean over examples, so that the mean over devices of equal shares is that of the whole batch.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Logits = Float[Array, " B"]
LogitLoss = Callable[[Logits, Logits], Float[Array, ""]]
"""(logits of real examples, logits of generated ones) -> loss."""
softplus = jax.nn.softplus
"""log(1 + e^x), so -log sigmoid(x) is softplus(-x) and -log(1 - sigmoid(x)) is softplus(x)."""


class GanLoss(NamedTuple):
    """What each player minimises. Only `relativistic` has a generator that looks at the logits of real examples."""

    discriminator: LogitLoss
    generator: LogitLoss


def _cross_entropy(real: Logits, fake: Logits) -> Float[Array, ""]:
    return jnp.mean(softplus(-real)) + jnp.mean(softplus(fake))


def _saturating(real: Logits, fake: Logits) -> Float[Array, ""]:
    return -jnp.mean(softplus(fake))


def _non_saturating(real: Logits, fake: Logits) -> Float[Array, ""]:
    return jnp.mean(softplus(-fake))


def _earth_mover(real: Logits, fake: Logits) -> Float[Array, ""]:
    return jnp.mean(fake) - jnp.mean(real)


def _raise_fake(real: Logits, fake: Logits) -> Float[Array, ""]:
    return -jnp.mean(fake)


def _margins(real: Logits, fake: Logits) -> Float[Array, ""]:
    return jnp.mean(jax.nn.relu(1 - real)) + jnp.mean(jax.nn.relu(1 + fake))


def _squares(real: Logits, fake: Logits) -> Float[Array, ""]:
    return (jnp.mean((real - 1) ** 2) + jnp.mean(fake**2)) / 2


def _fake_to_one(real: Logits, fake: Logits) -> Float[Array, ""]:
    return jnp.mean((fake - 1) ** 2) / 2


def _real_above_fake(real: Logits, fake: Logits) -> Float[Array, ""]:
    return jnp.mean(softplus(fake - real))


def _fake_above_real(real: Logits, fake: Logits) -> Float[Array, ""]:
    return jnp.mean(softplus(real - fake))


minimax = GanLoss(_cross_entropy, _saturating)
"""The original game, whose generator stalls where the discriminator is sure [Goodfellow14, eq. 1]."""
non_saturating = GanLoss(_cross_entropy, _non_saturating)
"""The generator maximises log D(G(z)) instead [Goodfellow14, sec. 3]."""
wasserstein = GanLoss(_earth_mover, _raise_fake)
"""For a 1-Lipschitz critic, as `regularize.gradient_penalty` asks for [Arjovsky17, eq. 2]."""
hinge = GanLoss(_margins, _raise_fake)
"""Logits beyond a margin of 1 on the right side cost nothing [Lim17; Miyato18, eq. 16]."""
least_squares = GanLoss(_squares, _fake_to_one)
"""Targets 0 for generated and 1 for real examples [Mao17, eq. 9]."""
relativistic = GanLoss(_real_above_fake, _fake_above_real)
"""Pairs: the i-th real example against the i-th generated one, so both have one batch size [Jolicoeur18, sec. 4.1]."""

LOSSES: dict[str, GanLoss] = {
    "minimax": minimax,
    "non_saturating": non_saturating,
    "wasserstein": wasserstein,
    "hinge": hinge,
    "least_squares": least_squares,
    "relativistic": relativistic,
}
