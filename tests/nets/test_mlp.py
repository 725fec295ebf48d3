"""The MLP denoiser."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.nets.mlp import MLP

TINY = MLP(width=8, depth=2, dropout=0.5, num_classes=3, learned_variance=True)


def inputs(batch):
    return jax.random.normal(jax.random.key(0), (batch, 2)), jnp.linspace(0, 999, batch), jnp.arange(batch) % 3


def test_a_batch_is_its_examples(shaken, run):
    x, t, label = inputs(4)
    params = shaken(TINY, x, t, label)
    batched = run(TINY, params, x, t, label)
    assert batched.shape == (4, 4)
    one = jax.jit(jax.vmap(lambda x, t, label: run(TINY, params, x[None], t[None], label[None])))
    np.testing.assert_allclose(one(x, t, label)[:, 0], batched, atol=1e-5)
    assert np.abs(batched - run(TINY, params, x, t, (label + 1) % 3)).max() > 1e-3
    assert np.abs(batched - run(TINY, params, x, t[::-1], label)).max() > 1e-3


def test_dropout_follows_the_key(shaken):
    x, t, label = inputs(2)
    params = shaken(TINY, x, t, label)

    def drop(key):
        return TINY.apply({"params": params}, x, t, label, train=True, rngs={"dropout": key})

    one, other = jax.jit(jax.vmap(drop))(jax.random.split(jax.random.key(1)))
    assert np.abs(one - other).max() > 1e-3


def test_starts_at_zero():
    x, t, label = inputs(2)
    assert not np.any(jax.jit(TINY.init_with_output)(jax.random.key(0), x, t, label)[0])


def test_a_width_of_none_is_named():
    x, t, label = inputs(1)
    with pytest.raises(ValueError, match="width=0: expected 1 or more"):
        jax.eval_shape(lambda: TINY.clone(width=0).init(jax.random.key(0), x, t, label))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tokens": jnp.ones((1, 2, 3))}, "takes no condition 'tokens'"),
        ({"low_res": jnp.ones((1, 2, 2, 3))}, "takes no condition 'low_res'"),
        ({"label": None}, "needs the condition 'label'"),
        ({"embedding": jnp.ones((1, 2))}, "takes no condition 'embedding'"),
        ({"x": jnp.ones((1, 3))}, "x has 3 dimensions, features=2"),
    ],
)
def test_what_is_wrong_is_named(given, message):
    x, t, label = inputs(1)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: TINY.init(jax.random.key(0), **({"x": x, "time": t, "label": label} | given)))
