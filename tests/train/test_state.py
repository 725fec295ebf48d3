"""One step on a toy: what it does beside following the gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from flaxgen.train.state import make_training


def no_decay(step):
    return jnp.float32(0.0)


def test_parameters_are_brought_back_after_the_update_and_before_they_are_averaged():
    """CLIP's logit scale at its bound, which the gradient pushes beyond and, later, away from."""

    def loss(params, batch, keys):
        value = jnp.mean(batch["sign"]) * params["logit_scale"]
        return value, {"loss": value}

    init, make_step = make_training(
        lambda key: {"logit_scale": jnp.float32(4.5)},
        loss,
        optax.sgd(0.5),
        ema_decay=no_decay,
        after_update=lambda params: {"logit_scale": jnp.minimum(params["logit_scale"], 4.6)},
    )
    step, state, seen = jax.jit(make_step(None)), init(jax.random.key(0)), []
    for sign in (-1.0, -1.0, 1.0):
        state, _ = step(state, {"sign": jnp.full(4, sign)}, jax.random.key(1))
        assert state.params == state.ema_params
        seen.append(float(state.params["logit_scale"]))
    np.testing.assert_allclose(seen, [4.6, 4.6, 4.1], rtol=1e-6)
