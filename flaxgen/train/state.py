"""The state of a run that follows gradients, and the step that moves it; GANs have their own, in `gan/`."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from flaxgen import parallel
from flaxgen.types import Batch, Held, Keys, Loss, Params, PRNGKey, Seen, State, TrainState, TrainStep

Follow: TypeAlias = Callable[[PyTree, PyTree], PyTree]
"""(statistics, seen) to the statistics after a step that has seen these means over its batch."""
InitHeld: TypeAlias = Callable[[PRNGKey, Params], Held]
"""(key, parameters) to what the state of a fresh run holds beside them."""
AfterUpdate: TypeAlias = Callable[[Params, Held], Params]
"""(parameters after the optimizer's update, what is held after the step) to the parameters."""


def init_state(params: Params, tx: optax.GradientTransformation, held: Held = Held()) -> TrainState:  # noqa: B008
    """A state at step 0 whose EMA starts at the parameters."""
    copy = jax.tree.map(jnp.array, params)
    return TrainState(jnp.zeros((), jnp.int32), params, copy, tx.init(params), held)


def make_init(
    init_params: Callable[[PRNGKey], Params],
    tx: optax.GradientTransformation,
    init_held: InitHeld | None = None,
) -> Callable[[PRNGKey], TrainState]:
    """`init(key)`: the state at step 0 of fresh parameters; `init_held(key, params)` is what it holds beside them."""

    @jax.jit
    def init(key: PRNGKey) -> TrainState:
        return init_state(init_params(key), tx)

    def init_holding(key: PRNGKey) -> TrainState:
        assert init_held is not None
        # copies, as a step is given its state for good; outside of jit, whose constants frozen weights would become
        state = init(key)
        return state._replace(held=jax.tree.map(jnp.array, init_held(key, state.params)))

    return init if init_held is None else init_holding


def make_training(
    init_params: Callable[[PRNGKey], Params],
    loss: Loss,
    tx: optax.GradientTransformation,
    *,
    ema_decay: Callable[[jax.Array], jax.Array],
    accumulate: int = 1,
    after_update: AfterUpdate | None = None,
    init_held: InitHeld | None = None,
    follow: Follow | None = None,
) -> tuple[Callable[[PRNGKey], TrainState], Callable[[str | None], TrainStep]]:
    """`init(key)` and `make_step(axis_name)` of a run that follows the gradient of one loss; see `make_train_step`."""

    def make_step(axis_name: str | None) -> TrainStep:
        return make_train_step(
            loss,
            tx,
            ema_decay=ema_decay,
            accumulate=accumulate,
            axis_name=axis_name,
            after_update=after_update,
            follow=follow,
        )

    return make_init(init_params, tx, init_held), make_step


def make_train_step(
    loss: Loss,
    tx: optax.GradientTransformation,
    *,
    ema_decay: Callable[[jax.Array], jax.Array],
    accumulate: int = 1,
    axis_name: str | None = None,
    after_update: AfterUpdate | None = None,
    follow: Follow | None = None,
) -> TrainStep:
    """One optimizer step on one device; `axis_name` names the devices to average over.

    `ema_decay` maps the step to the decay in [0, 1). `accumulate` splits the batch into that many equal parts, whose
    gradients are averaged before the update: same numbers, less memory. `after_update` brings the parameters to where
    they may be, or where the statistics put them, before they are averaged: a clamp inside the loss would leave what is
    beyond it no gradient.

    A state that holds more than parameters gives it to the loss, which sees the statistics of before the step.
    `follow(statistics, seen)` moves them once a step by the means that the loss has `Seen` of the whole batch; without
    it they become what was seen. So whatever is not linear in the examples belongs into `follow`.
    """

    update = make_update(tx, ema_decay=ema_decay, after_update=after_update, follow=follow)

    def train_step(state: TrainState, batch: Batch, key: PRNGKey):
        size = jax.tree.leaves(batch)[0].shape[0]
        keys = parallel.example_keys(jax.random.fold_in(key, state.step), size, axis_name)
        gradient = accumulated(jax.grad(_seeing(loss, state.held), has_aux=True), accumulate)
        grads, seen = gradient(state.params, batch, keys)
        grads, seen = parallel.mean_over(axis_name, (grads, seen))
        return update(state, grads, seen.statistics), {**seen.metrics, "grad_norm": optax.tree.norm(grads)}

    return train_step


def make_update(
    tx: optax.GradientTransformation,
    *,
    ema_decay: Callable[[jax.Array], jax.Array],
    after_update: AfterUpdate | None = None,
    follow: Follow | None = None,
) -> Callable[[State, Params, PyTree], State]:
    """`update(state, gradient, seen)`: the state, a TrainState or one with more fields, a step further along the mean
    gradient of a batch whose mean statistics are `seen`; see `make_train_step`."""

    def update(state: State, grads: Params, seen: PyTree) -> State:
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        held = _followed(state.held, seen, follow)
        params = params if after_update is None else after_update(params, held)
        ema = optax.incremental_update(params, state.ema_params, 1 - ema_decay(state.step))
        return state._replace(step=state.step + 1, params=params, ema_params=ema, opt_state=opt_state, held=held)

    return update


def _seeing(loss: Loss, held: Held) -> Callable[[Params, Batch, Keys], tuple[jax.Array, Seen]]:
    """The loss of a state that holds this, with `Seen` as its second result."""
    more = (held,) if jax.tree.leaves(held) else ()

    def seeing(params, batch, keys):
        value, seen = loss(params, batch, keys, *more)
        return value, seen if isinstance(seen, Seen) else Seen(seen, ())

    return seeing


def _followed(held: Held, seen: PyTree, follow: Follow | None) -> Held:
    """What is held after a step that has seen this.

    Raises:
        ValueError: when traced, if the statistics would change their names, shapes or dtypes.
    """
    if not jax.tree.leaves(seen):
        return held
    moved = seen if follow is None else follow(held.statistics, seen)
    before, after = (jax.eval_shape(lambda tree=tree: tree) for tree in (held.statistics, moved))
    if before != after:
        raise ValueError(f"the step makes the statistics {before} into {after}: expected the same names and shapes")
    return held._replace(statistics=moved)


def accumulated(gradient: Callable, parts: int) -> Callable:
    """The mean of `gradient` over `parts` equal parts of the batch, one after the other.

    Part i takes examples i, i + parts, ...: with the batch split over devices every device works on every part.
    """
    if parts == 1:
        return gradient

    def mean_gradient(params, batch, keys):
        # As numbers, because JAX's check of keys takes those that a loop's body consumes for consumed before it
        data, kind = jax.random.key_data(keys), jax.random.key_impl(keys)
        split = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), (batch, data))
        part = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), split)

        def gradient_of(batch, data):
            return gradient(params, batch, jax.random.wrap_key_data(data, impl=kind))

        like = jax.eval_shape(gradient_of, *part)

        def add(total, part):
            return jax.tree.map(jnp.add, total, gradient_of(*part)), None

        # XLA's CPU code for gradients of convolutions is many times slower in the body of a loop
        written_out = jax.default_backend() == "cpu"
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
        total, _ = jax.lax.scan(add, zeros, split, unroll=written_out)
        return jax.tree.map(lambda x: x / parts, total)

    return mean_gradient
