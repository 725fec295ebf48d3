"""A classifier of noisy images, trained to guide a diffusion model of the same noise process [Dhariwal21, sec. 4]."""

import functools
from dataclasses import dataclass
from typing import cast

import jax
import jax.numpy as jnp
from jaxtyping import Array

from flaxgen import parallel
from flaxgen.data import Data
from flaxgen.diffusion import losses, weighting
from flaxgen.diffusion.guidance import label_log_prob
from flaxgen.nets.classifier import NoisyClassifier
from flaxgen.train import optim, state
from flaxgen.train.config import require
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.train.run import Run
from flaxgen.types import Condition, Experiment, Loss, Params, PRNGKey
from flaxgen.zoo.matching import open_matching
from flaxgen.zoo.process import Process, choose, make_schedule, make_time_input


@dataclass(frozen=True)
class Config(Run):
    """A classifier run. `process` has to be that of the model it will guide."""

    data: Data
    net: NoisyClassifier = NoisyClassifier(num_classes=10)
    process: Process = Process()
    times: str = "table"
    optimizer: Optimizer = Optimizer(name="adamw", weight_decay=0.05)
    ema: Ema = Ema()

    def __post_init__(self):
        super().__post_init__()
        choose("times", self.times, weighting.TIME_SAMPLING)
        require(self.process.timesteps > 0 or self.times != "table", "times=table needs process.timesteps above 0")


TYPES = {"Classifier": Config} | {t.__name__: t for t in (Data, NoisyClassifier, Process, Optimizer, Ema)}
"""All that may appear in such a config.json."""


@dataclass(frozen=True)
class Model:
    """A trained classifier; `flaxgen.zoo.diffusion.Model.sample` takes one as its guide."""

    config: Config
    params: Params
    step: int
    plan: parallel.Plan


def image_shape(config: Config) -> tuple[int, int, int]:
    """[H W C] of what is classified."""
    return (config.net.image_size, config.net.image_size, config.net.in_channels)


def batch_spec(config: Config) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of a batch as the loader gives it."""
    size = config.batch_size
    return {
        "image": jax.ShapeDtypeStruct((size, *image_shape(config)), jnp.uint8),
        "label": jax.ShapeDtypeStruct((size,), jnp.int32),
    }


def apply_net(config: Config, params: Params, x, time, condition: Condition, dropout_key: PRNGKey | None) -> Array:
    """Logits; with a key it trains, and drops out."""
    rngs = {} if dropout_key is None else {"dropout": dropout_key}
    return cast(Array, config.net.apply({"params": params}, x, time, train=dropout_key is not None, rngs=rngs))


def init_params(config: Config, key: PRNGKey) -> Params:
    """Fresh parameters."""
    return config.net.init(key, jnp.zeros((1, *image_shape(config))), jnp.zeros(1))["params"]


def make_loss(config: Config) -> Loss:
    """Cross-entropy of the label of a noised image."""
    schedule = make_schedule(config.process)
    return losses.per_example(
        losses.classification_loss(
            functools.partial(apply_net, config),
            schedule,
            make_time_input(config.process),
            sample_time=weighting.TIME_SAMPLING[config.times](schedule, config.process.timesteps),
            inputs=losses.read_batch("image", ["label"]),
        )
    )


def make_training(config: Config):
    """`init(key)` and `make_step(axis_name)` of the run."""
    return state.make_training(
        functools.partial(init_params, config),
        make_loss(config),
        optim.make_optimizer(config.optimizer, config.steps),
        ema_decay=optim.make_ema_decay(config.ema),
    )


def build(config: Config) -> Experiment:
    """The run.

    Raises:
        ValueError: if the data cannot be read, has no labels, or does not fit the net.
    """
    init, make_step = make_training(config)
    jax.eval_shape(init, jax.random.key(0))
    shapes = {"image": image_shape(config), "label": ()}
    return Experiment(init, make_step, open_matching(config.data, shapes, config.net.num_classes), tuple(shapes))


def make_log_prob(config: Config):
    """`log_prob(params, {"label": [B]})` is (x, t) -> log p(label | x_t) [B], for classifier guidance."""
    schedule, time_input = make_schedule(config.process), make_time_input(config.process)

    def log_prob(params: Params, target: Condition):
        def net(x, time, condition):
            return apply_net(config, params, x, time, condition, None)

        return label_log_prob(net, schedule, time_input, target["label"])

    return log_prob
