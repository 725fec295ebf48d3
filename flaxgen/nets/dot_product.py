"""Attention [Vaswani17], and how it is computed on a CPU, where XLA has no fast code of its own for it."""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

CACHED = 2**20
"""So many logits are made at once, which a CPU keeps near it: a row of queries after the other where there are more."""
FEWEST = 32
"""Rows of queries at once, at least: with fewer a product of matrices has little to do."""
NEVER = -0.7 * float(jnp.finfo(jnp.float32).max)
"""The logit of what is not read, which is finite: a query that reads nothing reads all alike."""


def attention(
    query: Float[Array, "B T N D"],
    key: Float[Array, "B S N D"],
    value: Float[Array, "B S N D"],
    mask: Bool[Array, "#B #N #T S"] | None = None,
    bias: Float[Array, "#B #N T S"] | None = None,
    scale: float | None = None,
) -> Float[Array, "B T N D"]:
    """softmax(q k^T / sqrt(D) + bias) v of N heads [Vaswani17, eq. 1]; where `mask` is False nothing is read.

    The softmax is float32 whatever the dtype. Another `scale` takes the place of 1 / sqrt(D).
    """
    if jax.default_backend() == "cpu":
        return attend(query, key, value, mask, bias, scale)
    return jax.nn.dot_product_attention(query, key, value, bias=bias, mask=mask, scale=scale)


def attend(
    query: Float[Array, "B T N D"],
    key: Float[Array, "B S N D"],
    value: Float[Array, "B S N D"],
    mask: Bool[Array, "#B #N #T S"] | None,
    bias: Float[Array, "#B #N #T S"] | None,
    scale: float | None,
) -> Float[Array, "B T N D"]:
    """softmax(scale q k^T + bias) v of N heads, in float32, whose logits are never all there at once where they are
    many: a gradient computes them again.

    Heads stand before places while it computes: XLA takes many times as long for such products in any other order.
    """
    b, t, n, d = query.shape
    wide = query.astype(jnp.float32) * (1 / math.sqrt(d) if scale is None else scale)
    q, k, v = (x.astype(jnp.float32).transpose(0, 2, 1, 3) for x in (wide, key, value))
    given = {"query": q} | {name: x for name, x in (("mask", mask), ("bias", bias)) if x is not None}
    rows = rows_at_once(t, b * n * k.shape[2])
    if rows == t:
        out = _attend(k, v, **given)
    else:
        split = {name: _in_parts(x, t // rows) for name, x in given.items() if x.shape[2] == t}
        whole = {name: x for name, x in given.items() if name not in split}
        part = jax.checkpoint(lambda part: _attend(k, v, **whole, **part))
        out = jax.lax.map(part, split).transpose(1, 2, 0, 3, 4).reshape(b, n, t, v.shape[-1])
    return out.transpose(0, 2, 1, 3).astype(query.dtype)


@functools.cache
def rows_at_once(rows: int, logits: int) -> int:
    """Of so many rows, each of so many logits, how many are taken at once: a divisor, and all where none is small
    enough but not too small."""
    most = max(CACHED // logits, FEWEST)
    fitting = (rows // parts for parts in range(1, rows // FEWEST + 1) if rows % parts == 0)
    return next((count for count in fitting if count <= most), rows)


def _in_parts(x: Array, parts: int) -> Float[Array, "parts B N t D"] | Bool[Array, "parts B N t D"]:
    b, n, t, d = x.shape
    return x.reshape(b, n, parts, t // parts, d).transpose(2, 0, 1, 3, 4)


def _attend(key: Array, value: Array, query: Array, mask: Array | None = None, bias: Array | None = None) -> Array:
    """Of heads that stand before places; rows are brought to a sum of 1 when they are short."""
    logits = jnp.einsum("bntd,bnsd->bnts", query, key)
    logits = logits if bias is None else logits + bias
    logits = logits if mask is None else jnp.where(mask, logits, NEVER)
    weights = jnp.exp(logits - jax.lax.stop_gradient(logits.max(-1, keepdims=True)))
    return jnp.einsum("bnts,bnsd->bntd", weights, value) / weights.sum(-1, keepdims=True)
