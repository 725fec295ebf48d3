"""Models that were distilled to few steps, beside diffusers' pipelines on the same noise."""

import jax
import numpy as np
import pytest
from test_stable_diffusion import CAPTIONS, SEED, close, loaded, noise_of

import flaxgen
from flaxgen.interchange.stable_diffusion import export_pipeline

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
stable = pytest.importorskip("stable_folder")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def noise_of_steps(num, steps):
    """What is drawn in each step, channels first."""
    shape, drawn = (1, stable.SIDE, stable.SIDE, 4), []
    keys = [jax.random.split(jax.random.fold_in(jax.random.key(SEED), i))[1] for i in range(num)]
    for step in range(steps):
        noises = [np.asarray(jax.random.normal(jax.random.fold_in(key, step), shape))[0] for key in keys]
        drawn.append(torch.from_numpy(np.moveaxis(np.stack(noises), -1, 1).copy()))
    return drawn


def pipeline(name, imitates, **more):
    """Of version 1, with a net that reads the scale of guidance where it `imitates` that."""
    theirs = stable.stable(name=name, **more)
    if imitates:
        theirs.register_modules(unet=stable.unet(stable.WIDTHS["clip"], time_cond_proj_dim=20))
    return theirs


KINDS = {
    "lcm": ("LCMScheduler", True, {}, 4, 8.5),
    "lcm lora": ("LCMScheduler", False, {}, 4, 1.0),
    "sd turbo": ("EulerDiscreteScheduler", False, {"timestep_spacing": "trailing"}, 1, 1.0),
    "sdxl turbo": ("EulerAncestralDiscreteScheduler", False, {"timestep_spacing": "trailing"}, 1, 1.0),
}
"""Scheduler, whether the net imitates guidance, the scheduler's options, and the steps and guidance drawn with."""


@pytest.mark.parametrize("steps", [None, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_few_steps(kind, steps, tmp_path, monkeypatch):
    name, imitates, options, usual, guidance = KINDS[kind]
    theirs = pipeline(name, imitates, **options)
    ours = loaded(theirs, tmp_path)
    sampling = ours.whole.config.sampling
    assert (sampling.steps, sampling.guidance) == (usual, guidance)
    noises = iter(noise_of_steps(2, 4))
    module = __import__(theirs.scheduler.__module__, fromlist=["randn_tensor"])
    monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: next(noises), raising=False)
    told = {"num_inference_steps": steps or usual, "guidance_scale": guidance if imitates else 0.0}
    wanted = theirs(CAPTIONS, latents=noise_of(2), output_type="np", **told).images
    close(ours.draw(CAPTIONS, num=1, seed=SEED, steps=steps).images, wanted)
    if imitates:
        assert (
            ours.draw(CAPTIONS, num=1, seed=SEED, guidance=2.0).images != ours.draw(CAPTIONS, num=1, seed=SEED).images
        ).any()


def test_a_net_that_imitates_guidance_comes_back(tmp_path):
    theirs = pipeline("LCMScheduler", True)
    ours = loaded(theirs, tmp_path)
    export_pipeline(ours, tmp_path / "back")
    again = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path / "back")
    assert again.unet.config.time_cond_proj_dim == 20
    found = again.unet.state_dict()
    assert all(torch.equal(value, found[key]) for key, value in theirs.unet.state_dict().items())
    assert type(again.scheduler).__name__ == "LCMScheduler"
    assert flaxgen.load(tmp_path / "model").whole.config.net.guidance_dim == 20
