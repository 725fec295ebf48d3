"""A codebook: the nearest code to a vector, and codes that follow the vectors nearest to them [vdOord17].

What a codebook follows are sums over a batch, kept in the training state. They are the same on any number of devices,
and in any number of parts of a batch.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from flaxgen.types import Keys, Scalar

FORGOTTEN = 1e-6
"""A code whose running count is below this stays where it is."""


class Averages(NamedTuple):
    """Running sums over the vectors that chose each code: how many, and their total."""

    count: Float[Array, " K"]
    total: Float[Array, "K D"]


def nearest(z: Float[Array, "*B D"], codes: Float[Array, "K D"]) -> Int[Array, "*B"]:
    """The code of least square distance, the first of equals [vdOord17, eq. 1]. In float32 whatever the dtype of z, and
    in full precision on a TPU: codes lie closer together than its products are exact. For the same reason distances are
    taken around the mean of the codes."""
    centre = codes.mean(0)
    around = codes - centre[None]
    offset = z.astype(jnp.float32) - centre.reshape((1,) * (z.ndim - 1) + (-1,))
    product = jnp.matmul(offset, around.T, precision=jax.lax.Precision.HIGHEST)
    half_norms = 0.5 * jnp.sum(around**2, -1)
    return jnp.argmax(product - half_norms.reshape((1,) * (z.ndim - 1) + (-1,)), axis=-1).astype(jnp.int32)


def straight_through(q: Float[Array, "*B"], z: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """q, whose gradient goes to z [vdOord17, sec. 3.2]. q + (z - sg z) is q to the last bit, z + sg(q - z) is not."""
    return q + (z - jax.lax.stop_gradient(z))


def unit(x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
    """Vectors of length 1, between which distances are angles [Yu21, sec. 3.2]."""
    return x * jax.lax.rsqrt(jnp.sum(x**2, -1, keepdims=True) + 1e-12)


def sums(z: Float[Array, "N D"], codes: Int[Array, " N"], num: int) -> Averages:
    """How many vectors chose each of `num` codes, and their total."""
    ones = jnp.ones(len(codes), jnp.float32)
    return Averages(*(jax.ops.segment_sum(x, codes, num) for x in (ones, z.astype(jnp.float32))))


def fresh_averages(codes: Float[Array, "K D"]) -> Averages:
    """Averages whose codes are these, each as if chosen once: what is never chosen then stays in its place. From zeros,
    as often written, unused codes would all fall on one point, or far out, at the first step."""
    return Averages(jnp.ones(len(codes), jnp.float32), codes.astype(jnp.float32))


def follow(averages: Averages, seen: Averages, decay: Scalar) -> Averages:
    """N <- decay N + (1 - decay) n, and so for the total [vdOord17, eq. 6 and 7]."""
    return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, averages, seen)


def codes_of(averages: Averages, before: Float[Array, "K D"]) -> Float[Array, "K D"]:
    """Total over count [vdOord17, eq. 8]; a code that was not chosen for long stays as it was `before`. Nothing is
    added to the counts, which would draw codes that are seldom used to zero."""
    used = averages.count > FORGOTTEN
    return jnp.where(used[:, None], averages.total / jnp.where(used, averages.count, 1.0)[:, None], before)


def propose(z: Float[Array, "N D"], num: int, share: Scalar, keys: Keys) -> Averages:
    """Vectors of a batch for codes that have died, as sums: each vector, with probability `share`, is proposed to one
    of `num` codes, any as likely. Where the count is 1 the total is one vector of the batch, drawn at random.

    `keys` has one key for each example; the N vectors are those of its examples one after the other.
    """
    each = len(z) // len(keys)

    def one(key):
        chance, choice = jax.random.split(key)
        code = jax.random.randint(choice, (each,), 0, num)
        return jnp.where(jax.random.uniform(chance, (each,)) < share, code, num)  # num: to none

    return sums(z, jax.vmap(one)(keys).reshape(-1), num)


def restart(averages: Averages, proposed: Averages, least: Scalar) -> Averages:
    """Codes whose running count is below the share `least` of the mean count begin again at a vector of the batch,
    where exactly one was proposed to them [Dhariwal20, sec. 3.1, with a bound that scales with tokens a code]."""
    bound = least * averages.count.mean()
    again = (averages.count < bound) & (jnp.round(proposed.count) == 1)
    return Averages(
        jnp.where(again, bound, averages.count),
        jnp.where(again[:, None], bound * proposed.total / jnp.maximum(proposed.count, 1.0)[:, None], averages.total),
    )


def perplexity(count: Float[Array, " K"]) -> Float[Array, ""]:
    """e to the entropy of how often codes are chosen: K where all are chosen alike, 1 where one is."""
    share = count / jnp.maximum(count.sum(), 1e-30)
    return jnp.exp(-jnp.sum(jax.scipy.special.xlogy(share, share)))


def share_used(count: Float[Array, " K"], decay: float) -> Float[Array, ""]:
    """The share of codes that were chosen within the last 1 / (1 - decay) steps, of a running count with this decay."""
    return jnp.mean(count >= (1 - decay) * jnp.exp(-1.0))
