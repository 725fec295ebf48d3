"""Codes without a codebook: numbers rounded to a few levels [Mentzer24], or to their sign [Yu24]."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from flaxgen.latents.codebook import straight_through

SLACK = 1e-3
"""How far the outermost values stay from where they would round on [Mentzer24, app. A.1]."""


def bound(z: Float[Array, "*B D"], levels: Sequence[int]) -> Float[Array, "*B D"]:
    """Numbers in the range that rounds to `levels[i]` whole numbers, and 0 at 0 [Mentzer24, sec. 3.1].

    Raises:
        ValueError: if a number of levels is below 3: two have no middle, and `sign` is for them.
    """
    if min(levels) < 3:
        raise ValueError(f"levels={tuple(levels)}: expected 3 or more each; for two levels use signs")
    count = np.asarray(levels, np.float32)
    half = (count - 1) * (1 - SLACK) / 2
    offset = np.where(count % 2 == 0, 0.5, 0.0).astype(np.float32)
    # atanh, so that z = 0 is in the middle; the paper's listing has tan, which its author calls a mistake
    shift = np.arctanh(offset / half)
    axes = (1,) * (z.ndim - 1) + (-1,)
    half, offset, shift = (jnp.asarray(x).reshape(axes) for x in (half, offset, shift))
    return jnp.tanh(z.astype(jnp.float32) + shift) * half - offset


def round_levels(z: Float[Array, "*B D"], levels: Sequence[int]) -> Float[Array, "*B D"]:
    """The nearest of `levels[i]` values in [-1, 1], with the gradient of `bound`."""
    bounded = bound(z, levels)
    width = jnp.asarray([count // 2 for count in levels], jnp.float32).reshape((1,) * (z.ndim - 1) + (-1,))
    return straight_through(jnp.round(bounded), bounded) / width


def codes_of_levels(q: Float[Array, "*B D"], levels: Sequence[int]) -> Int[Array, "*B"]:
    """Which of prod(levels) codes values of `round_levels` are; the first level changes fastest."""
    basis = np.cumprod([1, *levels[:-1]])
    digits = [jnp.round(q[..., i] * (count // 2)).astype(jnp.int32) + count // 2 for i, count in enumerate(levels)]
    return sum((digit * int(place) for digit, place in zip(digits, basis, strict=True)), jnp.zeros_like(digits[0]))


def levels_of_codes(codes: Int[Array, "*B"], levels: Sequence[int]) -> Float[Array, "*B D"]:
    """The inverse of `codes_of_levels`."""
    digits, rest = [], codes
    for count in levels:
        digits.append((rest % count - count // 2) / (count // 2))
        rest = rest // count
    return jnp.stack(digits, axis=-1).astype(jnp.float32)


def sign(z: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
    """-1 or 1, with the gradient of the identity [Yu24, sec. 3.1]; 0 is 1."""
    return straight_through(jnp.where(z >= 0, 1.0, -1.0), z.astype(jnp.float32))


def codes_of_signs(q: Float[Array, "*B D"]) -> Int[Array, "*B"]:
    """The code whose binary digits are the signs; the first is the lowest."""
    places = jnp.asarray(2 ** np.arange(q.shape[-1]), jnp.int32).reshape((1,) * (q.ndim - 1) + (-1,))
    return jnp.sum(jnp.where(q > 0, places, 0), axis=-1).astype(jnp.int32)


def signs_of_codes(codes: Int[Array, "*B"], bits: int) -> Float[Array, "*B D"]:
    """The inverse of `codes_of_signs`."""
    digits = [(codes // 2**place) % 2 for place in range(bits)]
    return (2 * jnp.stack(digits, axis=-1) - 1).astype(jnp.float32)


def sign_log_probabilities(z: Float[Array, "*B D"], sharpness: float) -> Float[Array, "*B K"]:
    """How near z is to every code, as log-probabilities: log softmax(2 sharpness z . code) over all 2^D codes."""
    codes = signs_of_codes(jnp.arange(2 ** z.shape[-1]), z.shape[-1])
    return jax.nn.log_softmax(2 * sharpness * jnp.matmul(z.astype(jnp.float32), codes.T), axis=-1)


def entropy_terms(
    log_probabilities: Float[Array, "N K"], running: Float[Array, " K"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The mean entropy of each vector's codes, to be small, and a linear stand-in for the entropy of their mean, to be
    large, both in nats [Yu24, eq. 6].

    The latter is the cross-entropy to the `running` mean of the probabilities: its gradient is that of the entropy
    where both are equal, and as it is linear in the examples, devices and parts of a batch change nothing.
    """
    probabilities = jnp.exp(log_probabilities)
    each = -jnp.sum(probabilities * log_probabilities, axis=-1).mean()
    return each, -jnp.sum(probabilities.mean(0) * jnp.log(jnp.maximum(running, 1e-12)))
