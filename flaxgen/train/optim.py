"""Optimizers, learning-rate schedules and the moving average, from plain values to optax."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from flaxgen.train.config import require
from flaxgen.types import Params

GAINS = ("scale", "logit_scale")
"""Names of parameters that multiply; those of biases hold the word."""
FIXED = ("place_table",)
"""Names of parameters that come with the weights and are not trained."""


@dataclass(frozen=True)
class Optimizer:
    """Adam and its kin. `clip` is the largest global norm of the gradient (0: none); `warmup` counts steps of linear
    warm-up, after which `decay` runs over the rest of the run down to zero. `weight_decay` is that of adamw and lion,
    for weights that are neither gains nor biases."""

    name: Literal["adam", "adamw", "lion", "sgd"] = "adam"
    learning_rate: float = 2e-4
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    clip: float = 1.0
    warmup: int = 0
    decay: Literal["constant", "cosine", "linear"] = "constant"

    def __post_init__(self):
        require(self.learning_rate > 0, f"learning_rate={self.learning_rate}: expected a number above 0")
        require(0 <= self.beta1 < 1, f"beta1={self.beta1}: expected a number in [0, 1)")
        require(0 <= self.beta2 < 1, f"beta2={self.beta2}: expected a number in [0, 1)")
        require(self.weight_decay >= 0, f"weight_decay={self.weight_decay}: expected 0 or more")
        require(self.clip >= 0, f"clip={self.clip}: expected 0 (no clipping) or more")
        require(self.warmup >= 0, f"warmup={self.warmup}: expected 0 or more steps")


@dataclass(frozen=True)
class Ema:
    """Moving average of the parameters; the decay ramps up as (1 + n) / (10 + n), so that early averages forget the
    initialisation [Ho20, their code]."""

    decay: float = 0.9999
    ramp: bool = True

    def __post_init__(self):
        require(0 <= self.decay < 1, f"decay={self.decay}: expected a number in [0, 1)")


def make_learning_rate(config: Optimizer, steps: int) -> optax.Schedule:
    """The learning rate at each step of a run of `steps`."""
    rest = max(steps - config.warmup, 1)
    decays = {
        "constant": lambda: optax.constant_schedule(config.learning_rate),
        "cosine": lambda: optax.cosine_decay_schedule(config.learning_rate, rest),
        "linear": lambda: optax.linear_schedule(config.learning_rate, 0.0, rest),
    }
    warmup = optax.linear_schedule(0.0, config.learning_rate, config.warmup)
    decay = decays[config.decay]()
    # The first step already moves: step k of the warm-up has rate (k + 1) / warmup.
    return decay if config.warmup == 0 else optax.join_schedules([lambda n: warmup(n + 1), decay], [config.warmup])


def make_optimizer(config: Optimizer, steps: int) -> optax.GradientTransformation:
    """Clipping, then the named optimizer."""
    rate = make_learning_rate(config, steps)
    b1, b2 = config.beta1, config.beta2
    makers = {
        "adam": lambda: optax.adam(rate, b1, b2, eps=config.epsilon),
        "adamw": lambda: _decaying(optax.scale_by_adam(b1, b2, eps=config.epsilon), config.weight_decay, rate),
        "lion": lambda: _decaying(optax.scale_by_lion(b1, b2), config.weight_decay, rate),
        "sgd": lambda: optax.sgd(rate, momentum=config.beta1),
    }
    clip = optax.clip_by_global_norm(config.clip) if config.clip else optax.identity()
    return optax.chain(clip, makers[config.name]())


def is_decayed(name: str, value: Any) -> bool:
    """Whether weight decay is for the parameter of this name: for those with two axes or more that are neither gain nor
    bias [Radford21, sec. 2.5], nor fixed. Embeddings of tokens and positions are weights, as in OpenAI's CLIP and
    OpenCLIP.

    Axes alone do not tell: a stack of layers gives every gain one more.
    """
    return jnp.ndim(value) >= 2 and name not in GAINS + FIXED and "bias" not in name


def _decaying(direction: optax.GradientTransformation, decay: float, rate: optax.Schedule):
    """optax.adamw or lion with decay for some; optax's own mask would change the state, which older runs have saved."""

    def add_decay(updates: Params, params: Params | None) -> Params:
        def add(path, update, value):
            name = str(getattr(path[-1], "key", "")) if path else ""
            return update + decay * value if is_decayed(name, value) else update

        return jax.tree_util.tree_map_with_path(add, updates, params)

    return optax.chain(direction, optax.stateless(add_decay), optax.scale_by_learning_rate(rate))


def make_ema_decay(config: Ema) -> Callable[[Array], Float[Array, ""]]:
    """Decay of the moving average as a function of the step."""

    def decay(step):
        n = step.astype(jnp.float32)
        return jnp.minimum(config.decay, (1 + n) / (10 + n)) if config.ramp else jnp.float32(config.decay)

    return decay
