"""Which parameters decay, and that a state of an optimizer is what older runs have saved."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flaxgen.train.optim import Optimizer, is_decayed, make_optimizer


def parameters():
    return {
        "Dense_0": {"kernel": jnp.full((3, 4), 2.0), "bias": jnp.full(4, 2.0)},
        "LayerNorm_0": {"scale": jnp.full(4, 2.0), "bias": jnp.full(4, 2.0)},
        "stack": {"scale": jnp.full((6, 4), 2.0), "bias": jnp.full((6, 4), 2.0), "kernel": jnp.full((6, 4, 4), 2.0)},
        "out_bias": jnp.full((1, 2), 2.0),
        "positions": jnp.full((5, 4), 2.0),
        "place_table": jnp.full((5, 5, 4), 2.0),
        "class_token": jnp.full(4, 2.0),
        "logit_scale": jnp.float32(2.0),
    }


DECAYED = {"Dense_0/kernel", "stack/kernel", "positions"}


@pytest.mark.parametrize("name", ["adamw", "lion"])
def test_gains_and_biases_do_not_decay(name):
    """Where the gradient is zero, decay is all that moves: by rate * decay * value."""
    tx, params = make_optimizer(Optimizer(name=name, learning_rate=0.1, weight_decay=0.2, clip=0.0), 10), parameters()
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        np.testing.assert_allclose(update, -0.1 * 0.2 * 2.0 if name in DECAYED else 0.0, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("name", ["adamw", "lion"])
def test_what_decays_is_what_optax_does_and_so_is_the_state(name):
    """Optax on kernels alone gives the same steps; its state has the same structure, so older runs resume."""
    config = Optimizer(name=name, learning_rate=0.1, weight_decay=0.2, clip=0.0)
    theirs = {"adamw": optax.adamw, "lion": optax.lion}[name](
        optax.constant_schedule(0.1), 0.9, 0.999, weight_decay=0.2
    )
    tx, theirs = make_optimizer(config, 10), optax.chain(optax.identity(), theirs)
    params = {"a": {"kernel": jax.random.normal(jax.random.key(0), (3, 4))}}
    state, expected = tx.init(params), theirs.init(params)
    for step in range(3):
        grads = jax.tree.map(lambda x: jnp.sin(x + step), params)  # noqa: B023 (called here)
        updates, state = tx.update(grads, state, params)
        other, expected = theirs.update(grads, expected, params)
        jax.tree.map(np.testing.assert_array_equal, updates, other)
        assert jax.tree.structure(state) == jax.tree.structure(expected)
        params = optax.apply_updates(params, updates)


def test_names_and_axes():
    decayed = {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, x in jax.tree_util.tree_leaves_with_path(parameters())
        if is_decayed(path[-1].key, x)
    }
    assert decayed == DECAYED
