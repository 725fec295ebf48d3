"""Attention on a CPU beside JAX's own, whole and in rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.nets import dot_product
from flaxgen.nets.dot_product import attend, rows_at_once

B, T, S, N, D = 2, 64, 24, 2, 4


def inputs(dtype=jnp.float32):
    rng = np.random.default_rng(0)
    shapes = ((B, T, N, D), (B, S, N, D), (B, S, N, D), (B, 1, T, S))
    query, key, value, bias = (jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes)
    mask = jnp.asarray(rng.uniform(size=(B, 1, 1, S)) > 0.3)
    return query, key, value, mask, bias


@pytest.mark.parametrize("cached", [2**20, 2**12])
@pytest.mark.parametrize("named", [(), ("mask",), ("mask", "bias")])
def test_rows_are_those_of_the_whole(named, cached, monkeypatch):
    """Values and gradients, with what is broadcast over rows and what is not."""
    monkeypatch.setattr(dot_product, "CACHED", cached)
    rows_at_once.cache_clear()
    assert rows_at_once(T, B * N * S) == (T if cached == 2**20 else 32)
    query, key, value, mask, bias = inputs()
    given = {"mask": mask if "mask" in named else None, "bias": bias if "bias" in named else None}

    def ours(*qkv):
        return attend(*qkv, given["mask"], given["bias"], 0.3)

    def theirs(*qkv):
        return jax.nn.dot_product_attention(*qkv, **given, scale=0.3)

    np.testing.assert_allclose(ours(query, key, value), theirs(query, key, value), atol=1e-6)
    slopes = [
        jax.jit(jax.grad(lambda *qkv, one=one: (one(*qkv) ** 2).sum(), (0, 1, 2)))(query, key, value)
        for one in (ours, theirs)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *slopes)
    rows_at_once.cache_clear()


def test_half_precision_in_is_half_precision_out_and_nothing_to_read_is_all_alike():
    query, key, value, _, _ = inputs(jnp.bfloat16)
    none = jnp.zeros((B, 1, 1, S), bool)
    out = attend(query, key, value, none, None, None)
    assert out.dtype == jnp.bfloat16
    mean = np.broadcast_to(value.astype(jnp.float32).mean(1, keepdims=True), out.shape)
    np.testing.assert_allclose(out.astype(jnp.float32), mean, atol=0.01)


@pytest.mark.parametrize(
    ("rows", "logits", "expected"), [(4096, 65536, 32), (1024, 16384, 64), (77, 10**6, 77), (33, 10**6, 33)]
)
def test_rows_divide_the_whole(rows, logits, expected):
    assert rows_at_once(rows, logits) == expected
