"""diffusers' schedulers <-> a noise process and how it is sampled. What a scheduler says and flaxgen has no counterpart
of is named on stderr; what would be another process is refused."""

import math
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from flaxgen.diffusion.times import ENDLESS
from flaxgen.family.process import Process, make_schedule
from flaxgen.family.sampling import UNBOUNDED, Sampling
from flaxgen.train.config import require
from flaxgen.weights.fields import Table
from flaxgen.weights.scheduler_config import CLEAN_END, TABLES, ZERO_SNR, table_of, unknown_keys

WHERE = "scheduler_config.json"
TABLED = {"leading": "leading", "trailing": "trailing", "linspace": "linspace"}
OPEN = {"leading": "leading_open", "trailing": "trailing", "linspace": "linspace_open"}
EXACT = {"leading": "leading", "trailing": "trailing", "linspace": "linspace_exact"}
DPM: Mapping[tuple[str, int], str] = {
    ("dpmsolver++", 2): "dpmpp_2m",
    ("dpmsolver++", 1): "ddim",
    ("dpmsolver++", 3): "dpmpp_3m",
    ("sde-dpmsolver++", 1): "euler_ancestral",
    ("sde-dpmsolver++", 2): "dpmpp_2m_sde",
}
"""The sampler of (algorithm_type, solver_order); those of order one have other names here."""
SIGMA_KEYS = {"use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas"}
NO_SIGMAS = {"use_exponential_sigmas": (False, None), "use_beta_sigmas": (False, None)}
NO_FLOW = {"flow_shift": (1.0,), "use_dynamic_shifting": (False,)}
NO_RANGE = {"sigma_min": (None,), "sigma_max": (None,)}


class Scheduler(NamedTuple):
    """How a class samples: its sampler, the grid here of each timestep_spacing, and of keys of one kind more the
    values that mean what flaxgen does. Spacings in `karras` are those whose Karras sigmas span the whole table."""

    sampler: str
    grids: Mapping[str, str]
    known: Mapping[str, tuple[Any, ...]] = {}
    karras: tuple[str, ...] = ()


SCHEDULERS = {
    "DDPMScheduler": Scheduler("ddpm", TABLED),
    "DDIMScheduler": Scheduler("ddim", TABLED),
    "PNDMScheduler": Scheduler("plms", TABLED, {"skip_prk_steps": (True,)}),
    "DPMSolverMultistepScheduler": Scheduler(
        "dpmpp_2m",
        OPEN,
        {
            **NO_SIGMAS,
            **NO_FLOW,
            "solver_type": ("midpoint", "logrho", "bh1", "bh2"),  # the class takes the others for midpoint
            "euler_at_final": (False,),
            "use_lu_lambdas": (False, None),
            "lambda_min_clipped": (-math.inf,),
        },
        tuple(OPEN),
    ),
    "UniPCMultistepScheduler": Scheduler(
        "unipc",
        OPEN,
        {
            **NO_SIGMAS,
            **NO_FLOW,
            **NO_RANGE,
            "final_sigmas_type": ("zero",),  # another one has a last step of order one there
            "solver_order": (2,),
            "solver_type": ("bh2", "midpoint", "heun", "logrho"),  # the class takes the others for bh2
            "predict_x0": (True,),
            "disable_corrector": ([],),
            "solver_p": (None,),
            "shift_terminal": (None,),
        },
        tuple(OPEN),
    ),
    "EulerDiscreteScheduler": Scheduler(
        "euler", EXACT, {**NO_SIGMAS, **NO_RANGE, "interpolation_type": ("linear",)}, ("linspace",)
    ),
    "EulerAncestralDiscreteScheduler": Scheduler("euler_ancestral", EXACT),
    "LCMScheduler": Scheduler(
        "lcm",
        {"linspace": "lcm", "trailing": "lcm", "leading": "lcm"},
        {"original_inference_steps": (50,), "timestep_scaling": (10.0,)},
    ),
    "HeunDiscreteScheduler": Scheduler("heun", EXACT, NO_SIGMAS, ("linspace",)),
}


def process_of(scheduler: Mapping[str, Any]) -> Process:
    """The noise process that a scheduler_config.json describes.

    Raises:
        ValueError: naming the value that flaxgen does not know.
    """
    given = table_of(scheduler).read(scheduler, WHERE)
    timesteps = given["timesteps"]
    return Process(
        schedule=given["schedule"],
        timesteps=timesteps,
        # Theirs are the betas of the table, ours those of 1000 steps of the same process.
        beta_start=given["beta_start"] * timesteps / 1000,
        beta_end=given["beta_end"] * timesteps / 1000,
        zero_terminal_snr=given.get("zero_terminal_snr", False),
        prediction=given["prediction"],
    )


def sampling_of(scheduler: Mapping[str, Any], learned_variance: bool) -> Sampling:
    """How the scheduler samples. Steps are flaxgen's default, and of a DDPMScheduler all of the table, as in its
    pipeline. One line on stderr names what is not taken.

    Raises:
        ValueError: naming the value that flaxgen does not know.
    """
    table = table_of(scheduler)
    known, given = SCHEDULERS[table.name], table.read(scheduler, WHERE)
    variance = given.get("variance", "small")
    require(
        learned_variance or variance != "learned",
        "scheduler variance_type='learned_range' of a net without a learned variance: expected fixed_small or _large",
    )
    odd = {key: given[key] for key, values in known.known.items() if given[key] not in values}
    odd |= unknown_keys(table, scheduler)
    if table.name == "PNDMScheduler" and given["prediction"] != "eps":
        odd["prediction_type"] = f"{scheduler['prediction_type']} in the history, which is of noise here"
    sampler = known.sampler
    if table.name == "DPMSolverMultistepScheduler":
        chosen = (given["algorithm_type"], given["solver_order"])
        sampler = DPM.get(chosen, sampler)
        odd |= {} if chosen in DPM else {"algorithm_type": chosen[0], "solver_order": chosen[1]}
    grid = _grid_of(known, given, process_of(scheduler), odd)
    offset = given["steps_offset"] if grid.startswith("leading") else 0
    is_noisy = given.get("final_sigmas_type") == "sigma_min" and "final_sigmas_type" not in odd
    shape = _threshold_of(given)
    sampling = Sampling(
        sampler=sampler,
        steps=given["timesteps"] - offset if sampler == "ddpm" else Sampling.steps,
        grid=grid,
        offset=offset,
        final="first" if is_noisy or not given.get(CLEAN_END, True) else "zero",
        variance="learned" if learned_variance else variance,
        noise="predicted" if table.name == "DDIMScheduler" and shape["threshold"] != "none" else "clipped",
        **shape,
    )
    if odd:
        said = ", ".join(f"{key}={value!r}" for key, value in odd.items())
        print(f"scheduler {said} of {table.name} has no counterpart and is not taken: sampling.sampler={sampler}, "
              f"sampling.grid={grid}", file=sys.stderr)  # fmt: skip
    return sampling


def _grid_of(known: Scheduler, given: Mapping[str, Any], process: Process, odd: dict[str, Any]) -> str:
    """The grid; where there is none, the default one, and the key is put among the `odd`."""
    spacing = given["timestep_spacing"]
    if given.get("use_karras_sigmas"):
        alpha, sigma = make_schedule(process)(1.0)
        if spacing in known.karras and sigma < ENDLESS * alpha:
            return "karras"
        odd["use_karras_sigmas"] = True
    elif spacing not in known.grids:
        odd["timestep_spacing"] = spacing
    elif not SIGMA_KEYS & odd.keys():
        return known.grids[spacing]
    return Sampling.grid


def _threshold_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `Sampling` about predictions out of range. A class without the keys does nothing to them."""
    if given.get("thresholding"):
        largest, ratio = given["sample_max_value"], given["dynamic_thresholding_ratio"]
        require(largest >= 1, f"scheduler sample_max_value={largest!r} with thresholding: expected 1 or more")
        require(0 <= ratio <= 1, f"scheduler dynamic_thresholding_ratio={ratio!r}: expected a share in [0, 1]")
        if largest == 1:
            return {"threshold": "clip"}
        return {"threshold": "dynamic", "quantile": ratio, "largest": min(largest, UNBOUNDED)}
    if given.get("clip_sample"):
        return {"threshold": "clip", "limit": given["clip_sample_range"]}
    return {"threshold": "none"}


def scheduler_config(process: Process, sampling: Sampling, learned_variance: bool) -> dict[str, Any]:
    """The scheduler_config.json of the class that samples so. One line on stderr names what it has no key for.

    Raises:
        ValueError: if diffusers has no such process.
    """
    require(process.timesteps > 0 and process.shift == 1, "diffusers knows tables only, without shift")
    table = _table_for(process, sampling, learned_variance)
    ours = {field.ours for field in table.fields}
    values: dict[str, Any] = {
        "timesteps": process.timesteps,
        "beta_start": process.beta_start * 1000 / process.timesteps,
        "beta_end": process.beta_end * 1000 / process.timesteps,
        "schedule": process.schedule,
        "prediction": process.prediction,
        **({ZERO_SNR.ours: process.zero_terminal_snr} if ZERO_SNR.ours in ours else {}),
        **_solver_of(table, sampling, learned_variance),
    }
    missing = _said_in_calls(table, sampling)
    for write in (_write_grid, _write_final, _write_threshold):
        values |= write(table, sampling, missing)
    if missing:
        said = ", ".join(f"sampling.{name}={value}" for name, value in missing.items())
        print(f"{said} has no place in the scheduler_config.json of a {table.name}: not exported", file=sys.stderr)
    return table.write(values)


def _table_for(process: Process, sampling: Sampling, learned_variance: bool) -> Table:
    """The class of the sampler; DDPMScheduler where that one cannot read such a net."""
    classes = {known.sampler: name for name, known in SCHEDULERS.items()}
    solvers = {sampler for sampler in DPM.values() if sampler not in classes}
    name = "DPMSolverMultistepScheduler" if sampling.sampler in solvers else classes[sampling.sampler]
    keys = {field.ours for field in TABLES[name].fields}
    fits = (not learned_variance or "variance" in keys) and (not process.zero_terminal_snr or ZERO_SNR.ours in keys)
    return TABLES[name if fits else "DDPMScheduler"]


def _solver_of(table: Table, sampling: Sampling, learned_variance: bool) -> dict[str, Any]:
    """What a class that is several samplers has to be told."""
    if table.name == "DDPMScheduler":
        return {"variance": "learned" if learned_variance else sampling.variance}
    if table.name == "PNDMScheduler":
        return {"skip_prk_steps": True}
    if table.name != "DPMSolverMultistepScheduler":
        return {}
    (algorithm, order), *_ = (chosen for chosen, name in DPM.items() if name == sampling.sampler)
    variance = "learned" if learned_variance else "small"
    return {"algorithm_type": algorithm, "solver_order": order, "variance": variance}


def _said_in_calls(table: Table, sampling: Sampling) -> dict[str, Any]:
    """What diffusers is told when it samples, or not at all where another class stands in."""
    sampler, said = sampling.sampler, {}
    if table.name == "DDPMScheduler" and sampler != "ddpm":
        return {"sampler": sampler}
    if sampler == "ddim" and sampling.eta:
        said["eta"] = sampling.eta
    if sampler == "ddim" and sampling.threshold != "none" and sampling.noise == "clipped":
        said["noise"] = "clipped (use_clipped_model_output=True of its step)"
    if sampler in ("euler", "heun") and sampling.churn:
        said["churn"] = sampling.churn
    return said


def _write_grid(table: Table, sampling: Sampling, missing: dict[str, Any]) -> dict[str, Any]:
    known = SCHEDULERS[table.name]
    spacings = {grid: spacing for spacing, grid in known.grids.items()}
    if sampling.grid == "karras" and known.karras:
        return {"use_karras_sigmas": True, "timestep_spacing": "linspace"}
    if sampling.grid not in spacings:
        return _left_out(missing, grid=sampling.grid)
    spacing = spacings[sampling.grid]
    if spacing == "leading":
        return {"timestep_spacing": spacing, "steps_offset": sampling.offset}
    return {"timestep_spacing": spacing, **(_left_out(missing, offset=sampling.offset) if sampling.offset else {})}


def _write_final(table: Table, sampling: Sampling, missing: dict[str, Any]) -> dict[str, Any]:
    keys, is_clean = {field.ours for field in table.fields}, sampling.final == "zero"
    if CLEAN_END in keys:
        return {CLEAN_END: is_clean}
    if "final_sigmas_type" in keys - SCHEDULERS[table.name].known.keys():
        return {"final_sigmas_type": "zero" if is_clean else "sigma_min"}
    return {} if is_clean else _left_out(missing, final=sampling.final)


def _write_threshold(table: Table, sampling: Sampling, missing: dict[str, Any]) -> dict[str, Any]:
    """A class without `clip_sample` clips by thresholding up to 1, and so within 1 alone."""
    keys, kind = {field.key for field in table.fields}, sampling.threshold
    off = {"clip_sample": False} if "clip_sample" in keys else {}
    if kind == "dynamic" and "thresholding" in keys:
        ratio = {"dynamic_thresholding_ratio": sampling.quantile, "sample_max_value": sampling.largest}
        return {"thresholding": True, **ratio}
    if kind == "clip" and off:
        return {"clip_sample": True, "clip_sample_range": sampling.limit}
    if kind == "clip" and sampling.limit == 1 and "thresholding" in keys:
        return {"thresholding": True, "sample_max_value": 1.0}
    return off if kind == "none" else off | _left_out(missing, threshold=kind)


def _left_out(missing: dict[str, Any], **fields: Any) -> dict[str, Any]:
    missing |= fields
    return {}
