"""The state of a run that follows gradients, and the step that moves it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from flaxgen import parallel
from flaxgen.types import Batch, Loss, Params, PRNGKey, TrainState, TrainStep


def init_state(params: Params, tx: optax.GradientTransformation) -> TrainState:
    """A state at step 0 whose EMA starts at the parameters."""
    copy = jax.tree.map(jnp.array, params)
    return TrainState(jnp.zeros((), jnp.int32), params, copy, tx.init(params))


def make_init(
    init_params: Callable[[PRNGKey], Params], tx: optax.GradientTransformation
) -> Callable[[PRNGKey], TrainState]:
    """`init(key)`: the state at step 0 of fresh parameters."""

    @jax.jit
    def init(key: PRNGKey) -> TrainState:
        return init_state(init_params(key), tx)

    return init


def make_training(
    init_params: Callable[[PRNGKey], Params],
    loss: Loss,
    tx: optax.GradientTransformation,
    *,
    ema_decay: Callable[[jax.Array], jax.Array],
    accumulate: int = 1,
    after_update: Callable[[Params], Params] | None = None,
) -> tuple[Callable[[PRNGKey], TrainState], Callable[[str | None], TrainStep]]:
    """`init(key)` and `make_step(axis_name)` of a run that follows the gradient of one loss."""

    def make_step(axis_name: str | None) -> TrainStep:
        return make_train_step(
            loss, tx, ema_decay=ema_decay, accumulate=accumulate, axis_name=axis_name, after_update=after_update
        )

    return make_init(init_params, tx), make_step


def make_train_step(
    loss: Loss,
    tx: optax.GradientTransformation,
    *,
    ema_decay: Callable[[jax.Array], jax.Array],
    accumulate: int = 1,
    axis_name: str | None = None,
    after_update: Callable[[Params], Params] | None = None,
) -> TrainStep:
    """One optimizer step on one device; `axis_name` names the devices to average over.

    `ema_decay` maps the step to the decay in [0, 1). `accumulate` splits the batch into that many equal parts, whose
    gradients are averaged before the update: same numbers, less memory. `after_update` brings the parameters back to
    where they may be, before they are averaged: a clamp inside the loss would leave what is beyond it no gradient.
    """

    def train_step(state: TrainState, batch: Batch, key: PRNGKey):
        size = jax.tree.leaves(batch)[0].shape[0]
        keys = parallel.example_keys(jax.random.fold_in(key, state.step), size, axis_name)
        grads, metrics = accumulated(jax.grad(loss, has_aux=True), accumulate)(state.params, batch, keys)
        grads, metrics = parallel.mean_over(axis_name, (grads, metrics))
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        params = params if after_update is None else after_update(params)
        ema = optax.incremental_update(params, state.ema_params, 1 - ema_decay(state.step))
        metrics = {**metrics, "grad_norm": optax.tree.norm(grads)}
        return TrainState(state.step + 1, params, ema, opt_state), metrics

    return train_step


def accumulated(gradient: Callable, parts: int) -> Callable:
    """The mean of `gradient` over `parts` equal parts of the batch, one after the other.

    Part i takes examples i, i + parts, ...: with the batch split over devices every device works on every part.
    """
    if parts == 1:
        return gradient

    def mean_gradient(params, batch, keys):
        split = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), (batch, keys))
        part = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), split)
        like = jax.eval_shape(gradient, params, *part)

        def add(total, part):
            return jax.tree.map(jnp.add, total, gradient(params, *part)), None

        # XLA's CPU code for gradients of convolutions is many times slower in the body of a loop
        written_out = jax.default_backend() == "cpu"
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
        total, _ = jax.lax.scan(add, zeros, split, unroll=written_out)
        return jax.tree.map(lambda x: x / parts, total)

    return mean_gradient
