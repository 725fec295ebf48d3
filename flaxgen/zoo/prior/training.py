"""From a prior's config to its loss and train step, and the run on cached embeddings."""

import functools
from collections.abc import Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from flaxgen.diffusion import losses
from flaxgen.nets.ar_prior import ARPrior
from flaxgen.tokens import quantise
from flaxgen.train import optim, state
from flaxgen.types import Condition, Experiment, Loss, Params, PRNGKey
from flaxgen.zoo import embeddings
from flaxgen.zoo.diffusion.training import make_denoising_loss
from flaxgen.zoo.files import Files
from flaxgen.zoo.prior.config import (
    STATISTICS,
    TEXT,
    Config,
    batch_spec,
    blank_statistics,
    empty_text,
    read_statistics,
)

NO_FILES: Files = {}


def init_params(config: Config, key: PRNGKey) -> Params:
    """Fresh parameters."""
    net = config.net
    example = {name: jnp.zeros((1, *spec.shape[1:]), spec.dtype) for name, spec in batch_spec(config).items()}
    text = _text(example)
    if isinstance(net, ARPrior):
        codes, dot_code = jnp.zeros((1, net.dims), jnp.int32), jnp.zeros(1, jnp.int32)
        return net.init(key, codes, dot_code, **text)["params"]
    return net.init(key, example["image_embedding"], jnp.ones(1), **text)["params"]


def _text(batch: Mapping[str, Any]) -> dict[str, Any]:
    """What the net is told of captions; hidden states are kept in half precision."""
    return {name: batch[name] for name in TEXT} | {"text_hidden": batch["text_hidden"].astype(jnp.float32)}


def apply_net(config: Config, params: Params, x, time, condition: Condition, dropout_key: PRNGKey | None):
    """The whitened embedding that a diffusion prior predicts."""
    return cast(jax.Array, config.net.apply({"params": params}, x, time, **_text(condition)))


def make_loss(config: Config, statistics: Mapping[str, np.ndarray]) -> Loss:
    """The square error of the embedding [Ramesh22, eq. 2], or the cross-entropy of its codes."""
    drops = [losses.Drop(config.objective.condition_dropout, empty_text(statistics))]
    read = losses.read_batch("image_embedding", TEXT, drops)
    if isinstance(config.net, ARPrior):
        return losses.per_example(_code_loss(config.net, make_quantiser(statistics), read))

    def whitened(batch, key):
        image, text = read(batch, key)
        return (image - statistics["mean"][None]) / statistics["std"][None], text

    return make_denoising_loss(config.process, config.objective, False, functools.partial(apply_net, config), whitened)


def make_quantiser(statistics: Mapping[str, Any]) -> quantise.Quantiser:
    """What an autoregressive prior's codes stand for."""
    return quantise.Quantiser(**{name: jnp.asarray(statistics[name]) for name in quantise.Quantiser._fields})


def _code_loss(net: ARPrior, fitted: quantise.Quantiser, read: losses.Inputs) -> losses.ExampleLoss:
    """Nats a code."""

    def loss(params, batch, key):
        image, told = read(batch, key)
        dots = jnp.sum(image * batch["text_embedding"], axis=-1)
        codes = quantise.encode(fitted, image, net.buckets)
        dot_code = quantise.encode_dots(fitted, dots, net.dot_buckets)
        logits = cast(jax.Array, net.apply({"params": params}, codes, dot_code, **_text(told)))
        value = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, codes))
        return value, {"loss": value, "accuracy": jnp.mean(jnp.argmax(logits, -1) == codes)}

    return loss


def make_training(config: Config, found: Files = NO_FILES):
    """`init(key)` and `make_step(axis_name)` of the run; without files its step is good for its shapes only."""
    statistics = read_statistics(found) if STATISTICS in found else blank_statistics(config)
    return state.make_training(
        functools.partial(init_params, config),
        make_loss(config, statistics),
        optim.make_optimizer(config.optimizer, config.steps),
        ema_decay=optim.make_ema_decay(config.ema),
        accumulate=config.accumulate,
    )


def build(config: Config, found: Files) -> Experiment:
    """The run.

    Raises:
        ValueError: if the CLIP or the data cannot be read, or do not fit the net.
    """
    init, make_step = make_training(config, found)
    jax.eval_shape(init, jax.random.key(0))
    source = embeddings.open_embeddings(config.clip, config.data, config.cache)
    embeddings.check_widths(config.net, config.net.context, source)
    return Experiment(init, make_step, source, tuple(batch_spec(config)))
