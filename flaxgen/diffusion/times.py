"""Time grids: steps + 1 decreasing times that end at 0, as float32 on the host.

`timesteps` is the size of the table that the net was trained on, whose times k / timesteps the uniform and quadratic
grids keep to; 0 is continuous time.
"""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from flaxgen.diffusion.schedules import time_of
from flaxgen.types import Schedule

Times: TypeAlias = Float[np.ndarray, " N"]

SIGMA_MIN, SIGMA_MAX = 0.002, 80.0
"""The range of sigma / alpha in [Karras22], taken where a schedule itself has no end."""
DISTILLED = 50
"""On how many times latent consistency models were distilled."""
ENDLESS = 500.0
"""The sigma / alpha from which on a schedule counts as having no noisy end: cosine tables, straight paths."""


def leading(steps: int, timesteps: int) -> Times:
    """Every (timesteps // steps)-th time from the table's first, which leaves out its last [Lin23, table 2].

    In continuous time it starts one step before 1.
    """
    check_steps(steps, timesteps)
    if timesteps == 0:
        return _grid(np.linspace(steps / (steps + 1), 0, steps + 1)[:-1])
    return _grid((np.arange(steps)[::-1] * (timesteps // steps) + 1) / timesteps)


def trailing(steps: int, timesteps: int) -> Times:
    """Equal steps from 1 to 0 [Lin23, table 2]."""
    check_steps(steps, timesteps)
    if timesteps == 0:
        return _grid(np.arange(steps, 0, -1) / steps)
    return _grid((np.arange(steps, 0, -1) * timesteps / steps).round() / timesteps)


def linspace(steps: int, timesteps: int) -> Times:
    """Equal steps from the last time of the table to the first, then to 0 [Nichol21, sec. 4]: respacing inclusive of
    both ends. In continuous time there is no first, and it is `trailing`."""
    if timesteps == 0:
        return trailing(steps, timesteps)
    check_steps(steps, timesteps)
    return _grid((np.linspace(timesteps - 1, 0, steps).round() + 1) / timesteps)


def linspace_exact(steps: int, timesteps: int) -> Times:
    """`linspace` without rounding to the table: Euler's and Heun's in diffusers."""
    if timesteps == 0:
        return trailing(steps, timesteps)
    check_steps(steps, timesteps)
    return _grid((np.linspace(timesteps - 1, 0, steps) + 1) / timesteps)


def _open(grid: Callable[[int, int], Times]) -> Callable[[int, int], Times]:
    """The grid laid out for one step more, without its cleanest time: DPM-Solver's and UniPC's in diffusers. Where all
    times of a table are taken, there is not one more."""

    def opened(steps: int, timesteps: int) -> Times:
        check_steps(steps, timesteps)
        return grid(steps, timesteps) if steps == timesteps else np.delete(grid(steps + 1, timesteps), -2)

    return opened


def quadratic(steps: int, timesteps: int) -> Times:
    """Steps that shrink towards 0: t = (i / steps)^2 [Song21, app. D.2]; in a table at least one entry each."""
    check_steps(steps, timesteps)
    left = np.arange(steps, 0, -1)
    if timesteps == 0:
        return _grid((left / steps) ** 2)
    return _grid(np.maximum((left**2 * timesteps / steps**2).round(), left) / timesteps)


def karras(schedule: Schedule, steps: int, timesteps: int, *, rho: float = 7.0) -> Times:
    """Sigma^(1 / rho) falls in equal steps [Karras22, eq. 5], here sigma / alpha.

    It runs from that at t=1 (80 where that is past 500) to that of the table's first time (0.002 in continuous time);
    what lies between is not snapped to the table.
    """
    check_steps(steps, timesteps)

    def noise_to_signal(t):
        alpha, sigma = schedule(t)
        return float(sigma) / max(float(alpha), 1e-12)

    with jax.ensure_compile_time_eval():
        high = noise_to_signal(1.0)
        high = SIGMA_MAX if high > ENDLESS else high
        low = noise_to_signal(1 / timesteps) if timesteps else SIGMA_MIN
        sigmas = np.linspace(high ** (1 / rho), low ** (1 / rho), steps) ** rho
        times = jax.vmap(lambda sigma: time_of(schedule, sigma))(jnp.asarray(sigmas, jnp.float32))
    return _grid(np.asarray(times))


def consistency(steps: int, timesteps: int) -> Times:
    """Of the DISTILLED times that a consistency model was distilled on, equal steps apart in the table, as many equally
    apart from the noisiest on [Luo23, sec. 4.3]. In continuous time it is `trailing`."""
    if timesteps == 0:
        return trailing(steps, timesteps)
    check_steps(steps, timesteps)
    known = min(max(DISTILLED, steps), timesteps)
    return _grid((known - np.arange(steps) * known // steps) * (timesteps // known) / timesteps)


def flow(schedule: Schedule, steps: int, timesteps: int) -> Times:
    """Equal steps from 1 to as much noise as the first of 1000 times has, then to 0: those of SD3's code [Esser24].

    That noise is read from the schedule, as it is shifted, and taken for a time: with a shift it is not the first one.
    """
    check_steps(steps, timesteps)
    with jax.ensure_compile_time_eval():
        first = float(schedule(1 / (timesteps or 1000)).sigma)
    return _grid(np.linspace(1, first, steps))


def shift_time(t, factor):
    """The time on a straight path, of alpha = 1 - t, at which sigma / alpha is `factor` times as large
    [Esser24, eq. 23]."""
    return factor * t / (1 + (factor - 1) * t)


def shifted(schedule: Schedule, factor: float) -> Schedule:
    """The schedule of straight paths with sigma / alpha `factor` times as large, for grids to be laid out over.

    Raises:
        ValueError: if its paths are others.
    """
    with jax.ensure_compile_time_eval():
        alpha, sigma = (float(value) for value in schedule(0.25))
    if max(abs(alpha - 0.75), abs(sigma - 0.25)) > 1e-5:
        raise ValueError(
            f"shift={factor:g} moves times of straight paths, process.schedule=rectified_flow without a shift of its "
            "own: set sampling.shift=1"
        )
    return lambda t: schedule(shift_time(t, factor))


TIME_GRIDS: dict[str, Callable[[Schedule, int, int], Times]] = {
    "leading": lambda schedule, steps, timesteps: leading(steps, timesteps),
    "trailing": lambda schedule, steps, timesteps: trailing(steps, timesteps),
    "linspace": lambda schedule, steps, timesteps: linspace(steps, timesteps),
    "linspace_exact": lambda schedule, steps, timesteps: linspace_exact(steps, timesteps),
    "leading_open": lambda schedule, steps, timesteps: _open(leading)(steps, timesteps),
    "linspace_open": lambda schedule, steps, timesteps: _open(linspace)(steps, timesteps),
    "quadratic": lambda schedule, steps, timesteps: quadratic(steps, timesteps),
    "karras": karras,
    "lcm": lambda schedule, steps, timesteps: consistency(steps, timesteps),
    "flow": flow,
}
"""Each by (schedule, steps, timesteps)."""


def later(times: Times, offset: int, timesteps: int) -> Times:
    """All but the last, `offset` entries of the table noisier: `steps_offset` of diffusers' leading grids.

    Raises:
        ValueError: if there is no table, or it has no such entries.
    """
    moved = np.append(times[:-1] + np.float32(offset / max(timesteps, 1)), times[-1]).astype(np.float32)
    if timesteps == 0 or not moved[-2] > 0 or moved[0] > 1 + 0.5 / timesteps:
        raise ValueError(
            f"offset={offset} leaves the table of {timesteps} timesteps that {len(times) - 1} steps are taken of: take "
            "fewer steps, or offset 0"
        )
    return moved


def to_first(times: Times, timesteps: int) -> Times:
    """Ends at the first time of the table, a little noise, instead of at 0.

    Raises:
        ValueError: if there is no table.
    """
    if timesteps == 0:
        raise ValueError("final=first is the first time of a table, and timesteps=0 is continuous: take final=zero")
    return np.append(times[:-1], np.float32(1 / timesteps))


def check_steps(steps: int, timesteps: int) -> None:
    """Raises ValueError unless there are steps, and no more than the table has."""
    if steps < 1:
        raise ValueError(f"steps={steps} must be 1 or more")
    if 0 < timesteps < steps:
        raise ValueError(f"steps={steps} is more than the schedule's {timesteps} timesteps: take {timesteps} or fewer")


def _grid(times) -> Times:
    return np.append(times, 0).astype(np.float32)
