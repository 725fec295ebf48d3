"""diffusers' UnCLIPScheduler <-> a noise process and how it is sampled [Karlo]: ancestral steps on a grid that includes
both ends of the table."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from flaxgen.family.process import Process
from flaxgen.family.sampling import Sampling
from flaxgen.train.config import require
from flaxgen.weights import store
from flaxgen.weights.fields import read_fields

KIND = "UnCLIPScheduler"
DEFAULTS: Mapping[str, Any] = {
    "num_train_timesteps": 1000,
    "variance_type": "fixed_small_log",
    "clip_sample": True,
    "clip_sample_range": 1.0,
    "prediction_type": "epsilon",
    "beta_schedule": "squaredcos_cap_v2",
}
"""What a key that scheduler_config.json leaves out means."""
PREDICTIONS = {"epsilon": "eps", "sample": "x0"}
VARIANCES: Mapping[str, Literal["small", "learned"]] = {"fixed_small_log": "small", "learned_range": "learned"}
SUPPORTED = {
    "beta_schedule": ("squaredcos_cap_v2",),
    "prediction_type": tuple(PREDICTIONS),
    "variance_type": tuple(VARIANCES),
}
BATCH = 8
"""Nets of this size are not drawn from by the dozen."""


def read_scheduler(path: Path, steps: int, guidance: float) -> tuple[Process, Sampling]:
    """The process, and the sampling with the pipeline's own `steps` and `guidance`, which its files do not state.

    Raises:
        ValueError: naming the key or the value that is not known.
    """
    try:
        fields = read_fields(store.read_json(path), KIND, DEFAULTS, supported=SUPPORTED)
    except ValueError as error:
        raise ValueError(str(error).replace("config.json", str(path), 1)) from error
    timesteps, reach = fields["num_train_timesteps"], float(fields["clip_sample_range"])
    require(timesteps >= steps, f"{path}: num_train_timesteps={timesteps}: expected {steps} or more")
    require(reach > 0, f"{path}: clip_sample_range={reach}: expected a number above 0")
    process = Process(schedule="cosine", timesteps=timesteps, prediction=PREDICTIONS[fields["prediction_type"]])
    sampling = Sampling(
        sampler="ddpm",
        steps=steps,
        grid="linspace",
        threshold="clip" if fields["clip_sample"] else "none",
        limit=reach,
        guidance=guidance,
        variance=VARIANCES[fields["variance_type"]],
        batch=BATCH,
    )
    return process, sampling


def check_variance(path: Path, sampling: Sampling, learned: bool) -> None:
    """Raises ValueError unless the net puts out what the scheduler reads."""
    said = "learned_range" if sampling.variance == "learned" else "fixed_small_log"
    require(
        (sampling.variance == "learned") == learned,
        f"{path}: variance_type={said!r} of a net with{'' if learned else 'out'} a learned variance",
    )


def scheduler_config(stage: str, process: Process, sampling: Sampling, learned: bool) -> dict[str, Any]:
    """The scheduler_config.json; steps, guidance and sampler have no place there.

    Raises:
        ValueError: naming the value that an UnCLIPScheduler does not have.
    """
    plain = {"schedule": ("cosine",), "prediction": tuple(PREDICTIONS.values()), "zero_terminal_snr": (False,)}
    for field, known in (plain | {"shift": (1,)}).items():
        value = getattr(process, field)
        require(value in known, f"{stage}: process.{field}={value!r} is not an {KIND}'s, only "
                f"{' or '.join(map(repr, known))}: not exported")  # fmt: skip
    require(process.timesteps > 0, f"{stage}: process.timesteps=0 is continuous, an {KIND} has a table: not exported")
    require(
        sampling.threshold != "dynamic" and sampling.variance != "large",
        f"{stage}: sampling.threshold={sampling.threshold} with sampling.variance={sampling.variance} is not an "
        f"{KIND}'s: set clip or none, and small or learned, to export it",
    )
    return {
        **DEFAULTS,
        "_class_name": KIND,
        "num_train_timesteps": process.timesteps,
        "variance_type": "learned_range" if learned else "fixed_small_log",
        "clip_sample": sampling.threshold == "clip",
        "clip_sample_range": float(sampling.limit),
        "prediction_type": {ours: theirs for theirs, ours in PREDICTIONS.items()}[process.prediction],
    }
