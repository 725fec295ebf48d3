"""What an autoencoder minimises, and what its state holds."""

import math
from typing import Any, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flaxgen.data import unit_range
from flaxgen.diffusion.vlb import discretized_log_likelihood
from flaxgen.family.bottlenecks import Sizes
from flaxgen.family.trained import Files
from flaxgen.latents import likelihood
from flaxgen.types import Held, Loss, Params, PRNGKey, Seen
from flaxgen.zoo.autoencoder.config import DISCRETE, Config, image_shape, says_scales

Image = Float[Array, "B H W C"]
FIRST_SCALE = 0.1
"""Of pixels' values around what is drawn, in units of [-1, 1], before any is learned."""
LOG_SCALES = (-7.0, 7.0)
"""Scales stay within these, as in PixelCNN++ [Salimans17]: what is always one value would have one of 0."""


def init_params(config: Config, key: PRNGKey) -> Params:
    """Fresh parameters: those of the net, of the bottleneck, and of the loss."""
    net_key, bottleneck_key = jax.random.split(key)
    params = dict(config.net.init(net_key, jnp.zeros((1, *image_shape(config))))["params"])
    params |= config.bottleneck.init(bottleneck_key, config.net.latent_dim)
    if config.reconstruction.loss in DISCRETE and not says_scales(config):
        params["log_scale"] = jnp.full(config.net.in_channels, math.log(FIRST_SCALE))
    return params


def init_held(config: Config, key: PRNGKey, params: Params) -> Held:
    """What the bottleneck follows."""
    return Held(config.bottleneck.init_statistics(params))


def follow(config: Config, statistics: Any, seen: Any) -> Any:
    """The bottleneck's statistics after a step that has seen these means over its batch."""
    return config.bottleneck.follow(statistics, jax.tree.map(lambda mean: mean * config.batch_size, seen))


def after_update(config: Config, params: Params, held: Held) -> Params:
    """The codes where their averages put them."""
    return config.bottleneck.settle(params, held.statistics)


def encode(config: Config, params: Params, x: Image) -> Float[Array, "B h w D"]:
    """What the encoder says of pictures in [-1, 1]."""
    return cast(Array, config.net.apply(_net(params), x, method="encode"))


def decode(config: Config, params: Params, z: Float[Array, "B h w D"]) -> Float[Array, "B H W E"]:
    """What the decoder says of latents; `picture_of` makes pictures of it."""
    return cast(Array, config.net.apply(_net(params), z, method="decode")).astype(jnp.float32)


def _net(params: Params) -> dict[str, Params]:
    return {"params": {name: params[name] for name in ("encoder", "decoder")}}


def picture_of(config: Config, y: Float[Array, "B H W D"]) -> Image:
    """The picture in [-1, 1] that the decoder means."""
    mean = y[..., : config.net.in_channels]
    if config.reconstruction.loss == "logit_laplace":
        return likelihood.from_unit(jax.nn.sigmoid(mean))
    return jnp.clip(mean, -1, 1)


def distances(config: Config, params: Params, x: Image, y: Float[Array, "B H W D"]) -> Float[Array, " B"]:
    """How far each picture is from what is drawn of it, a mean over its numbers; of a probability, in nats."""
    asked = config.reconstruction
    if asked.loss == "squared":
        return jnp.mean((x - y) ** 2, (1, 2, 3)) / asked.variance
    if asked.loss == "absolute":
        return jnp.mean(jnp.abs(x - y), (1, 2, 3)) / asked.variance
    mean, log_scale = jnp.split(y, 2, axis=-1) if says_scales(config) else (y, params["log_scale"].reshape(1, 1, 1, -1))
    log_scale = jnp.clip(log_scale, *LOG_SCALES)
    if asked.loss == "logit_laplace":
        log_prob = likelihood.logit_laplace_log_prob(likelihood.to_unit(x), mean, log_scale)
    elif asked.loss == "gaussian":
        log_prob = discretized_log_likelihood(x, mean, log_scale, asked.levels)
    else:
        log_prob = likelihood.logistic_log_prob(x, mean, log_scale, asked.levels)
    return -log_prob.mean((1, 2, 3))


def make_loss(config: Config, files: Files) -> Loss:
    """The distance of pictures from what is drawn of them, and what the bottleneck costs: with a likelihood and a
    Gaussian the negative evidence bound in nats a number [Kingma14, eq. 10]."""
    sizes = Sizes(math.prod(image_shape(config)), config.batch_size)

    def loss(params, batch, keys, held=Held()):  # noqa: B008
        noise_keys, draw_keys = (jax.vmap(jax.random.fold_in, (0, None))(keys, use) for use in range(2))
        x = unit_range(batch["image"])
        h = encode(config, params, noisy(x, config.noise, noise_keys))
        passed = config.bottleneck.train(params, h, draw_keys, held.statistics, sizes)
        y = decode(config, params, passed.z)
        distance = distances(config, params, x, y).mean()
        metrics = {"loss": distance + passed.cost, "reconstruction": distance, **passed.metrics}
        metrics["mse"] = jnp.mean((picture_of(config, y) - x) ** 2)
        if config.reconstruction.loss in DISCRETE and "kl" in passed.metrics:
            metrics["bits_per_dim"] = (distance + passed.metrics["kl"] / sizes.picture) / math.log(2)
        seen = jax.tree.map(lambda total: total / len(x), passed.seen)
        return metrics["loss"], Seen(metrics, seen)

    return loss


def noisy(x: Image, std: float, keys) -> Image:
    """Pictures with noise of this standard deviation, one key a picture."""
    if not std:
        return x
    return x + std * jax.vmap(lambda key: jax.random.normal(key, x.shape[1:]))(keys)
