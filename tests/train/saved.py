"""States to save, and what can happen to a checkpoint on disk."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from flaxgen import parallel


class Odd(NamedTuple):
    """A state that is nobody's TrainState."""

    step: jax.Array
    nets: dict
    optimizers: tuple


def odd_state(seed):
    params = {"a": jax.random.normal(jax.random.key(seed), (5, 3)), "b": {"c": jnp.full(3, seed, jnp.bfloat16)}}
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.masked(optax.adam(1e-3), {"a": True, "b": False}))
    counters = {"seen": jnp.arange(4, dtype=jnp.int32), "flag": jnp.array(True), "p": jnp.float16(0.5)}
    return Odd(jnp.int32(seed), {"g": params, "ada": counters}, (tx.init(params), optax.sgd(0.1).init(params)))


def abstract_of(state):
    return parallel.jit_plan().abstract(state)


def assert_bit_equal(tree, expected):
    assert jax.tree.structure(tree) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 8
    path.write_bytes(content)


DAMAGES = {
    "flipped": flip_a_bit,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "missing": lambda path: path.unlink(),
}
