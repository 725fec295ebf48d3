"""From a GAN's config to its nets as functions, its rules and its train step; nothing here reads data."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from flaxgen.data import unit_range
from flaxgen.family.trained import Files
from flaxgen.gan.augment import PIPES, diff_augment, make_augment
from flaxgen.gan.controller import update_controller
from flaxgen.gan.losses import LOSSES
from flaxgen.gan.regularize import gradient_penalty, lazy_adam, r1
from flaxgen.gan.state import Augment, Game, Halves, PathLength, Penalty, Rules, Variables, half_life, make_init
from flaxgen.gan.step import make_train_step
from flaxgen.nets import dcgan
from flaxgen.nets.stylegan2 import track_style
from flaxgen.train import optim
from flaxgen.train.config import require
from flaxgen.train.optim import Optimizer
from flaxgen.types import Keys, Params, PRNGKey, TrainStep
from flaxgen.zoo.gan.config import Augmentation, Config, Regularizers, batch_spec, example_shape, has_styles

DCGAN = dcgan.Generator | dcgan.Discriminator
W_DECAY = 0.995
"""Of the running mean of w, towards which truncation goes, as in NVlabs' code."""


def init_params(config: Config, key: PRNGKey) -> Params:
    """Fresh variables of the generator, which are what a model is made of: `params` and other collections."""
    z = jnp.zeros((1, config.generator.latent_dim))
    return dict(config.generator.init(key, z, _label(config)))


def init_variables(config: Config, key: PRNGKey) -> tuple[Variables, Variables]:
    """Fresh variables of the generator and the discriminator."""
    generator_key, discriminator_key = jax.random.split(key)
    examples = jnp.zeros((1, *example_shape(config)))
    discriminator = config.discriminator.init(discriminator_key, examples, _label(config))
    return init_params(config, generator_key), dict(discriminator)


def parameters(config: Config) -> Params:
    """Shapes and dtypes of what is trained of both nets."""
    generator, discriminator = jax.eval_shape(lambda: init_variables(config, jax.random.key(0)))
    return {"generator": generator["params"], "discriminator": discriminator["params"]}


def make_training(config: Config, files: Files):
    """`init(key)` and `make_step(axis_name)` of the run."""
    rules = make_rules(config)

    def make_step(axis_name: str | None) -> TrainStep:
        return make_train_step(make_game(config, axis_name), rules, axis_name=axis_name)

    return make_init(functools.partial(init_variables, config), rules, config.augmentation.probability), make_step


def make_latents(config: Config):
    """One z ~ N(0, I) a key."""
    return jax.vmap(lambda key: jax.random.normal(key, (config.generator.latent_dim,)))


def make_rules(config: Config) -> Rules:
    """How the game is played.

    Raises:
        ValueError: if the optimizer, the augmentation or a regulariser is not for this game.
    """
    wanted = config.regularizers
    lazy_discriminator = wanted.interval if wanted.of_discriminator and wanted.interval > 1 else None
    lazy_generator = wanted.path_interval if wanted.path_length else None
    moves = config.augmentation.pipe and config.augmentation.target
    control = functools.partial(
        update_controller,
        batch_size=config.batch_size,
        target=config.augmentation.target,
        interval=config.augmentation.interval,
        images=config.augmentation.images,
    )
    return Rules(
        loss=LOSSES[config.loss],
        generator_tx=_optimizer(config.generator_optimizer, lazy_generator, config.steps),
        discriminator_tx=_optimizer(config.discriminator_optimizer, lazy_discriminator, config.steps * config.d_steps),
        ema_decay=half_life(config.average.images, config.average.ramp, config.batch_size),
        d_steps=config.d_steps,
        penalty=make_penalty(wanted) if wanted.of_discriminator else None,
        penalty_interval=wanted.interval,
        path_length=PathLength(wanted.path_length, wanted.path_interval, wanted.path_decay, wanted.path_shrink)
        if wanted.path_length
        else None,
        augment=_augment(config.augmentation, example_shape(config)),
        control=control if moves else None,
        max_nan_share=config.max_nan_share,
    )


def _optimizer(config: Optimizer, interval: int | None, steps: int) -> optax.GradientTransformation:
    """As it says; with a regulariser in steps of its own Adam is corrected for them, which decays count too."""
    if interval is None:
        return optim.make_optimizer(config, steps)
    require(config.name == "adam", f"name={config.name!r}: a lazy regulariser is for adam; set its interval to 1")
    rate = optim.make_learning_rate(config, steps + steps // interval)
    adam = lazy_adam(rate, config.beta1, config.beta2, interval, config.epsilon)
    return optax.chain(optax.clip_by_global_norm(config.clip), adam) if config.clip else adam


def make_penalty(wanted: Regularizers) -> Penalty:
    """The sum of those of the discriminator that have a weight."""

    def penalty(critic, real, fake, keys):
        real_keys, fake_keys, mixed_keys, line_keys = _split(keys, 4)
        total = jnp.zeros(())
        if wanted.r1:
            total += wanted.r1 / 2 * r1(lambda x: critic(x, real_keys), real)
        if wanted.r2:
            total += wanted.r2 / 2 * r1(lambda x: critic(x, fake_keys), fake)
        if wanted.lines:
            total += wanted.lines * gradient_penalty(lambda x: critic(x, mixed_keys), real, fake, line_keys)
        return total

    return penalty


def _augment(config: Augmentation, shape: tuple[int, ...]) -> Augment | None:
    if not config.pipe and not config.policy:
        return None
    require(len(shape) == 3, f"augmentation={config.pipe or config.policy} is for pictures, and these are points")
    if config.pipe:
        return make_augment(PIPES[config.pipe], (shape[0], shape[1], shape[2]))
    return lambda images, probability, keys: diff_augment(config.policy, images, keys)


def make_game(config: Config, axis_name: str | None) -> Game:
    """The nets as functions; the discriminator's statistics of a batch are those of all devices of `axis_name`."""
    generator, discriminator = (_spread(net, axis_name) for net in (config.generator, config.discriminator))
    field, *conditions = batch_spec(config)

    def read(batch):
        examples = unit_range(batch[field]) if field == "image" else batch[field]
        return examples, batch["label"] if conditions else None

    game = Game(
        read=read,
        latents=make_latents(config),
        generate=lambda variables, z, label, keys: _apply(generator, variables, z, label),
        discriminate=lambda variables, examples, label: _apply(discriminator, variables, examples, label),
        track_generator=_tracker(generator),
        track_discriminator=_tracker(discriminator),
    )
    return _with_styles(config, game) if has_styles(config) else game


def _spread(net: Any, axis_name: str | None) -> Any:
    """The net where a batch is split over the devices of `axis_name`."""
    return net.clone(axis_name=axis_name) if hasattr(net, "axis_name") else net


def _apply(net: Any, variables: Variables, inputs: Array, label: Array | None) -> Any:
    """The net as in training, which leaves its buffers alone."""
    mode: dict[str, Any] = {"train": True} if isinstance(net, DCGAN) else {}
    return net.apply(variables, inputs, label, **mode)


def _tracker(net: Any):
    """Of a DCGAN, its buffers after a step: statistics of batches, and directions of its kernels."""

    def track(variables, inputs, label):
        return net.apply(variables, inputs, label, train=True, mutable=["buffers"])[1]

    return track if isinstance(net, DCGAN) else None


def _with_styles(config: Config, game: Game) -> Game:
    """That of a generator with a w, which is mixed of two latents, and whose mean is kept."""
    generator: Any = config.generator

    def map_latents(variables, z, label):
        return generator.apply(variables, z, label, method="map")

    def map_mixed(variables, z, label, keys):
        w = map_latents(variables, z, label)
        if not config.style_mixing:
            return w
        latent_keys, chance_keys, place_keys = _split(keys, 3)
        other = map_latents(variables, game.latents(latent_keys), label)
        layers = w.shape[1]
        mixes = jax.vmap(lambda key: jax.random.bernoulli(key, config.style_mixing))(chance_keys)
        place = jax.vmap(lambda key: jax.random.randint(key, (), 1, layers))(place_keys)
        place = jnp.where(mixes, place, layers)
        return jnp.where((jnp.arange(layers)[None] < place[:, None])[..., None], w, other)

    def synthesize(variables, w, keys):
        return generator.apply(variables, w, keys, method="synthesize")

    def generate(variables, z, label, keys):
        mix_keys, noise_keys = _split(keys, 2)
        return synthesize(variables, map_mixed(variables, z, label, mix_keys), noise_keys)

    def track(variables, z, label):
        mean = map_latents(variables, z, label)[:, 0].mean(0)
        return {"buffers": track_style(variables["buffers"], mean, W_DECAY)}

    return game._replace(generate=generate, halves=Halves(map_mixed, synthesize), track_generator=track)


def _label(config: Config) -> Array | None:
    return jnp.zeros(1, jnp.int32) if config.generator.num_classes else None


def _split(keys: Keys, num: int) -> tuple[Keys, ...]:
    return jax.vmap(lambda key: tuple(jax.random.split(key, num)))(keys)
