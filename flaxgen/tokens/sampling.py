"""Drawing a sequence of codes, each from its logits given the ones before."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from flaxgen.types import Keys, PRNGKey, Scalar

Choose: TypeAlias = Callable[[Float[Array, " N"], PRNGKey], Int[Array, ""]]
"""A code, from the logits of one example and its key."""
Step: TypeAlias = Callable[[Int[Array, " B"], Int[Array, ""], Any], tuple[Float[Array, "B N"], Any]]
"""(code, its place, caches) to the logits of the next code and the caches with this one in them."""


def keep_top_k(logits: Float[Array, " N"], k: int) -> Float[Array, " N"]:
    """-inf for all but the k largest logits and what is equal to the k-th; k=0 keeps all.

    Raises:
        ValueError: if k is negative.
    """
    if k < 0:
        raise ValueError(f"top_k={k}, expected 0 for no limit, or a number of codes")
    if k == 0 or k >= logits.shape[-1]:
        return logits
    return jnp.where(logits >= jax.lax.top_k(logits, k)[0][-1], logits, -jnp.inf)


def keep_top_p(logits: Float[Array, " N"], p: Scalar) -> Float[Array, " N"]:
    """-inf for all but the nucleus, the fewest codes that together have probability p, ties included [Holtzman20].

    The likeliest code always stays, also for p=0; p >= 1 keeps all.
    """
    ordered = jnp.sort(logits, descending=True)
    probability = jax.nn.softmax(ordered)
    inside = jnp.cumsum(probability) - probability < p
    least = jnp.min(jnp.where(inside.at[0].set(True), ordered, jnp.inf))
    # Rounding may bring the sum to 1 before the last code: p=1 has to be every code all the same.
    return jnp.where((logits >= least) | (p >= 1), logits, -jnp.inf)


def make_choice(temperature: Scalar = 1.0, *, top_k: int = 0, top_p: Scalar = 1.0) -> Choose:
    """Draws from softmax(logits / temperature) within the top k and then the nucleus; temperature 0 takes the largest.

    `temperature` and `top_p` may be traced, `top_k` may not: it is part of what is compiled.

    Raises:
        ValueError: if top_k is negative.
    """

    def choose(logits, key):
        best = jnp.argmax(logits)
        # With the largest at 0, no temperature can overflow.
        cooled = (logits - logits[best]) / jnp.where(temperature > 0, temperature, 1.0)
        drawn = jax.random.categorical(key, keep_top_p(keep_top_k(cooled, top_k), top_p))
        return jnp.where(temperature > 0, drawn, best)

    keep_top_k(jnp.zeros(1), top_k)
    return choose


def sample_codes(
    start: tuple[Float[Array, "B N"], Any], step: Step, length: int, keys: Keys, choose: Choose
) -> Int[Array, "B {length}"]:
    """`length` codes an example, from the logits and caches that a net's prefix gave, in one scan.

    Code k of an example is drawn with its key folded with k: it does not depend on the batch it is in.

    Raises:
        ValueError: if length is less than 1.
    """
    if length < 1:
        raise ValueError(f"{length} codes were asked for, expected at least 1")

    def draw(logits, place):
        return jax.vmap(choose)(logits, jax.vmap(lambda key: jax.random.fold_in(key, place))(keys))

    def body(carry, place):
        logits, caches = carry
        code = draw(logits, place)
        return step(code, place, caches), code

    (logits, _), codes = jax.lax.scan(body, start, jnp.arange(length - 1))
    return jnp.concatenate((codes.T, draw(logits, length - 1)[:, None]), axis=1)
