"""What every denoising model shares: the objective it is trained by, its net as a function, its denoiser."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from flax import linen as nn
from jaxtyping import Array

from flaxgen.diffusion import losses, weighting
from flaxgen.diffusion.denoise import make_bind
from flaxgen.family.process import Process, choose, make_prediction, make_schedule, make_time_input
from flaxgen.train.config import require
from flaxgen.types import Bind, Condition, Loss, Params, PRNGKey


@dataclass(frozen=True)
class Objective:
    """What is minimised: the weighted square error ("mse") or, in table time, "hybrid" (with a learned variance) or
    "variational". `times` says which times are trained on. `weight` and other times than the table's are those of
    "mse": the bound has weights of its own, and its estimate takes times that are uniform over the table.
    `condition_dropout` is the share of examples whose condition is hidden, for classifier-free guidance; the last row
    of a net's label table then stands for "no label". `offset_noise` is how much the noise of "mse" has of a constant
    for each channel, so that means are learned too: 0.1 for pictures much darker or brighter than most
    [Guttenberg23]. `shift` multiplies the sigma / alpha of the times of straight paths, for larger pictures
    [Esser24, eq. 23]."""

    loss: Literal["mse", "hybrid", "variational"] = "mse"
    weight: str = "simple"
    times: str = "table"
    condition_dropout: float = 0.0
    offset_noise: float = 0.0
    shift: float = 1.0

    def __post_init__(self):
        choose("weight", self.weight, weighting.WEIGHTS)
        choose("times", self.times, weighting.TIME_SAMPLING)
        require(
            0 <= self.condition_dropout < 1, f"condition_dropout={self.condition_dropout}: expected a share in [0, 1)"
        )
        require(self.offset_noise >= 0, f"offset_noise={self.offset_noise}: expected 0 (none) or more")
        require(self.shift > 0, f"shift={self.shift}: expected a factor above 0, 1 for none")


def check_objective(objective: Objective, process: Process, learned_variance: bool, net: str = "net") -> None:
    """Raises ValueError unless the loss is for such a process and for a net with or without a learned variance."""
    loss, times = objective.loss, objective.times
    require(
        loss == "variational" or learned_variance == (loss == "hybrid"),
        f"objective.loss={loss} with {net}.learned_variance={learned_variance}: hybrid needs one, mse cannot train it",
    )
    require(
        process.timesteps > 0 or (loss == "mse" and times != "table"),
        f"objective.loss={loss} with objective.times={times} needs a table, and process.timesteps=0 is continuous: "
        "set objective.loss=mse and objective.times=uniform, log_normal or logit_normal",
    )
    require(
        objective.shift == 1
        or (process.schedule == "rectified_flow" and process.shift == 1 and process.timesteps == 0),
        f"objective.shift={objective.shift} moves times of straight paths: set process.schedule=rectified_flow, "
        "process.timesteps=0 and process.shift=1, or objective.shift=1",
    )


def check_time_embedding(time_embedding: str, process: Process, net: str = "net") -> None:
    """Raises ValueError where a net would take the logarithm of a time that is not above 0."""
    if time_embedding == "fourier":
        told = {"edm": "the prediction edm tells it log(sigma) / 4, of any sign"}.get(
            process.prediction, f"a table of process.timesteps={process.timesteps} tells it indices from 0 on"
        )
        require(
            process.timesteps == 0 and process.prediction != "edm",
            f"{net}.time_embedding=fourier takes the logarithm of the time, and {told}: set {net}.time_embedding="
            "sinusoidal, or process.timesteps=0 with another prediction than edm",
        )


def check_bound(objective: Objective) -> None:
    """Raises ValueError where a bound is to be minimised with weights, times or noise that it does not take. Asked of
    what is trained, not of what is loaded: models of older runs with such an objective can be drawn from."""
    for field, only in (("weight", "simple"), ("times", "table"), ("offset_noise", 0.0)):
        value = getattr(objective, field)
        require(
            objective.loss == "mse" or value == only,
            f"objective.{field}={value} with objective.loss={objective.loss}: its terms are weighted as the bound says "
            f"and drawn from the table alike, of white noise: set objective.{field}={only}, or objective.loss=mse",
        )


def make_apply(net: nn.Module, read: Callable[[Condition], Mapping[str, Any]] = dict) -> losses.Apply:
    """The net as a function (params, x, time, condition, dropout_key) -> output; with a key it trains, and drops out.

    `read` makes of a condition the net's keywords.
    """

    def apply(params: Params, x, time, condition: Condition, dropout_key: PRNGKey | None) -> Array:
        rngs = {} if dropout_key is None else {"dropout": dropout_key}
        train = dropout_key is not None
        return cast(Array, net.apply({"params": params}, x, time, **read(condition), train=train, rngs=rngs))

    return apply


def make_denoising_loss(
    process: Process, objective: Objective, learned_variance: bool, apply: losses.Apply, inputs: losses.Inputs
) -> Loss:
    """The loss that process and objective name, of a net and of what it reads.

    Raises:
        ValueError: if a bound is to be minimised with weights or times of another loss.
    """
    check_bound(objective)
    schedule, prediction = make_schedule(process), make_prediction(process)
    variance = "learned" if learned_variance else "large"
    weights = {**weighting.WEIGHTS, "edm": weighting.edm(process.sigma_data)}
    objectives = {
        "mse": lambda: losses.weighted_mse(prediction, weights[objective.weight]),
        "hybrid": lambda: losses.hybrid(schedule, prediction, process.timesteps),
        "variational": lambda: losses.variational(schedule, prediction, process.timesteps, variance),
    }
    sample_time = weighting.TIME_SAMPLING[objective.times](schedule, process.timesteps)
    return losses.per_example(
        losses.denoising_loss(
            apply,
            schedule,
            prediction,
            make_time_input(process),
            sample_time=sample_time if objective.shift == 1 else weighting.shifted(sample_time, objective.shift),
            objective=objectives[objective.loss](),
            inputs=inputs,
            offset=objective.offset_noise,
        )
    )


def make_net_bind(process: Process, learned_variance: bool, apply: losses.Apply) -> Callable[[Params], Bind]:
    """From parameters to a denoiser that waits for its condition."""
    schedule, prediction, time_input = make_schedule(process), make_prediction(process), make_time_input(process)

    def bind(params: Params) -> Bind:
        def net(x, time, condition):
            return apply(params, x, time, condition, None)

        return make_bind(net, schedule, prediction, time_input, learned_variance=learned_variance)

    return bind
