"""A toy whose state holds more than parameters: a codebook that follows sums, seen through frozen weights."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from flaxgen.train.state import make_training
from flaxgen.types import Held, Seen

CODES, WIDTH, BATCH = 3, 2, 16
TARGETS = np.random.default_rng(0).normal(size=(BATCH, WIDTH)).astype(np.float32)


def no_decay(step):
    return jnp.float32(0.0)


def codebook_training(accumulate):
    """Codes that follow the sums of the vectors nearest to them, through a net's frozen map."""

    def loss(params, batch, keys, held):
        z = batch["x"] @ held.frozen["map"] + params["shift"][None]
        codes = held.statistics["sums"] / held.statistics["counts"][:, None]
        nearest = jnp.argmin(jnp.sum((z[:, None] - codes[None]) ** 2, -1), 1)
        onehot = jax.nn.one_hot(nearest, CODES)
        value = jnp.mean((z - codes[nearest]) ** 2)
        means = {"counts": onehot.mean(0), "sums": onehot.T @ jax.lax.stop_gradient(z) / len(z)}
        return value, Seen({"loss": value}, means)

    def follow(statistics, seen):
        return jax.tree.map(lambda old, mean: 0.9 * old + 0.1 * BATCH * mean, statistics, seen)

    def init_held(key, params):
        codes = jnp.eye(CODES, WIDTH)
        return Held({"counts": jnp.ones(CODES), "sums": codes}, {"map": jnp.array([[0.6, 0.8], [-0.8, 0.6]])})

    return make_training(
        lambda key: {"shift": jnp.zeros(WIDTH)},
        loss,
        optax.sgd(0.1),
        ema_decay=no_decay,
        accumulate=accumulate,
        init_held=init_held,
        follow=follow,
    )
