"""What an autoencoder minimises, and what its state holds."""

import math
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from flaxgen.data import unit_range
from flaxgen.diffusion.vlb import discretized_log_likelihood
from flaxgen.family.bottlenecks import Passed, Sizes
from flaxgen.family.codec import in_tiles, scaled, unscaled
from flaxgen.family.levels import BOTTOM, TOP, Levels, TwoMaps
from flaxgen.family.perceptual import frozen_weights, make_distance
from flaxgen.family.trained import Files
from flaxgen.latents import likelihood
from flaxgen.nets.vqvae2 import VqVae2, join, split
from flaxgen.types import Codec, Held, Keys, Loss, Metrics, Params, PRNGKey, Seen
from flaxgen.zoo.autoencoder.config import DISCRETE, Config, check_tile, image_shape, of_levels, says_scales
from flaxgen.zoo.classifier import FAMILY as CLASSIFIER
from flaxgen.zoo.clip import FAMILY as CLIP

Image = Float[Array, "B H W C"]
EXTRACTING = {"clip": CLIP, "classifier": CLASSIFIER}
"""Families whose models pictures can be compared through."""
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
    if config.reconstruction.learn_variance:
        params["log_variance"] = jnp.zeros(())
    return params


def init_held(config: Config, key: PRNGKey, params: Params) -> Held:
    """What the bottleneck follows, and the net that pictures are compared through; where the key is none yet, as in
    tracing for shapes, its file need not be there."""
    frozen = frozen_weights(config.perceptual.net, EXTRACTING, shapes_only=isinstance(key, Tracer))
    return Held(config.bottleneck.init_statistics(params), frozen)


def follow(config: Config, statistics: Any, seen: Any) -> Any:
    """The bottleneck's statistics after a step that has seen these means over its batch."""
    return config.bottleneck.follow(statistics, jax.tree.map(lambda mean: mean * config.batch_size, seen))


def after_update(config: Config, params: Params, held: Held) -> Params:
    """The codes where their averages put them."""
    return config.bottleneck.settle(params, held.statistics)


def encode(config: Config, params: Params, x: Image) -> Any:
    """What the encoder says of pictures in [-1, 1]: a map [B h w D], or of two levels `TwoMaps`."""
    said = config.net.apply(_net(params), x, method="encode")
    if not of_levels(config):
        return said
    top, below = cast(tuple[Array, Array], said)
    return TwoMaps(top, lambda z: cast(Array, config.net.apply(_net(params), below, z, method="refine")))


def features_of(config: Config, params: Params, x: Image) -> Float[Array, "B h w F"]:
    """What the encoder says of pictures, as one map; of two levels the bottom knows the top's codes."""
    h = encode(config, params, x)
    if not of_levels(config):
        return h
    return join(h.top, h.bottom(cast(Levels, config.bottleneck).top.quantise(params[TOP], h.top)))


def latents_of_features(config: Config, params: Params, features: Float[Array, "B h w F"]) -> Float[Array, "B h w D"]:
    """What the decoder reads of `features_of` pictures."""
    if not of_levels(config):
        return config.bottleneck.quantise(params, features)
    top, bottom = split(features, cast(VqVae2, config.net).ratio)
    return cast(Levels, config.bottleneck).quantise(params, TwoMaps(top, lambda _: bottom))


def latents_of_top(config: Config, params: Params, codes: Int[Array, "B u v"]) -> Float[Array, "B h w D"]:
    """What the decoder reads of the top's codes alone: in place of the bottom's vectors stands their mean."""
    levels = cast(Levels, config.bottleneck)
    top = levels.top.from_codes(params[TOP], codes)
    every = levels.bottom.from_codes(params[BOTTOM], jnp.arange(levels.bottom.codes)[None, None])
    side = [cast(VqVae2, config.net).ratio * size for size in codes.shape[1:]]
    return join(top, jnp.broadcast_to(every.mean(2, keepdims=True), (len(codes), *side, every.shape[-1])))


def decode(config: Config, params: Params, z: Float[Array, "B h w D"]) -> Float[Array, "B H W E"]:
    """What the decoder says of latents; `picture_of` makes pictures of it."""
    return cast(Array, config.net.apply(_net(params), z, method="decode")).astype(jnp.float32)


def _net(params: Params) -> dict[str, Params]:
    return {"params": {name: params[name] for name in ("encoder", "decoder")}}


def picture_of(config: Config, y: Float[Array, "B H W D"]) -> Image:
    """The picture in [-1, 1] that the decoder means."""
    return jnp.clip(drawn(config, y), -1, 1)


def drawn(config: Config, y: Float[Array, "B H W D"]) -> Image:
    """The same before it is cut to [-1, 1], so that what is beyond has a gradient."""
    mean = y[..., : config.net.in_channels]
    return likelihood.from_unit(jax.nn.sigmoid(mean)) if config.reconstruction.loss == "logit_laplace" else mean


def latents_of(config: Config, params: Params, x: Image, tile: int = 0) -> Float[Array, "B h w D"]:
    """What the decoder reads of pictures in [-1, 1], without chance; with `tile` in tiles of so many pixels."""
    if of_levels(config):
        return config.bottleneck.quantise(params, encode(config, params, x))
    factor = config.net.factor
    features = in_tiles(lambda x: encode(config, params, x), tile, factor, reads=factor)(x)
    return config.bottleneck.quantise(params, features)


def pictures_of(config: Config, params: Params, z: Float[Array, "B h w D"], tile: int = 0) -> Image:
    """The pictures in [-1, 1] of latents; with `tile` in tiles of so many pixels."""
    factor = config.net.factor
    return picture_of(config, in_tiles(lambda z: decode(config, params, z), tile, factor, makes=factor)(z))


def make_codec(config: Config, tile: int = 0) -> Codec:
    """Both ways as functions of parameters, with the scale that the config says. With `tile` a picture is cut into
    tiles of so many pixels a side, of which neighbours share a quarter, and is blended of them: what a net reads within
    a sixteenth of a tile is as in the whole. Norms of groups and attention see their tile alone, so that the tone may
    differ a little from tile to tile.

    Raises:
        ValueError: if the net does not take such tiles.
    """
    check_tile(config, tile)
    return Codec(
        lambda params, x: scaled(config.latents, latents_of(config, params, x, tile)),
        lambda params, z: pictures_of(config, params, unscaled(config.latents, z), tile),
    )


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


class Through(NamedTuple):
    """What a batch of pictures became: what the decoder says of them, and what the bottleneck costs and has seen."""

    y: Float[Array, "B H W D"]
    passed: Passed


def through(config: Config, params: Params, x: Image, keys: Keys, held: Held) -> Through:
    """Pictures in [-1, 1] through encoder, bottleneck and decoder, as in training."""
    noise_keys, draw_keys = (jax.vmap(jax.random.fold_in, (0, None))(keys, use) for use in range(2))
    sizes = Sizes(math.prod(image_shape(config)), config.batch_size)
    h = encode(config, params, noisy(x, config.noise, noise_keys))
    passed = config.bottleneck.train(params, h, draw_keys, held.statistics, sizes)
    return Through(decode(config, params, passed.z), passed)


def reconstruction(
    config: Config, params: Params, frozen: Params, x: Image, y: Float[Array, "B H W D"]
) -> tuple[Array, Metrics]:
    """What it costs that these pictures are drawn like this, and its parts; `frozen` are the weights of the net that
    they are compared through."""
    total = distance = distances(config, params, x, y).mean()
    metrics = {"reconstruction": distance, "mse": jnp.mean((picture_of(config, y) - x) ** 2)}
    look = make_distance(config.perceptual.net, EXTRACTING)
    if look is not None:
        metrics["perceptual"] = look(frozen, x, drawn(config, y)).mean()
        total = distance + config.perceptual.weight * metrics["perceptual"]
    if not config.reconstruction.learn_variance:
        return total, metrics
    s = params["log_variance"]
    return total / jnp.exp(s) + s, metrics | {"log_variance": s}


def seen_of(config: Config, passed: Passed, cost: Array, metrics: Metrics) -> Seen:
    """What is logged and followed of a step, of what the reconstruction costs and its parts."""
    metrics = {"loss": cost + passed.cost, **metrics, **passed.metrics}
    if config.reconstruction.loss in DISCRETE and "kl" in passed.metrics:
        nats = metrics["reconstruction"] + passed.metrics["kl"] / math.prod(image_shape(config))
        metrics["bits_per_dim"] = nats / math.log(2)
    return Seen(metrics, jax.tree.map(lambda total: total / len(passed.z), passed.seen))


def make_loss(config: Config, files: Files) -> Loss:
    """The distance of pictures from what is drawn of them, and what the bottleneck costs: with a likelihood and a
    Gaussian the negative evidence bound in nats a number [Kingma14, eq. 10]."""

    def loss(params, batch, keys, held=Held()):  # noqa: B008
        x = unit_range(batch["image"])
        y, passed = through(config, params, x, keys, held)
        cost, metrics = reconstruction(config, params, held.frozen, x, y)
        seen = seen_of(config, passed, cost, metrics)
        return seen.metrics["loss"], seen

    return loss


def noisy(x: Image, std: float, keys) -> Image:
    """Pictures with noise of this standard deviation, one key a picture."""
    if not std:
        return x
    return x + std * jax.vmap(lambda key: jax.random.normal(key, x.shape[1:]))(keys)
