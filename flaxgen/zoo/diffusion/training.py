"""From a diffusion config to its net, loss and train step; nothing here reads data."""

import functools
from collections.abc import Callable
from typing import Any, cast

import jax.numpy as jnp
from jaxtyping import Array

from flaxgen.diffusion import losses, weighting
from flaxgen.diffusion.denoise import make_bind
from flaxgen.train import optim, state
from flaxgen.types import Bind, Condition, Loss, Params, PRNGKey
from flaxgen.zoo.diffusion.config import Config, Objective, batch_fields, example_shape, null_condition
from flaxgen.zoo.diffusion.drawing import Subject
from flaxgen.zoo.process import Process, make_prediction, make_schedule, make_time_input


def init_params(config: Config, key: PRNGKey) -> Params:
    """Fresh parameters.

    Raises:
        ValueError: if the net's levels do not divide its image size.
    """
    label = jnp.zeros(1, jnp.int32) if config.net.num_classes else None
    return config.net.init(key, jnp.zeros((1, *example_shape(config))), jnp.ones(1), label=label)["params"]


def apply_net(config: Config, params: Params, x, time, condition: Condition, dropout_key: PRNGKey | None) -> Array:
    """The net's output; with a key it trains, and drops out."""
    rngs = {} if dropout_key is None else {"dropout": dropout_key}
    told: dict[str, Any] = dict(condition)
    out = config.net.apply({"params": params}, x, time, **told, train=dropout_key is not None, rngs=rngs)
    return cast(Array, out)


def make_loss(config: Config) -> Loss:
    """The training loss that the config names."""
    field, *condition = batch_fields(config)
    null = null_condition(config)
    drops = [] if null is None else [losses.Drop(config.objective.condition_dropout, null)]
    inputs = losses.read_batch(field, condition, drops)
    apply = functools.partial(apply_net, config)
    return make_denoising_loss(config.process, config.objective, config.net.learned_variance, apply, inputs)


def make_denoising_loss(
    process: Process, objective: Objective, learned_variance: bool, apply: losses.Apply, inputs: losses.Inputs
) -> Loss:
    """The loss that process and objective name, of a net and of what it is told."""
    schedule, prediction = make_schedule(process), make_prediction(process)
    variance = "learned" if learned_variance else "large"
    weights = {**weighting.WEIGHTS, "edm": weighting.edm(process.sigma_data)}
    objectives = {
        "mse": lambda: losses.weighted_mse(prediction, weights[objective.weight]),
        "hybrid": lambda: losses.hybrid(schedule, prediction, process.timesteps),
        "variational": lambda: losses.variational(schedule, prediction, process.timesteps, variance),
    }
    return losses.per_example(
        losses.denoising_loss(
            apply,
            schedule,
            prediction,
            make_time_input(process),
            sample_time=weighting.TIME_SAMPLING[objective.times](schedule, process.timesteps),
            objective=objectives[objective.loss](),
            inputs=inputs,
        )
    )


def make_training(config: Config):
    """`init(key)` and `make_step(axis_name)` of the run."""
    return state.make_training(
        functools.partial(init_params, config),
        make_loss(config),
        optim.make_optimizer(config.optimizer, config.steps),
        ema_decay=optim.make_ema_decay(config.ema),
        accumulate=config.accumulate,
    )


def make_subject(config: Config) -> Subject:
    """What there is to draw."""
    null, apply = null_condition(config), functools.partial(apply_net, config)
    return Subject(
        make_schedule(config.process),
        config.process.timesteps,
        example_shape(config),
        make_net_bind(config.process, config.net.learned_variance, apply),
        None if null is None else lambda _: null,
    )


def make_net_bind(process: Process, learned_variance: bool, apply: losses.Apply) -> Callable[[Params], Bind]:
    """From parameters to a denoiser that waits for its condition."""
    schedule, prediction, time_input = make_schedule(process), make_prediction(process), make_time_input(process)

    def bind(params: Params) -> Bind:
        def net(x, time, condition):
            return apply(params, x, time, condition, None)

        return make_bind(net, schedule, prediction, time_input, learned_variance=learned_variance)

    return bind
