"""A whole diffusers folder comes in and goes out: weights to the bit, and the same noise process on both sides."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen import verbs
from flaxgen.diffusion import samplers, schedules, times
from flaxgen.family.process import make_schedule
from flaxgen.family.sampling import Subject, make_grid, threshold
from flaxgen.interchange import schedulers as interchange
from flaxgen.weights.scheduler_config import TABLES

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.parity

SCHEDULERS = {
    "ddpm": {"beta_schedule": "linear"},
    "short table": {"beta_schedule": "linear", "num_train_timesteps": 200, "beta_end": 0.08, "clip_sample": False},
    "cosine v": {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"},
    "scaled x0": {
        "beta_schedule": "scaled_linear",
        "prediction_type": "sample",
        "thresholding": True,
        "sample_max_value": 1e9,
    },
    "trailing": {"timestep_spacing": "trailing", "variance_type": "fixed_large"},
}
SAME = (
    "num_train_timesteps",
    "beta_schedule",
    "prediction_type",
    "clip_sample",
    "thresholding",
    "sample_max_value",
    "timestep_spacing",
    "variance_type",
)
THEIR_WARNING = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
PLAIN = {"PNDMScheduler": {"skip_prk_steps": True}}
"""Without the Runge-Kutta warm-up, which visits times of its own."""


def alphas_of(schedule, timesteps):
    return np.asarray(jax.vmap(schedule)(jnp.arange(1, timesteps + 1, dtype=jnp.float32) / timesteps).alpha)


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return diffusers.UNet2DModel(
        sample_size=8,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=8,
    ).eval()


@pytest.mark.parametrize("name", SCHEDULERS)
def test_pipeline_round_trip(unet, name, tmp_path):
    scheduler = diffusers.DDPMScheduler(**SCHEDULERS[name])
    diffusers.DDPMPipeline(unet, scheduler).save_pretrained(tmp_path / "theirs")
    verbs.import_model(str(tmp_path / "theirs"), tmp_path / "model")
    model = verbs.load(tmp_path / "model")
    timesteps = model.config.process.timesteps
    alphas = alphas_of(model.schedule, timesteps)
    np.testing.assert_allclose(alphas**2, scheduler.alphas_cumprod.numpy(), rtol=2e-4, atol=1e-7)

    verbs.export(tmp_path / "model", tmp_path / "ours", layout="diffusers")
    back = diffusers.DDPMPipeline.from_pretrained(tmp_path / "ours")
    for key, value in unet.state_dict().items():
        assert torch.equal(back.unet.state_dict()[key], value), key
    for field in SAME:
        assert back.scheduler.config[field] == scheduler.config[field]
    np.testing.assert_allclose(back.scheduler.alphas_cumprod, scheduler.alphas_cumprod, rtol=1e-6)


def test_the_same_noise_becomes_the_same_picture(unet, tmp_path):
    """DDIM, 10 steps, clipped, from one x_T, by their pipeline's parts and by ours."""
    theirs = diffusers.DDIMScheduler(timestep_spacing="trailing")
    diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler()).save_pretrained(tmp_path / "theirs")
    verbs.import_model(str(tmp_path / "theirs"), tmp_path / "model")
    model = verbs.load(tmp_path / "model")
    x_T = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    x = torch.from_numpy(x_T.transpose(0, 3, 1, 2).copy())
    theirs.set_timesteps(10)
    with torch.no_grad():
        for t in theirs.timesteps:
            x = theirs.step(unet(x, t).sample, t, x, use_clipped_model_output=True).prev_sample
    sampler = samplers.ddim(model.schedule)
    denoise = threshold(model.config.sampling)(model.denoiser())
    ours = samplers.sample(sampler, denoise, jnp.asarray(x_T), times.trailing(10, 1000), jax.random.key(0))
    np.testing.assert_allclose(np.asarray(ours).transpose(0, 3, 1, 2), x.numpy(), atol=2e-4)


@THEIR_WARNING
@pytest.mark.parametrize(
    "name", ["DDIMScheduler", "PNDMScheduler", "DPMSolverMultistepScheduler", "EulerDiscreteScheduler"]
)
def test_the_class_is_kept(unet, name, tmp_path, capsys):
    """And every value of its config, from a folder to a folder; diffusers draws with the pipeline that is named."""
    scheduler = getattr(diffusers, name)(**PLAIN.get(name, {}))
    diffusers.DDPMPipeline(unet, scheduler).save_pretrained(tmp_path / "theirs")
    verbs.import_model(str(tmp_path / "theirs"), tmp_path / "model")
    assert capsys.readouterr().err == ""
    verbs.export(tmp_path / "model", tmp_path / "ours", layout="diffusers")
    said = capsys.readouterr().err
    back = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "ours")
    assert type(back.scheduler).__name__ == name
    hidden = {key for key in scheduler.config if key.startswith("_")}
    assert {key: back.scheduler.config[key] for key in scheduler.config.keys() - hidden} == {
        key: scheduler.config[key] for key in scheduler.config.keys() - hidden
    }
    if name == "EulerDiscreteScheduler":
        assert "no pipeline of diffusers" in said
    else:
        assert said == ""
        back.set_progress_bar_config(disable=True)
        assert np.isfinite(back(num_inference_steps=3, output_type="np").images).all()


@THEIR_WARNING
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("name", TABLES)
def test_the_grid_is_that_of_the_scheduler(name, spacing, offset, capsys):
    theirs = getattr(diffusers, name)(timestep_spacing=spacing, steps_offset=offset, **PLAIN.get(name, {}))
    sampling = dataclasses.replace(interchange.sampling_of({"_class_name": name, **theirs.config}, False), steps=12)
    theirs.set_timesteps(12)
    visited = sorted(set(np.asarray(theirs.timesteps).tolist()), reverse=True)
    grid = make_grid(Subject(schedules.linear(1000), 1000, (), None, None), sampling)
    np.testing.assert_allclose(grid[:-1] * 1000 - 1, visited, atol=1e-3)
    assert capsys.readouterr().err == ""


@THEIR_WARNING
@pytest.mark.parametrize("name", TABLES)
def test_what_a_config_leaves_out(name):
    """An empty config means to us what it means to diffusers, and of what theirs has every key is read."""
    theirs = getattr(diffusers, name)()
    defaults = {field.key: field.default for field in TABLES[name].fields}
    for key, value in defaults.items():
        if key in theirs.config:
            assert theirs.config[key] == value, key
    assert not {key for key in theirs.config if not key.startswith("_")} - defaults.keys()
    process = interchange.process_of({"_class_name": name})
    alphas = alphas_of(make_schedule(process), 1000)
    np.testing.assert_allclose(alphas**2, theirs.alphas_cumprod.numpy(), rtol=2e-4)


def test_thresholding_up_to_1_clips():
    scheduler = diffusers.DDPMScheduler(thresholding=True)
    x0 = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 4, 4)) * 3)
    assert torch.equal(scheduler._threshold_sample(x0), x0.clamp(-1, 1))
    assert interchange.sampling_of({"_class_name": "DDPMScheduler", **scheduler.config}, False).threshold == "clip"
