"""diffusers' UnCLIPScheduler <-> a noise process and how it is sampled [Karlo]: ancestral steps on a grid that includes
both ends of the table."""

from pathlib import Path
from typing import Any

from flaxgen.family.process import Process
from flaxgen.family.sampling import Sampling
from flaxgen.train.config import require
from flaxgen.weights import store
from flaxgen.weights.scheduler_config import UNCLIP

BATCH = 8
"""Nets of this size are not drawn from by the dozen."""


def read_scheduler(path: Path, steps: int, guidance: float) -> tuple[Process, Sampling]:
    """The process, and the sampling with the pipeline's own `steps` and `guidance`, which its files do not state.

    Raises:
        ValueError: naming the key or the value that is not known.
    """
    fields = UNCLIP.read(store.read_json(path), str(path))
    timesteps = fields["timesteps"]
    require(timesteps >= steps, f"{path}: num_train_timesteps={timesteps}: expected {steps} or more")
    process = Process(schedule=fields["schedule"], timesteps=timesteps, prediction=fields["prediction"])
    sampling = Sampling(
        sampler="ddpm",
        steps=steps,
        grid="linspace",
        threshold="clip" if fields["clip_sample"] else "none",
        limit=fields["limit"],
        guidance=guidance,
        variance=fields["variance"],
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
    known = {"schedule": ("cosine",), "prediction": ("eps", "x0"), "zero_terminal_snr": (False,), "shift": (1,)}
    for field, values in known.items():
        value = getattr(process, field)
        require(value in values, f"{stage}: process.{field}={value!r} is not an {UNCLIP.name}'s, only "
                f"{' or '.join(map(repr, values))}: not exported")  # fmt: skip
    require(
        process.timesteps > 0,
        f"{stage}: process.timesteps=0 is continuous, an {UNCLIP.name} has a table: not exported",
    )
    require(
        sampling.threshold != "dynamic" and sampling.variance != "large",
        f"{stage}: sampling.threshold={sampling.threshold} with sampling.variance={sampling.variance} is not an "
        f"{UNCLIP.name}'s: set clip or none, and small or learned, to export it",
    )
    return UNCLIP.write(
        {
            "timesteps": process.timesteps,
            "schedule": process.schedule,
            "prediction": process.prediction,
            "variance": "learned" if learned else "small",
            "clip_sample": sampling.threshold == "clip",
            "limit": float(sampling.limit),
        }
    )
