"""Diffusers folders without torch: what a scheduler's config means, and what is refused, by name."""

import json
import re
import shutil

import jax
import numpy as np
import pytest

from flaxgen.family.process import Process, make_schedule
from flaxgen.family.sampling import Sampling
from flaxgen.interchange import diffusers
from flaxgen.interchange.schedulers import scheduler_config
from flaxgen.nets.unet import UNet
from flaxgen.weights import unet2d

TINY = UNet(image_size=4, channels=4, multipliers=(1,), depth=1, attention=(), norm_groups=2, middle="none")
INDEX = {"unet": ["diffusers", "UNet2DModel"], "scheduler": ["diffusers", "DDPMScheduler"]}


def random_params(net):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32), unet2d.abstract_params(net))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    unet2d.export_unet2d(TINY, random_params(TINY), folder / "unet")
    (folder / "scheduler").mkdir()
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "DDPMPipeline", **INDEX}))
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({"_class_name": "DDPMScheduler"}))
    return folder


@pytest.fixture
def folder(plain, tmp_path):
    """A copy of a good pipeline, to be spoiled."""
    return shutil.copytree(plain, tmp_path / "pipeline")


def replace(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def refusal(folder):
    with pytest.raises(ValueError, match=r"expected|, only ") as caught:
        diffusers.import_diffusers(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.smoke
def test_a_plain_pipeline_comes_in_without_a_word(plain, capsys):
    config, params = diffusers.import_diffusers(plain)
    assert config.process == Process()
    assert (config.sampling.grid, config.sampling.threshold) == ("leading", "clip")
    jax.tree.map(np.testing.assert_array_equal, params, random_params(TINY))
    assert capsys.readouterr().err == ""


def test_no_scheduler_is_said(folder, capsys):
    shutil.rmtree(folder / "scheduler")
    config, _ = diffusers.import_diffusers(folder)
    said = capsys.readouterr().err
    assert config.process == Process()
    assert "no scheduler_config.json" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    "values",
    [
        {"_class_name": "ScoreSdeVeScheduler"},
        {"_class_name": "KarrasVeScheduler"},
        {"_class_name": "CMStochasticIterativeScheduler"},
        {"_class_name": None},
        {"beta_schedule": "sigmoid"},
        {"beta_schedule": ["linear"]},
        {"beta_start": "0.1"},
        {"num_train_timesteps": 0},
        {"num_train_timesteps": 0.5},
        {"prediction_type": "flow_prediction"},
        {"predict_epsilon": False},
        {"trained_betas": [0.1, 0.2]},
        {"use_flow_sigmas": True},
        {"timestep_type": "continuous"},
        {"variance_type": "learned"},
        {"variance_type": "learned_range"},
        {"clip_sample_range": 0.0},
        {"clip_sample": "yes"},
        {"sample_max_value": 0.5, "thresholding": True},
        {"dynamic_thresholding_ratio": 1.5, "thresholding": True, "sample_max_value": 1e9},
        {"steps_offset": 0.5},
        {"final_sigmas_type": "odd", "_class_name": "EulerDiscreteScheduler"},
    ],
    ids=str,
)
def test_schedulers_that_are_refused(folder, values):
    replace(folder / "scheduler" / "scheduler_config.json", **values)
    key, value = next(iter(values.items()))
    assert f"{key}={value!r}" in refusal(folder)


@pytest.mark.parametrize(
    "index",
    [
        {"_class_name": "LDMPipeline", **INDEX, "vqvae": ["diffusers", "VQModel"]},
        {"_class_name": "OddPipeline", **INDEX, "unet": ["diffusers", "UNet2DConditionModel"]},
        {"_class_name": "OddPipeline", **INDEX, "unet": None},
        {"_class_name": "OddPipeline"},
    ],
    ids=str,
)
def test_pipelines_that_are_refused(folder, index):
    (folder / "model_index.json").write_text(json.dumps(index))
    message = refusal(folder)
    assert index["_class_name"] in message
    assert all(part[1] in message for part in index.values() if isinstance(part, list))


def test_parts_that_are_not_there_do_not_matter(folder):
    before = diffusers.import_diffusers(folder)[0]
    replace(folder / "model_index.json", _class_name="PNDMPipeline", safety_checker=[None, None])
    assert diffusers.import_diffusers(folder)[0] == before


@pytest.mark.parametrize(
    ("net", "named"),
    [
        (TINY.clone(time_embedding="fourier"), "time_embedding_type='fourier'"),
        (TINY.clone(in_channels=5), "in_channels=5, out_channels=3"),
    ],
    ids=["fourier", "channels"],
)
def test_nets_that_are_refused(folder, net, named):
    shutil.rmtree(folder / "unet")
    unet2d.export_unet2d(net, random_params(net), folder / "unet")
    assert named in refusal(folder)


def test_a_learned_variance_comes_in(folder):
    net = TINY.clone(learned_variance=True)
    shutil.rmtree(folder / "unet")
    unet2d.export_unet2d(net, random_params(net), folder / "unet")
    replace(folder / "scheduler" / "scheduler_config.json", variance_type="learned_range")
    config, _ = diffusers.import_diffusers(folder)
    assert (config.sampling.variance, config.objective.loss) == ("learned", "hybrid")


@pytest.mark.parametrize(
    ("values", "threshold"),
    [
        ({"clip_sample": False, "clip_sample_range": 2.0}, "none"),
        ({"sample_max_value": 2.0, "dynamic_thresholding_ratio": 0.9}, "clip"),
        ({"thresholding": True, "clip_sample_range": 2.0}, "clip"),  # sample_max_value is 1
        ({"thresholding": True, "sample_max_value": 1e9}, "dynamic"),
        ({"thresholding": True, "sample_max_value": 1.5, "dynamic_thresholding_ratio": 0.95}, "dynamic"),
        ({"_class_name": "EulerDiscreteScheduler"}, "none"),
    ],
    ids=str,
)
def test_thresholds(values, threshold):
    assert diffusers.sampling_of({"_class_name": "DDPMScheduler", **values}, False).threshold == threshold


def test_reach_ratio_and_largest_come_in():
    clipped = diffusers.sampling_of({"_class_name": "DDPMScheduler", "clip_sample_range": 2.0}, False)
    assert (clipped.threshold, clipped.limit) == ("clip", 2.0)
    deepfloyd = {"thresholding": True, "dynamic_thresholding_ratio": 0.95, "sample_max_value": 1.5}
    dynamic = diffusers.sampling_of({"_class_name": "DDPMScheduler", **deepfloyd}, False)
    assert (dynamic.threshold, dynamic.quantile, dynamic.largest) == ("dynamic", 0.95, 1.5)


def test_a_long_value_is_cut_short(folder):
    betas = np.linspace(1e-4, 0.02, 1000).tolist()
    replace(folder / "scheduler" / "scheduler_config.json", trained_betas=betas)
    message = refusal(folder)
    assert "trained_betas=[0.0001, " in message
    assert len(message) < 200


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_a_grid_that_is_known_is_taken(spacing, capsys):
    scheduler = {"_class_name": "DDIMScheduler", "timestep_spacing": spacing, "steps_offset": 0}
    assert diffusers.sampling_of(scheduler, False).grid == spacing
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("values", "sampling"),
    [
        ({"_class_name": "DDPMScheduler"}, Sampling("ddpm", steps=1000, grid="leading")),
        ({"_class_name": "DDIMScheduler"}, Sampling("ddim", grid="leading", noise="predicted")),
        (
            {"_class_name": "DDIMScheduler", "steps_offset": 1, "set_alpha_to_one": False, "clip_sample": False},
            Sampling("ddim", grid="leading", offset=1, final="first", threshold="none"),
        ),
        (
            {"_class_name": "PNDMScheduler", "skip_prk_steps": True},
            Sampling("plms", grid="leading", final="first", threshold="none"),
        ),
        (
            {"_class_name": "DPMSolverMultistepScheduler", "solver_order": 3, "use_karras_sigmas": True},
            Sampling("dpmpp_3m", grid="karras", threshold="none"),
        ),
        ({"_class_name": "UniPCMultistepScheduler"}, Sampling("unipc", grid="linspace_open", threshold="none")),
        (
            {"_class_name": "EulerDiscreteScheduler", "final_sigmas_type": "sigma_min"},
            Sampling("euler", grid="linspace_exact", final="first", threshold="none"),
        ),
    ],
    ids=str,
)
def test_a_scheduler_comes_in_and_goes_out(values, sampling, capsys):
    """Whole, and without a word; the class is kept, and what is written reads the same again."""
    assert diffusers.sampling_of(values, False) == sampling
    assert capsys.readouterr().err == ""
    process = diffusers.process_of(values)
    written = scheduler_config(process, sampling, False)
    assert {key: written[key] for key in values} == values
    assert (diffusers.process_of(written), diffusers.sampling_of(written, False)) == (process, sampling)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("sampling", "name", "said"),
    [
        (Sampling(), "DDIMScheduler", "sampling.noise=clipped (use_clipped_model_output=True of its step)"),
        (Sampling(eta=0.5, noise="predicted"), "DDIMScheduler", "sampling.eta=0.5"),
        (Sampling("ddpm", grid="quadratic"), "DDPMScheduler", "sampling.grid=quadratic"),
        (Sampling("ddpm", final="first", offset=2), "DDPMScheduler", "sampling.offset=2, sampling.final=first"),
        (Sampling("euler", churn=4.0), "EulerDiscreteScheduler", "sampling.churn=4.0, sampling.threshold=clip"),
    ],
    ids=str,
)
def test_what_does_not_go_out_is_said(sampling, name, said, capsys):
    assert scheduler_config(Process(), sampling, False)["_class_name"] == name
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_a_learned_variance_goes_out_with_a_class_that_reads_it(capsys):
    written = scheduler_config(Process(), Sampling("euler", variance="learned"), True)
    assert (written["_class_name"], written["variance_type"]) == ("DDPMScheduler", "learned_range")
    assert "sampling.sampler=euler" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"_class_name": "UniPCMultistepScheduler", "timestep_spacing": "odd"}, "'odd' of UniPCMultistepScheduler"),
        ({"_class_name": "EulerDiscreteScheduler", "use_beta_sigmas": True}, "use_beta_sigmas=True"),
        (
            {"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": True, "timestep_spacing": "leading"},
            "use_karras_sigmas=True",
        ),
        (
            {
                "_class_name": "DPMSolverMultistepScheduler",
                "use_karras_sigmas": True,
                "beta_schedule": "squaredcos_cap_v2",
            },
            "use_karras_sigmas=True",
        ),
        ({"_class_name": "DDPMScheduler", "timestep_spacing": "odd"}, "timestep_spacing='odd'"),
    ],
    ids=str,
)
def test_a_grid_that_is_not_known_is_said(values, named, capsys):
    assert diffusers.sampling_of(values, False).grid == "trailing"
    said = capsys.readouterr().err
    assert named in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("DPMSolverMultistepScheduler", "solver_order", 4),
        ("DPMSolverMultistepScheduler", "algorithm_type", "dpmsolver"),
        ("DPMSolverMultistepScheduler", "solver_type", "heun"),
        ("DPMSolverMultistepScheduler", "euler_at_final", True),
        ("UniPCMultistepScheduler", "solver_order", 3),
        ("UniPCMultistepScheduler", "solver_type", "bh1"),
        ("UniPCMultistepScheduler", "disable_corrector", [0]),
        ("UniPCMultistepScheduler", "final_sigmas_type", "sigma_min"),
        ("EulerDiscreteScheduler", "interpolation_type", "log_linear"),
        ("PNDMScheduler", "skip_prk_steps", False),
        ("PNDMScheduler", "clip_sample", False),
        ("HeunDiscreteScheduler", "rescale_betas_zero_snr", True),
    ],
)
def test_what_is_not_taken_is_said(name, key, value, capsys):
    diffusers.sampling_of({"_class_name": name, "skip_prk_steps": True, key: value}, False)
    said = capsys.readouterr().err
    assert f"{key}={value!r}" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("schedule", ["edm", "rectified_flow"])
def test_zero_terminal_snr_needs_a_variance_preserving_schedule(schedule):
    with pytest.raises(ValueError, match=re.escape(f"schedule={schedule!r} does not preserve variance")) as caught:
        Process(schedule=schedule, prediction="flow", zero_terminal_snr=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "cosine", "sigmoid"])
@pytest.mark.parametrize("timesteps", [0, 1000])
def test_zero_terminal_snr_ends_in_noise(schedule, timesteps):
    end = make_schedule(Process(schedule=schedule, prediction="v", zero_terminal_snr=True, timesteps=timesteps))(1.0)
    np.testing.assert_allclose((end.alpha, end.sigma), (0, 1), atol=1e-6)
