"""What a game of two nets is played with, and what it leaves behind from step to step."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree, Shaped

from flaxgen.gan.controller import Controller, init_controller
from flaxgen.gan.losses import GanLoss
from flaxgen.types import Batch, Keys, PRNGKey, Scalar

Variables: TypeAlias = Mapping[str, PyTree]
"""A net's collections by name: `params`, which are trained, and others, such as `buffers`, which follow them."""
Label: TypeAlias = Int[Array, " B"] | None
Examples: TypeAlias = Float[Array, "B ..."]
"""Images [B H W C] in [-1, 1], or points [B D]."""
Logits: TypeAlias = Float[Array, " B"]
Augment: TypeAlias = Callable[[Examples, Float[Array, ""], Keys], Examples]
"""(examples, probability, keys) to what the discriminator is shown of them."""
Critic: TypeAlias = Callable[[Examples, Keys], Logits]
"""What the discriminator says of examples, augmented by the keys."""
Penalty: TypeAlias = Callable[[Critic, Examples, Examples, Keys], Float[Array, ""]]
"""(critic, real, fake, keys) to what is added to the discriminator's loss, its weight included."""


class Halves(NamedTuple):
    """A generator before and after its w [B L D]; style mixing is in the first."""

    map: Callable[[Variables, Float[Array, "B Z"], Label, Keys], Float[Array, "B L D"]]
    synthesize: Callable[[Variables, Float[Array, "B L D"], Keys], Examples]


class Game(NamedTuple):
    """The two nets as functions of their variables, on one device.

    `read` takes real examples and labels out of a batch; `generate` draws as in training. `halves` are needed for path
    lengths only. `track_generator` and `track_discriminator` give, of the variables before a step that sees
    these latents or examples, the collections beside `params` as they are after it; means over the devices are kept.
    """

    read: Callable[[Batch], tuple[Examples, Label]]
    latents: Callable[[Keys], Float[Array, "B Z"]]
    generate: Callable[[Variables, Float[Array, "B Z"], Label, Keys], Examples]
    discriminate: Callable[[Variables, Examples, Label], Logits]
    halves: Halves | None = None
    track_generator: Callable[[Variables, Float[Array, "B Z"], Label], Variables] | None = None
    track_discriminator: Callable[[Variables, Examples, Label], Variables] | None = None


class PathLength(NamedTuple):
    """The generator's regulariser [Karras20, sec. 3.2], every `interval` steps on the `shrink`-th part of a batch;
    `decay` is the weight of new lengths in their running mean."""

    weight: float
    interval: int = 4
    decay: float = 0.01
    shrink: int = 2


class Rules(NamedTuple):
    """How the game is played.

    The discriminator takes `d_steps` steps on as many parts of the batch, then the generator one. `penalty` is added to
    the discriminator's loss where `penalty_interval` is 1; else it is a step of its own every so many, times the
    interval, for which the optimizer should be corrected [Karras20, app. B]. `ema_decay` maps the steps taken to the
    decay of the generator's average. Examples, real and drawn, are augmented with `Controller.probability`, which
    `control` moves by the mean sign of D(real) after every step. A run whose share of gradients that are no numbers,
    over the last 1,000 steps or so, passes `max_nan_share` is to stop.
    """

    loss: GanLoss
    generator_tx: optax.GradientTransformation
    discriminator_tx: optax.GradientTransformation
    ema_decay: Callable[[Shaped[Array, ""]], Scalar]
    d_steps: int = 1
    penalty: Penalty | None = None
    penalty_interval: int = 1
    path_length: PathLength | None = None
    augment: Augment | None = None
    control: Callable[[Controller, Float[Array, ""]], Controller] | None = None
    max_nan_share: float = 0.01


class Player(NamedTuple):
    """A net in training."""

    variables: Variables
    opt_state: PyTree


class GanState(NamedTuple):
    """Everything that training changes, as arrays only.

    `ema_params` are variables to draw with: the average of the generator's params, and its other collections as they
    are. `path_mean` is the running mean of the path lengths, `penalty` the discriminator's last penalty, `nan_share`
    the running share of gradients that were no numbers.
    """

    step: Shaped[Array, ""]
    generator: Player
    discriminator: Player
    ema_params: Variables
    path_mean: Float[Array, ""]
    penalty: Float[Array, ""]
    controller: Controller
    nan_share: Float[Array, ""]

    def __repr__(self) -> str:
        count = sum(leaf.size for leaf in jax.tree.leaves((self.generator.variables, self.discriminator.variables)))
        return f"GanState(step={self.step}, {count:,} parameters of both players)"


def make_init(
    init_variables: Callable[[PRNGKey], tuple[Variables, Variables]], rules: Rules, probability: Scalar = 0.0
) -> Callable[[PRNGKey], GanState]:
    """`init(key)`: the state at step 0 of a fresh generator and discriminator, augmented with this
    probability."""

    @jax.jit
    def init(key: PRNGKey) -> GanState:
        generator, discriminator = init_variables(key)
        return GanState(
            step=jnp.zeros((), jnp.int32),
            generator=Player(generator, rules.generator_tx.init(generator["params"])),
            discriminator=Player(discriminator, rules.discriminator_tx.init(discriminator["params"])),
            ema_params=jax.tree.map(jnp.array, generator),
            path_mean=jnp.zeros(()),
            penalty=jnp.zeros(()),
            controller=init_controller(probability),
            nan_share=jnp.zeros(()),
        )

    return init


def half_life(images: Scalar, ramp: Scalar, batch_size: int) -> Callable[[Shaped[Array, ""]], Float[Array, ""]]:
    """The decay of an average that forgets half of what is `images` images old, or `ramp` times the images seen where
    that is less (0: no ramp) [Karras20b]; a function of the steps taken. `images=0` averages nothing."""

    def decay(step):
        seen = step.astype(jnp.float32) * batch_size
        horizon = jnp.minimum(images, ramp * seen) if ramp else jnp.float32(images)
        return 0.5 ** (batch_size / jnp.maximum(horizon, 1e-8))

    return decay
