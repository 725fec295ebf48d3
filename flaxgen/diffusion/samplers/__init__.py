"""From noise to data: solvers of the reverse process, one family a file, and the loop that runs them."""

from collections.abc import Callable

from flaxgen.diffusion.samplers.ancestral import ancestral
from flaxgen.diffusion.samplers.ddim import ddim, ddim_inversion, euler_ancestral
from flaxgen.diffusion.samplers.heun import Churn, churned, euler, heun
from flaxgen.diffusion.samplers.loop import Grid, in_stretches, make_grid, sample, trajectory
from flaxgen.diffusion.samplers.multistep import dpmpp_2m, dpmpp_2m_sde, dpmpp_3m, unipc
from flaxgen.diffusion.samplers.plms import plms
from flaxgen.types import Sampler, Schedule

__all__ = [
    "SAMPLERS",
    "Churn",
    "Grid",
    "ancestral",
    "churned",
    "ddim",
    "ddim_inversion",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dpmpp_3m",
    "euler",
    "euler_ancestral",
    "heun",
    "in_stretches",
    "make_grid",
    "plms",
    "sample",
    "trajectory",
    "unipc",
]

SAMPLERS: dict[str, Callable[[Schedule], Sampler]] = {
    "ddpm": ancestral,
    "ddim": ddim,
    "euler": euler,
    "euler_ancestral": euler_ancestral,
    "heun": heun,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_2m_sde": dpmpp_2m_sde,
    "dpmpp_3m": dpmpp_3m,
    "plms": plms,
    "unipc": unipc,
}
