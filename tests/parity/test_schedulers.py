"""Beside diffusers' schedulers: the same denoiser, the same noise, the same numbers.

Their conventions, as found in 0.42:
- A timestep k is our t = (k + 1) / T; past the last one sigma is 0, ours is t = 0.
- Euler, EulerAncestral and Heun work on x / alpha, of which the net gets x (`scale_model_input`).
- DDIM reads the previous time as k - T // steps whatever the spacing, so it is right for `leading` alone.
- DDPM adds noise in its last step unless that is timestep 0, so it is compared on `leading`, which ends there.
- Leading and linspace of DPM-Solver and UniPC are laid out for steps + 1 and stop early: our `leading_open` and
  `linspace_open`. Linspace of Euler and Heun is not rounded to the table: our `linspace_exact`.
- Karras sigmas of DPM-Solver and UniPC are of the whole table, those of Euler and Heun of the grid that they replace.
  The first two round the timestep that the net is told, which is between two of the table.
- Below 15 steps DPM-Solver++(3M) lowers its order in the last but one step, unless `lower_order_final=False`; so it
  does in the last step, and UniPC at any number of steps, where the last sigma is not 0. Ours lower it at sigma = 0
  alone.
- Heun here takes Euler's step from a sigma / alpha beyond 500, as from the first of a cosine table, where theirs does
  not: parity is claimed of tables that end below, such as the linear ones.
- Without a last sigma of 0 DDIM and PNDM (`set_alpha_to_one=False`) end at the first of the table: our `final` "first".
- A linspace of one step is timestep 0 there and T - 1 here.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.diffusion import denoise, schedules, times
from flaxgen.diffusion.samplers import (
    ancestral,
    ddim,
    dpmpp_2m,
    dpmpp_2m_sde,
    euler,
    euler_ancestral,
    heun,
    sample,
    unipc,
)
from flaxgen.family.process import make_schedule
from flaxgen.family.sampling import Subject, make_grid, make_sampler, threshold
from flaxgen.interchange.schedulers import process_of, sampling_of, scheduler_config

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
]

T = 1000
SHAPE = (2, 3, 4, 4)
SCHEDULE = schedules.linear(T)
GRIDS = {"leading": times.leading, "trailing": times.trailing, "linspace": times.linspace}


def predicted_noise(x, index, where):
    """A small nonlinear function of x and the timestep."""
    time = index / T
    return where.tanh(1.3 * x + 0.4 * where.sin(7 * time) + 0.1) * (0.6 + 0.3 * time) + 0.2 * where.cos(3 * x)


def predicted_variance(x, index, where):
    return where.sin(2 * x + index / T)


def net(learned):
    def apply(x, index, condition):
        index = index[0]
        eps = predicted_noise(x, index, jnp)
        return jnp.concatenate([eps, predicted_variance(x, index, jnp)], axis=-1) if learned else eps

    return denoise.make_bind(apply, SCHEDULE, denoise.EPS, denoise.table_index(T), learned_variance=learned)({})


def normals(seed, steps):
    """What a sampler with one draw a step draws, as torch sees it (channels first)."""
    key = jax.random.key(seed)
    shape = (SHAPE[0], *SHAPE[2:], SHAPE[1])
    drawn = [jax.random.normal(jax.random.fold_in(key, i), shape) for i in range(steps)]
    return [to_torch(noise) for noise in drawn]


def to_torch(x):
    return torch.from_numpy(np.moveaxis(np.array(x), -1, 1).copy())


def ours(sampler, grid, x, learned=False):
    x = jax.jit(lambda x, key: sample(sampler, net(learned), x, grid, key))(x, jax.random.key(3))
    return np.moveaxis(np.array(x), -1, 1)


def theirs(scheduler, steps, x, monkeypatch, learned=False, **step_arguments):
    """Runs in units of the scheduler: those with sigmas start from x / alpha and end there, where alpha is 1."""
    noise = iter(normals(3, steps))
    module = __import__(scheduler.__module__, fromlist=["randn_tensor"])
    if hasattr(module, "randn_tensor"):
        monkeypatch.setattr(module, "randn_tensor", lambda *args, **kwargs: next(noise))
    scheduler.set_timesteps(steps)
    is_scaled = hasattr(scheduler, "is_scale_input_called") or isinstance(scheduler, diffusers.HeunDiscreteScheduler)
    if is_scaled:
        x = x * (scheduler.sigmas[0] ** 2 + 1) ** 0.5
    for index in scheduler.timesteps:
        x_in = scheduler.scale_model_input(x, index)
        out = predicted_noise(x_in, index, torch)
        if learned:
            out = torch.cat([out, predicted_variance(x_in, index, torch)], dim=1)
        x = scheduler.step(out, index, x, **step_arguments).prev_sample
    return np.array(x)


UNCLIPPED = {"clip_sample": False}
CASES = {
    "ddpm small": (ancestral(SCHEDULE, "small"), "DDPMScheduler", "leading", UNCLIPPED, {}),
    "ddpm large": (
        ancestral(SCHEDULE, "large"),
        "DDPMScheduler",
        "leading",
        UNCLIPPED | {"variance_type": "fixed_large"},
        {},
    ),
    "ddpm learned": (
        ancestral(SCHEDULE, "learned"),
        "DDPMScheduler",
        "leading",
        UNCLIPPED | {"variance_type": "learned_range"},
        {},
    ),
    "ddim": (ddim(SCHEDULE), "DDIMScheduler", "leading", UNCLIPPED, {}),
    "ddim eta 1": (ddim(SCHEDULE, eta=1.0), "DDIMScheduler", "leading", UNCLIPPED, {"eta": 1.0}),
    "euler": (euler(SCHEDULE), "EulerDiscreteScheduler", "trailing", {}, {}),
    "euler ancestral": (euler_ancestral(SCHEDULE), "EulerAncestralDiscreteScheduler", "trailing", {}, {}),
    "heun": (heun(SCHEDULE), "HeunDiscreteScheduler", "trailing", {}, {}),
    "dpm++ 2m": (
        dpmpp_2m(SCHEDULE),
        "DPMSolverMultistepScheduler",
        "trailing",
        {"algorithm_type": "dpmsolver++"},
        {},
    ),
    "dpm++ 2m sde": (
        dpmpp_2m_sde(SCHEDULE),
        "DPMSolverMultistepScheduler",
        "trailing",
        {"algorithm_type": "sde-dpmsolver++"},
        {},
    ),
    "unipc": (unipc(SCHEDULE), "UniPCMultistepScheduler", "trailing", {"solver_type": "bh2"}, {}),
}


@pytest.mark.parametrize("steps", [10, 50])
@pytest.mark.parametrize("case", CASES)
def test_same_sample(case, steps, monkeypatch):
    sampler, name, spacing, options, step_arguments = CASES[case]
    learned = options.get("variance_type") == "learned_range"
    x = jax.random.normal(jax.random.key(0), (SHAPE[0], *SHAPE[2:], SHAPE[1]))
    scheduler = getattr(diffusers, name)(
        num_train_timesteps=T,
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="linear",
        timestep_spacing=spacing,
        **options,
    )
    expected = theirs(scheduler, steps, to_torch(x), monkeypatch, learned, **step_arguments)
    found = ours(sampler, GRIDS[spacing](steps, T), x, learned)
    error = np.abs(found - expected).max() / np.abs(expected).max()
    print(f"{case}, {steps} steps: relative error {error:.1e}")
    assert error <= 1e-4


@pytest.mark.parametrize("spacing", GRIDS)
@pytest.mark.parametrize("steps", [7, 10, 50, 300, 1000])
def test_same_time_grids(spacing, steps):
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=T, timestep_spacing=spacing)
    scheduler.set_timesteps(steps)
    indices = np.round(GRIDS[spacing](steps, T)[:-1] * T).astype(int) - 1
    np.testing.assert_array_equal(indices, scheduler.timesteps)


@pytest.mark.parametrize(
    ("name", "schedule"),
    [
        ("linear", schedules.linear(T)),
        ("scaled_linear", schedules.scaled_linear(T, 1e-4, 0.02)),
        ("squaredcos_cap_v2", schedules.cosine(T)),
    ],
)
@pytest.mark.parametrize("rescale", [False, True])
def test_same_tables(name, schedule, rescale):
    """Theirs are float32: 1 - alpha_bar has four digits at the clean end."""
    scheduler = diffusers.DDIMScheduler(num_train_timesteps=T, beta_schedule=name, rescale_betas_zero_snr=rescale)
    schedule = schedules.zero_terminal_snr(schedule, T) if rescale else schedule
    alpha, sigma = jax.vmap(schedule)(jnp.arange(1, T + 1) / T)
    np.testing.assert_allclose(alpha**2, scheduler.alphas_cumprod, atol=2e-6)
    np.testing.assert_allclose(sigma**2, 1 - scheduler.alphas_cumprod, atol=2e-6)


@pytest.mark.parametrize("steps", [10, 50])
def test_same_karras_sigmas(steps):
    scheduler = diffusers.EulerDiscreteScheduler(
        num_train_timesteps=T, beta_start=1e-4, beta_end=0.02, use_karras_sigmas=True
    )
    scheduler.set_timesteps(steps)
    alpha, sigma = jax.vmap(SCHEDULE)(jnp.asarray(times.karras(SCHEDULE, steps, T)))
    np.testing.assert_allclose(sigma / alpha, scheduler.sigmas, rtol=1e-3)


IF = {"thresholding": True, "dynamic_thresholding_ratio": 0.95, "sample_max_value": 1.5}
DPM, SD = "DPMSolverMultistepScheduler", {"steps_offset": 1, "beta_schedule": "scaled_linear"}
IMPORTED = {
    "ddpm": ("DDPMScheduler", {}),
    "ddpm of IF": (
        "DDPMScheduler",
        {"thresholding": True, "dynamic_thresholding_ratio": 0.95, "sample_max_value": 1.5},
    ),
    "ddpm reach": ("DDPMScheduler", {"clip_sample_range": 2.0}),
    "ddim": ("DDIMScheduler", {}),
    "ddim of SD": ("DDIMScheduler", {"set_alpha_to_one": False, "clip_sample": False, **SD}),
    "ddim thresholding": ("DDIMScheduler", {"thresholding": True, "sample_max_value": 1.5}),
    "pndm of SD": ("PNDMScheduler", {"skip_prk_steps": True, "set_alpha_to_one": False, **SD}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True, "set_alpha_to_one": True}),
    "dpm++": (DPM, {}),
    "dpm++ leading": (DPM, {"timestep_spacing": "leading", "steps_offset": 1}),
    "dpm++ 1": (DPM, {"solver_order": 1}),
    "dpm++ 1 sde": (DPM, {"solver_order": 1, "algorithm_type": "sde-dpmsolver++"}),
    "dpm++ 2 sde": (DPM, {"algorithm_type": "sde-dpmsolver++"}),
    "dpm++ 3": (DPM, {"solver_order": 3, "lower_order_final": False, "timestep_spacing": "trailing"}),
    "dpm++ 3 karras": (DPM, {"solver_order": 3, "lower_order_final": False, "use_karras_sigmas": True}),
    "dpm++ karras": (DPM, {"use_karras_sigmas": True}),
    "dpm++ last sigma": (DPM, {"final_sigmas_type": "sigma_min", "lower_order_final": False}),
    "dpm++ thresholding": (DPM, {"thresholding": True, "sample_max_value": 1.5}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "unipc karras": ("UniPCMultistepScheduler", {"use_karras_sigmas": True}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler karras": ("EulerDiscreteScheduler", {"use_karras_sigmas": True}),
    "euler of SD": ("EulerDiscreteScheduler", {"timestep_spacing": "leading", **SD}),
    "euler last sigma": ("EulerDiscreteScheduler", {"final_sigmas_type": "sigma_min"}),
    "euler ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "lcm": ("LCMScheduler", {}),
    "lcm clipped": ("LCMScheduler", {"clip_sample": True}),
    "heun": ("HeunDiscreteScheduler", {}),
    "heun karras": ("HeunDiscreteScheduler", {"use_karras_sigmas": True}),
}
"""The class and what its config says beside the defaults."""


@pytest.mark.parametrize("steps", [10, 50])
@pytest.mark.parametrize("case", IMPORTED)
def test_a_folder_samples_as_its_scheduler_does(case, steps, monkeypatch, capsys):
    """By its default call, from its config alone; and what is exported again says the same."""
    name, options = IMPORTED[case]
    scheduler = getattr(diffusers, name)(**options)
    folder = {"_class_name": name, **scheduler.config}
    process, sampling = process_of(folder), replace(sampling_of(folder, False), steps=steps)
    assert capsys.readouterr().err == ""
    if options.get("solver_order") != 1:  # which is DDIM by another name
        back = getattr(diffusers, name).from_config(scheduler_config(process, sampling, False))
        left = {key for key, value in scheduler.config.items() if not key.startswith("_") and back.config[key] != value}
        assert left <= {"lower_order_final"} | ({"timestep_spacing"} if "karras" in case else set())
        np.testing.assert_allclose(back.alphas_cumprod, scheduler.alphas_cumprod, rtol=1e-6)
    capsys.readouterr()
    schedule = make_schedule(process)
    rounds = options.get("use_karras_sigmas") and name in (DPM, "UniPCMultistepScheduler")

    def apply(x, index, condition):
        return predicted_noise(x, jnp.round(index[0]) if rounds else index[0], jnp)

    denoiser = denoise.make_bind(apply, schedule, denoise.EPS, denoise.table_index(T))({})
    subject = Subject(schedule, T, SHAPE[1:], None, None)
    x = jax.random.normal(jax.random.key(0), (SHAPE[0], *SHAPE[2:], SHAPE[1]))
    expected = theirs(scheduler, steps, to_torch(x), monkeypatch)
    found = jax.jit(
        lambda x, key: sample(
            make_sampler(sampling, schedule, 0.0), threshold(sampling)(denoiser), x, make_grid(subject, sampling), key
        )
    )(x, jax.random.key(3))
    found = np.moveaxis(np.array(found), -1, 1)
    error = np.abs(found - expected).max() / np.abs(expected).max()
    print(f"{case}, {steps} steps: relative error {error:.1e}")
    assert error <= 1e-4
