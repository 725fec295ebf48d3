"""An autoencoder in a game with a discriminator of patches [Esser21]: the state of such a run, and its step."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree, Shaped

from flaxgen import parallel
from flaxgen.data import unit_range
from flaxgen.family.trained import Files
from flaxgen.gan.losses import hinge
from flaxgen.gan.state import Player
from flaxgen.nets.dense_autoencoder import DenseAutoencoder
from flaxgen.nets.patchgan import PatchDiscriminator
from flaxgen.nets.vqvae import VqVae
from flaxgen.nets.vqvae2 import VqVae2
from flaxgen.train import optim
from flaxgen.train.state import make_init, make_update
from flaxgen.types import Batch, Held, Metrics, Params, PRNGKey, TrainStep
from flaxgen.zoo.autoencoder import training
from flaxgen.zoo.autoencoder.config import Config, image_shape

Image = training.Image
LAST: dict[type, str] = {VqVae: "up_0", VqVae2: "up_0", DenseAutoencoder: "out"}
"""What the last layer of a decoder is called, where it is not "conv_out"."""
SMALLEST = 1e-4
"""What is added to the norm of the game's gradient before it divides [Esser21, eq. 7, their code]."""
LOSS_SHARE = 0.5
"""Of the hinge that the discriminator minimises."""


class AdversarialState(NamedTuple):
    """A `TrainState`, of which checkpoints and models read the same fields, and the discriminator."""

    step: Shaped[Array, ""]
    params: Params
    ema_params: Params
    opt_state: PyTree
    held: Held
    discriminator: Player


class Move(NamedTuple):
    """What the game asks of what is drawn: the gradient of the generator's loss, weighted; and what became of the
    discriminator."""

    toward: Float[Array, "B H W D"]
    discriminator: Player
    metrics: Metrics


def make_training(config: Config, files: Files) -> tuple[Callable, Callable] | None:
    """`init(key)` and `make_step(axis_name)` of a run with an adversary; None where there is none."""
    if config.adversary.net == "none":
        return None
    tx = optim.make_optimizer(config.optimizer, config.steps)
    plain = make_init(
        functools.partial(training.init_params, config), tx, functools.partial(training.init_held, config)
    )

    @jax.jit
    def init_discriminator(key: PRNGKey) -> Player:
        variables = dict(discriminator_of(config).init(key, jnp.zeros((1, *image_shape(config)))))
        return Player(variables, _discriminator_tx(config).init(variables["params"]))

    def init(key: PRNGKey) -> AdversarialState:
        own_key, discriminator_key = jax.random.split(key)
        return AdversarialState(*plain(own_key), discriminator=init_discriminator(discriminator_key))

    return init, functools.partial(make_step, config, tx)


def discriminator_of(config: Config, axis_name: str | None = None) -> PatchDiscriminator:
    """The net whom an autoencoder plays against; statistics of a batch are those of all devices of `axis_name`."""
    fields = {name: getattr(config.adversary, name) for name in ("width", "depth", "norm")}
    size, _, channels = image_shape(config)
    return PatchDiscriminator(image_size=size, in_channels=channels, axis_name=axis_name, **fields)


def _discriminator_tx(config: Config) -> optax.GradientTransformation:
    return optim.make_optimizer(config.adversary.optimizer, config.steps)


def make_step(config: Config, tx: optax.GradientTransformation, axis_name: str | None) -> TrainStep:
    """A step of both: pictures go through the autoencoder once, and the discriminator judges them as they were drawn,
    before either moves. `loss` in the metrics is that without the game."""
    update = make_update(
        tx,
        ema_decay=optim.make_ema_decay(config.ema),
        after_update=functools.partial(training.after_update, config),
        follow=functools.partial(training.follow, config),
    )

    def step(state: AdversarialState, batch: Batch, key: PRNGKey) -> tuple[AdversarialState, Metrics]:
        x = unit_range(batch["image"])
        keys = parallel.example_keys(jax.random.fold_in(key, state.step), len(x), axis_name)

        def forward(params):
            y, passed = training.through(config, params, x, keys, state.held)
            return (y, passed.cost), passed

        def cost(params, y):
            return training.reconstruction(config, params, state.held.frozen, x, y)

        (y, extra), back, passed = jax.vjp(forward, state.params, has_aux=True)
        (value, parts), (own, toward) = jax.value_and_grad(cost, (0, 1), has_aux=True)(state.params, y)

        def last_layer(toward_y):  # all else that `back` computes is unused, and is not compiled
            (grads,) = back((toward_y, jnp.zeros_like(extra)))
            return grads["decoder"][LAST.get(type(config.net), "conv_out")]["kernel"]

        move = _play(config, axis_name, state, x, y, functools.partial(_weight, config, axis_name, last_layer, toward))
        (grads,) = back((toward + move.toward, jnp.ones_like(extra)))
        seen = training.seen_of(config, passed, value, parts)
        grads, seen = parallel.mean_over(axis_name, (jax.tree.map(jnp.add, grads, own), seen))
        state = update(state, grads, seen.statistics)._replace(discriminator=move.discriminator)
        return state, {**seen.metrics, **move.metrics, "grad_norm": optax.tree.norm(grads)}

    return step


def _weight(
    config: Config,
    axis_name: str | None,
    last_layer: Callable[[Array], Array],
    toward: Float[Array, "B H W D"],
    game: Float[Array, "B H W D"],
) -> Float[Array, ""]:
    """What the game weighs, of both gradients by what is drawn: norms are those of means over all devices."""
    both = parallel.mean_over(axis_name, (last_layer(toward), last_layer(game)))
    return config.adversary.weight * adaptive_ratio(*both, most=config.adversary.most)


def adaptive_ratio(reconstruction: Array, game: Array, *, most: float) -> Float[Array, ""]:
    """The norm of one gradient over that of the other, in [0, most] [Esser21, eq. 7]."""
    return jnp.clip(optax.tree.norm(reconstruction) / (optax.tree.norm(game) + SMALLEST), 0, most)


def _play(
    config: Config,
    axis_name: str | None,
    state: AdversarialState,
    x: Image,
    y: Float[Array, "B H W D"],
    weigh: Callable[[Array], Array],
) -> Move:
    """One move of each, or none as long as the game has not begun."""
    net, tx = discriminator_of(config, axis_name), _discriminator_tx(config)

    def play(player: Player) -> Move:
        def generator_loss(y):
            logits = _logits(net, player.variables, training.drawn(config, y))
            return hinge.generator(logits, logits)

        def discriminator_loss(params):
            variables = {**player.variables, "params": params}
            real, buffers = net.apply(variables, x, train=True, mutable=["buffers"])
            fake, real = _logits(net, variables, training.drawn(config, y)), jnp.asarray(real).reshape(-1)
            value = LOSS_SHARE * hinge.discriminator(real, fake)
            figures = {"discriminator_loss": value, "real_logit": real.mean(), "fake_logit": fake.mean()}
            return value, (figures, dict(buffers))

        value, game = jax.value_and_grad(generator_loss)(y)
        weight = weigh(game)
        params = player.variables["params"]
        grads, (figures, buffers) = jax.grad(discriminator_loss, has_aux=True)(params)
        figures |= {"generator_loss": value}
        grads, figures, buffers = parallel.mean_over(axis_name, (grads, figures, buffers))
        updates, opt_state = tx.update(grads, player.opt_state, params)
        variables = {**player.variables, **buffers, "params": optax.apply_updates(params, updates)}
        return Move(weight * game, Player(variables, opt_state), {**figures, "game_weight": weight})

    def wait(player: Player) -> Move:
        like = jax.eval_shape(play, player)
        idle: Any = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
        return idle._replace(discriminator=player)

    if not config.adversary.start:
        return play(state.discriminator)
    return jax.lax.cond(state.step >= config.adversary.start, play, wait, state.discriminator)


def _logits(net: PatchDiscriminator, variables: Any, images: Image) -> Float[Array, " N"]:
    """Of all patches of a batch, as in training."""
    return jnp.asarray(net.apply(variables, images, train=True)).reshape(-1)
