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
HINTS = np.random.default_rng(4).integers(0, 256, (2, 2 * stable.SIZE, 2 * stable.SIZE, 3), np.uint8)
STRENGTHS = (0.8, 0.5)
NAMES = ("controlnet", "controlnet_2")


@pytest.fixture(scope="module", params=PIPELINES)
def both(request, tmp_path_factory):
    """Their pipelines with one ControlNet and with two, and ours of their folders."""
    place = tmp_path_factory.mktemp(request.param)
    base = getattr(stable, request.param)(name="DDIMScheduler")
    base.save_pretrained(place / "folder")
    import_pipeline(place / "folder", place / "model")
    parts, controls = [f"{path.name}={path}" for path in (place / "model").iterdir() if path.is_dir()], []
    for name in NAMES:
        control = diffusers.ControlNetModel.from_unet(base.unet, conditioning_embedding_out_channels=(8, 16))
        controls.append(stable.shake(control, 0.2).eval())
        controls[-1].save_pretrained(place / f"{name}_there")
        assert main(["import", str(place / f"{name}_there"), str(place / name)]) == 0
        parts.append(f"{name}={place / name}")
    assert main(["compose", str(place / "whole"), *parts]) == 0
    more = {"add_watermarker": False} if request.param == "stable_xl" else {"requires_safety_checker": False}
    kind = getattr(diffusers, PIPELINES[request.param])
    theirs = [kind(**base.components, controlnet=own, **more) for own in (controls[0], controls)]
    for pipeline in theirs:
        pipeline.set_progress_bar_config(disable=True)
    return theirs, flaxgen.load(place / "whole")


GIVEN = {"num_inference_steps": plain.STEPS, "guidance_scale": 3.0, "output_type": "np"}
SIZES = {"height": stable.SIZE, "width": stable.SIZE}
ASKED = {"num": 1, "seed": plain.SEED, "steps": plain.STEPS, "guidance": 3.0}


def test_hints_steer_the_same(both):
    (theirs, _), ours = both
    more = {"image": PIL.Image.fromarray(HINTS[0]), "controlnet_conditioning_scale": STRENGTHS[0]}
    wanted = theirs(plain.CAPTIONS, **more, latents=plain.noise_of(2), **GIVEN, **SIZES).images
    drawn = ours.draw(plain.CAPTIONS, hint=HINTS[0], hint_strength=STRENGTHS[0], **ASKED).images
    plain.close(drawn, wanted)
    assert np.abs(drawn / 255.0 - ours.draw(plain.CAPTIONS, **ASKED).images / 255.0).max() > 0.1


@pytest.mark.parametrize("guess", [False, True])
def test_two_hints_steer_and_guess_the_same(guess, both):
    (_, theirs), ours = both
    more = {"image": list(map(PIL.Image.fromarray, HINTS)), "controlnet_conditioning_scale": list(STRENGTHS)}
    wanted = theirs(plain.CAPTIONS, **more, guess_mode=guess, latents=plain.noise_of(2), **GIVEN, **SIZES).images
    hints = {"hint": HINTS[0], "hint_strength": STRENGTHS[0], "hint_2": HINTS[1], "hint_2_strength": STRENGTHS[1]}
    plain.close(ours.draw(plain.CAPTIONS, **hints, hint_guess=guess, **ASKED).images, wanted)
