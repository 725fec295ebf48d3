"""SDXL's base and refiner in one drawing, beside diffusers' two pipelines one after the other."""

import pytest
from test_stable_diffusion import CAPTIONS, SEED, close, noise_of

import flaxgen
from flaxgen.cli import main
from flaxgen.interchange.stable_diffusion import import_pipeline

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("torch")
stable = pytest.importorskip("stable_folder")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
STEPS = 10


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Their two pipelines, and our model of both."""
    place = tmp_path_factory.mktemp("refined")
    base = stable.stable_xl()
    refiner = stable.stable_xl(diffusers.StableDiffusionXLImg2ImgPipeline, 5)
    refiner.register_modules(text_encoder_2=base.text_encoder_2, tokenizer_2=base.tokenizer_2, vae=base.vae)
    for name, pipeline in (("base", base), ("refiner", refiner)):
        pipeline.save_pretrained(place / f"{name}_folder")
        pipeline.set_progress_bar_config(disable=True)
        import_pipeline(place / f"{name}_folder", place / name)
    parts = [f"{part}={place / 'base' / part}" for part in ("autoencoder", "clip", "clip_2", "denoiser")]
    assert main(["compose", str(place / "whole"), *parts, f"refiner={place / 'refiner' / 'denoiser'}"]) == 0
    return base, refiner, flaxgen.load(place / "whole")


@pytest.mark.parametrize(
    ("kind", "name", "since"),
    [
        ("EulerDiscreteScheduler", "euler", 0.8),
        ("EulerDiscreteScheduler", "euler", 0.45),
        ("DDIMScheduler", "ddim", 0.8),
        ("DPMSolverMultistepScheduler", "dpmpp_2m", 0.7),
    ],
)
def test_the_refiner_ends_what_the_base_begins(both, kind, name, since):
    base, refiner, ours = both
    base.scheduler, refiner.scheduler = stable.scheduler(kind), stable.scheduler(kind)
    given = {"num_inference_steps": STEPS, "guidance_scale": 3.0, "negative_prompt": ["square", "square"]}
    begun = base(CAPTIONS, denoising_end=since, latents=noise_of(2), output_type="latent", **given).images
    wanted = refiner(CAPTIONS, denoising_start=since, image=begun, output_type="np", **given).images
    asked = {"num": 1, "seed": SEED, "steps": STEPS, "guidance": 3.0, "negative": "square", "sampler": name}
    close(ours.draw(CAPTIONS, refine_from=since, **asked).images, wanted)
