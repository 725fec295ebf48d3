"""Pipelines of Stable Diffusion with a ControlNet: imported part by part, composed, and run beside diffusers' own on
the same noise."""

import numpy as np
import PIL.Image
import pytest

import flaxgen
from flaxgen.cli import main
from flaxgen.interchange.stable_diffusion import import_pipeline

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
plain = pytest.importorskip("test_stable_diffusion")
stable, pytestmark = plain.stable, plain.pytestmark

PIPELINES = {"stable": "StableDiffusionControlNetPipeline", "stable_xl": "StableDiffusionXLControlNetPipeline"}
HINT = np.random.default_rng(4).integers(0, 256, (2 * stable.SIZE, 2 * stable.SIZE, 3), np.uint8)
STRENGTH = 0.8


@pytest.fixture(scope="module", params=PIPELINES)
def both(request, tmp_path_factory):
    """Their pipeline, and ours of its folder and the ControlNet's."""
    place = tmp_path_factory.mktemp(request.param)
    base = getattr(stable, request.param)(name="DDIMScheduler")
    control = diffusers.ControlNetModel.from_unet(base.unet, conditioning_embedding_out_channels=(8, 16))
    control = stable.shake(control, 0.2).eval()
    base.save_pretrained(place / "folder")
    control.save_pretrained(place / "there")
    import_pipeline(place / "folder", place / "model")
    assert main(["import", str(place / "there"), str(place / "control")]) == 0
    parts = [f"{path.name}={path}" for path in (place / "model").iterdir() if path.is_dir()]
    assert main(["compose", str(place / "whole"), *parts, f"controlnet={place / 'control'}"]) == 0
    more = {"add_watermarker": False} if request.param == "stable_xl" else {"requires_safety_checker": False}
    theirs = getattr(diffusers, PIPELINES[request.param])(**base.components, controlnet=control, **more)
    theirs.set_progress_bar_config(disable=True)
    return theirs, flaxgen.load(place / "whole")


def test_hints_steer_the_same(both):
    theirs, ours = both
    given = {"num_inference_steps": plain.STEPS, "guidance_scale": 3.0, "output_type": "np"}
    pictures = {"image": PIL.Image.fromarray(HINT), "height": stable.SIZE, "width": stable.SIZE}
    wanted = theirs(
        plain.CAPTIONS, **pictures, controlnet_conditioning_scale=STRENGTH, latents=plain.noise_of(2), **given
    ).images
    asked = {"num": 1, "seed": plain.SEED, "steps": plain.STEPS, "guidance": 3.0}
    drawn = ours.draw(plain.CAPTIONS, hint=HINT, hint_strength=STRENGTH, **asked).images
    plain.close(drawn, wanted)
    assert np.abs(drawn / 255.0 - ours.draw(plain.CAPTIONS, **asked).images / 255.0).max() > 0.1
