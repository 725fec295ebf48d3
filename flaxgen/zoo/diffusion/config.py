"""What a diffusion run is, as plain values, and what follows from them: shapes, fields, conditions."""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp

from flaxgen.data import Data
from flaxgen.diffusion import weighting
from flaxgen.nets.attention import ATTENTIONS
from flaxgen.nets.mlp import MLP
from flaxgen.nets.unet import UNet
from flaxgen.train.config import require
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.train.run import Run
from flaxgen.types import Condition
from flaxgen.zoo.diffusion.drawing import Sampling
from flaxgen.zoo.evaluation import Periodic, check_every
from flaxgen.zoo.process import Process, choose


@dataclass(frozen=True)
class Objective:
    """What is minimised: the weighted square error ("mse") or, in table time, "hybrid" (with a learned variance) or
    "variational". `times` says which times are trained on. `condition_dropout` is the share of examples whose label is
    hidden, for classifier-free guidance; the last row of the net's label table then stands for "no label"."""

    loss: Literal["mse", "hybrid", "variational"] = "mse"
    weight: str = "simple"
    times: str = "table"
    condition_dropout: float = 0.0

    def __post_init__(self):
        choose("weight", self.weight, weighting.WEIGHTS)
        choose("times", self.times, weighting.TIME_SAMPLING)
        require(
            0 <= self.condition_dropout < 1, f"condition_dropout={self.condition_dropout}: expected a share in [0, 1)"
        )


@dataclass(frozen=True)
class Config(Run):
    """A diffusion run. `accumulate` splits each batch into that many parts, one after the other. Every `evaluate_every`
    steps (0: never), and after the last, the averaged weights are measured as `evaluation` says."""

    data: Data
    net: UNet | MLP = UNet()
    process: Process = Process()
    objective: Objective = Objective()
    optimizer: Optimizer = Optimizer()
    ema: Ema = Ema()
    accumulate: int = 1
    sampling: Sampling = Sampling()
    evaluate_every: int = 0
    evaluation: Periodic = Periodic()

    def __post_init__(self):
        super().__post_init__()
        require(
            self.accumulate >= 1 and self.batch_size % self.accumulate == 0,
            f"accumulate={self.accumulate}: expected a divisor of batch_size={self.batch_size}",
        )
        check_every(self.evaluate_every, isinstance(self.net, UNet))
        _check_objective(self)


TYPES = {"Diffusion": Config} | {
    kind.__name__: kind
    for kind in (Data, UNet, *ATTENTIONS, MLP, Process, Objective, Optimizer, Ema, Sampling, Periodic)
}
"""All that may appear in such a config.json."""


def _check_objective(config: Config) -> None:
    loss, times, learned = config.objective.loss, config.objective.times, config.net.learned_variance
    require(
        loss == "variational" or learned == (loss == "hybrid"),
        f"objective.loss={loss} with net.learned_variance={learned}: hybrid needs one, mse cannot train it",
    )
    require(
        config.process.timesteps > 0 or (loss == "mse" and times != "table"),
        f"objective.loss={loss} with objective.times={times} needs a table, and process.timesteps=0 is continuous: "
        "set objective.loss=mse and objective.times=uniform, log_normal or logit_normal",
    )
    require(
        not config.objective.condition_dropout or config.net.num_classes > 1,
        f"objective.condition_dropout={config.objective.condition_dropout} hides labels, and this net has none: set "
        "net.num_classes to the number of classes and one more",
    )


def example_shape(config: Config) -> tuple[int, ...]:
    """[H W C] of an image, [D] of a point."""
    net = config.net
    return (net.image_size, net.image_size, net.in_channels) if isinstance(net, UNet) else (net.features,)


def batch_fields(config: Config) -> tuple[str, ...]:
    """Which fields of an example are trained on: what is drawn first, then the condition."""
    data = "image" if isinstance(config.net, UNet) else "point"
    return (data, "label") if config.net.num_classes else (data,)


def batch_spec(config: Config) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of a batch as the loader gives it."""
    shape = example_shape(config)
    kinds = {"image": (shape, jnp.uint8), "point": (shape, jnp.float32), "label": ((), jnp.int32)}
    return {
        field: jax.ShapeDtypeStruct((config.batch_size, *kinds[field][0]), kinds[field][1])
        for field in batch_fields(config)
    }


def null_condition(config: Config) -> Condition | None:
    """The condition that says nothing: the last row of the label table, where the model was trained to know it."""
    if not config.objective.condition_dropout:
        return None
    return {"label": jnp.asarray([config.net.num_classes - 1], jnp.int32)}


def num_labels(config: Config) -> int:
    """How many labels stand for a class."""
    return config.net.num_classes - bool(config.objective.condition_dropout)
