"""Training losses. Each is written for a small batch that shares one time and one key; `per_example` gives every
example its own."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from flaxgen.diffusion.denoise import Prediction, TimeInput, read_output
from flaxgen.diffusion.vlb import bound_term, check_timesteps
from flaxgen.diffusion.weighting import SampleTime, Weight
from flaxgen.types import (
    AlphaSigma,
    Batch,
    Condition,
    Denoised,
    Keys,
    Loss,
    Metrics,
    Params,
    PRNGKey,
    Schedule,
    Time,
)

Apply = Callable[[Params, Float[Array, "B ..."], Float[Array, " B"], Condition, PRNGKey | None], Array]
"""(params, x, time input, condition, dropout key) -> output: a net."""
ExampleLoss = Callable[[Params, Batch, PRNGKey], tuple[Float[Array, ""], Metrics]]
Inputs = Callable[[Batch, PRNGKey], tuple[Float[Array, "B ..."], Condition]]
"""(batch, key) -> (x0, condition): what of a batch is diffused, and the net's condition."""


class Noised(NamedTuple):
    """x = alpha x0 + sigma eps, with all it was made of."""

    x0: Float[Array, "B ..."]
    eps: Float[Array, "B ..."]
    x: Float[Array, "B ..."]
    t: Time
    alpha: Float[Array, ""]
    sigma: Float[Array, ""]


Objective = Callable[[Array, Noised], tuple[Float[Array, ""], Metrics]]
"""(output of the net, what it saw) -> (loss, metrics)."""


def per_example(loss: ExampleLoss) -> Loss:
    """The mean of `loss` over a batch, each example with a time and a key of its own."""

    def batch_loss(params: Params, batch: Batch, keys: Keys) -> tuple[Float[Array, ""], Metrics]:
        def one(example, key):
            return loss(params, jax.tree.map(lambda x: x[None], example), key)

        return jax.tree.map(jnp.mean, jax.vmap(one)(batch, keys))

    return batch_loss


def denoising_loss(
    apply: Apply,
    schedule: Schedule,
    prediction: Prediction,
    time_input: TimeInput,
    *,
    sample_time: SampleTime,
    objective: Objective,
    inputs: Inputs,
    offset: float = 0.0,
) -> ExampleLoss:
    """E over t and eps of the objective [Ho20, eq. 12; Nichol21, eq. 16; Karras22, eq. 8; Lipman23, eq. 23].

    The objective decides what is minimised: `weighted_mse`, `hybrid` or `variational`, with the same prediction.
    `offset` is that of `add_noise`.
    """

    def loss(params, batch, key):
        time_key, noise_key, inputs_key, dropout_key = jax.random.split(key, 4)
        x0, condition = inputs(batch, inputs_key)
        noised = add_noise(x0, schedule, sample_time(time_key), noise_key, offset)
        x = prediction.scale_in(noised.alpha, noised.sigma) * noised.x
        out = apply(params, x, net_time(time_input, noised), condition, dropout_key)
        value, metrics = objective(out.astype(jnp.float32), noised)
        return value, {"loss": value, **metrics}

    return loss


def classification_loss(
    apply: Apply, schedule: Schedule, time_input: TimeInput, *, sample_time: SampleTime, inputs: Inputs
) -> ExampleLoss:
    """Cross-entropy in nats of `label` given x_t and t: the noisy classifier that guides [Dhariwal21, sec. 4].

    `apply` gives logits [B, classes]; `inputs` gives the labels as the condition `label`.
    """

    def loss(params, batch, key):
        time_key, noise_key, inputs_key, dropout_key = jax.random.split(key, 4)
        x0, condition = inputs(batch, inputs_key)
        noised = add_noise(x0, schedule, sample_time(time_key), noise_key)
        logits = apply(params, noised.x, net_time(time_input, noised), {}, dropout_key).astype(jnp.float32)
        label = condition["label"]
        value = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, label))
        return value, {"loss": value, "accuracy": jnp.mean(jnp.argmax(logits, axis=-1) == label)}

    return loss


def add_noise(x0: Float[Array, "B ..."], schedule: Schedule, t: Time, key: PRNGKey, offset: float = 0.0) -> Noised:
    """A draw of q(x_t | x0). With an `offset` the noise also has that much of a constant for each example and channel,
    so that a net learns to move means, which white noise leaves alone [Guttenberg23]."""
    alpha, sigma = schedule(t)
    key, offset_key = jax.random.split(key) if offset else (key, key)
    eps = jax.random.normal(key, x0.shape, x0.dtype)
    if offset:
        constant = (x0.shape[0], *(1,) * (x0.ndim - 2), x0.shape[-1])
        eps += offset * jax.random.normal(offset_key, constant, x0.dtype)
    return Noised(x0, eps, alpha * x0 + sigma * eps, t, alpha, sigma)


def net_time(time_input: TimeInput, noised: Noised) -> Float[Array, " B"]:
    """What the net reads of the time, for each example."""
    value = time_input(noised.t, AlphaSigma(noised.alpha, noised.sigma))
    return jnp.full(noised.x.shape[:1], value, jnp.float32)


# What is minimised


def weighted_mse(prediction: Prediction, weight: Weight) -> Objective:
    """The squared error of the net's output, times a weight; `mse` is without."""

    def objective(out, noised):
        check_output(out, noised, learned_variance=False)
        mse = output_mse(out, noised, prediction)
        return weight(prediction, noised.alpha, noised.sigma) * mse, {"mse": mse}

    return objective


def hybrid(schedule: Schedule, prediction: Prediction, timesteps: int, bound_weight: float = 1e-3) -> Objective:
    """L_simple + bound_weight L_vlb, whose gradient reaches the learned variance only [Nichol21, eq. 16].

    L_vlb is `timesteps` times the term of the sampled step, in bits a dimension (`vb`).

    Raises:
        ValueError: if timesteps is below 1.
    """
    check_timesteps(timesteps)

    def objective(out, noised):
        check_output(out, noised, learned_variance=True)
        denoised = read_output(out, noised.x, noised.alpha, noised.sigma, prediction, learned_variance=True)
        denoised = Denoised(jax.lax.stop_gradient(denoised.x0), denoised.var_mix)
        vb = timesteps * mean_bound_term(denoised, noised, schedule, timesteps, "learned")
        mse = output_mse(jnp.split(out, 2, axis=-1)[0], noised, prediction)
        return mse + bound_weight * vb, {"mse": mse, "vb": vb}

    return objective


def variational(schedule: Schedule, prediction: Prediction, timesteps: int, variance: str) -> Objective:
    """L_vlb without its constant prior term, in bits a dimension [Ho20, eq. 5; Nichol21, sec. 3.3].

    One term, times `timesteps`, is an unbiased estimate where t is uniform over the table.

    Raises:
        ValueError: if timesteps is below 1.
    """
    check_timesteps(timesteps)

    def objective(out, noised):
        learned = variance == "learned"
        check_output(out, noised, learned)
        denoised = read_output(out, noised.x, noised.alpha, noised.sigma, prediction, learned)
        vb = timesteps * mean_bound_term(denoised, noised, schedule, timesteps, variance)
        mean_part = jnp.split(out, 2, axis=-1)[0] if learned else out
        return vb, {"mse": output_mse(mean_part, noised, prediction), "vb": vb}

    return objective


def mean_bound_term(
    denoised: Denoised, noised: Noised, schedule: Schedule, timesteps: int, variance: str
) -> Float[Array, ""]:
    """The term of the step from t to t - 1 / timesteps, or to 0 from the first one."""
    t = noised.t
    s = jnp.where(t * timesteps < 1.5, 0.0, t - 1 / timesteps)
    return jnp.mean(bound_term(denoised, noised.x0, noised.x, (t, s), schedule, variance))


def output_mse(out: Float[Array, "B ..."], noised: Noised, prediction: Prediction) -> Float[Array, ""]:
    """Mean squared error of the output against what it should be."""
    return jnp.mean((out - prediction.target(noised.x0, noised.eps, noised.alpha, noised.sigma)) ** 2)


def check_output(out: Array, noised: Noised, learned_variance: bool) -> None:
    """Raises ValueError unless the output has the channels of the data, twice as many with a learned variance."""
    *space, channels = noised.x0.shape
    expected = (*space, channels * (1 + learned_variance))
    if out.shape != expected:
        raise ValueError(
            f"the net puts out {out.shape[1:]} where this objective takes {expected[1:]}: a learned variance needs "
            "twice the channels of the data, and a hybrid or variational objective"
        )
