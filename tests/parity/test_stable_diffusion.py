"""Whole folders of Stable Diffusion: imported, run beside diffusers' own pipelines on the same noise, and exported
again.

The noise is ours, which follows from the seed: `noise_of` says by which keys, and diffusers is given the arrays.
"""

import json

import jax
import ldm_toy
import numpy as np
import PIL.Image
import pytest
import safetensors.numpy

import flaxgen
from flaxgen.cli import main
from flaxgen.family import regions
from flaxgen.interchange.stable_diffusion import export_pipeline, import_pipeline
from flaxgen.weights.ldm import write_single
from flaxgen.zoo.latent.config import SOLVERS

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
stable = pytest.importorskip("stable_folder")
load_torch = pytest.importorskip("safetensors.torch").load_file

SEED, STEPS = 7, 5
CAPTIONS = ["a red square", "blue"]
CLASSES = {
    "pndm": ("PNDMScheduler", {}),
    "ddim": ("DDIMScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {}),
    "dpmpp_2m_karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "unipc": ("UniPCMultistepScheduler", {}),
}


def noise_of(num, shape=(stable.SIDE, stable.SIDE, 4)):
    """x_T of each picture, channels first."""
    keys = [jax.random.split(jax.random.fold_in(jax.random.key(SEED), i))[0] for i in range(num)]
    drawn = np.stack([np.asarray(jax.random.normal(key, (1, *shape)))[0] for key in keys])
    return torch.from_numpy(np.moveaxis(drawn, -1, 1).copy())


@pytest.fixture(scope="module", params=["stable", "stable_xl"])
def both(request, tmp_path_factory):
    """Their pipeline, and ours of its folder."""
    place = tmp_path_factory.mktemp(request.param)
    theirs = getattr(stable, request.param)()
    theirs.save_pretrained(place / "folder")
    import_pipeline(place / "folder", place / "model")
    theirs.set_progress_bar_config(disable=True)
    return theirs, flaxgen.load(place / "model")


def close(ours, theirs, worst=1e-3):
    """Within `worst` of the range, and half a level that rounding may add."""
    theirs = np.asarray(theirs)
    assert np.std(theirs) > 0.05, "nothing is drawn"
    assert np.abs(ours.astype(np.float32) / 255 - theirs).max() <= worst + 0.5 / 255 + 1e-6


@pytest.mark.parametrize("name", CLASSES)
def test_every_sampler_draws_the_same(both, name):
    theirs, ours = both
    kind, more = CLASSES[name]
    theirs.scheduler = stable.scheduler(kind, **more)
    noise = noise_of(2)
    wanted = theirs(CAPTIONS, num_inference_steps=STEPS, guidance_scale=3.0, latents=noise, output_type="np").images
    drawn = ours.draw(CAPTIONS, num=1, seed=SEED, steps=STEPS, guidance=3.0, sampler=name).images
    assert name in SOLVERS
    close(drawn, wanted)


def test_negative_captions(both):
    theirs, ours = both
    theirs.scheduler = stable.scheduler()
    given = {"num_inference_steps": STEPS, "guidance_scale": 3.0, "latents": noise_of(2), "output_type": "np"}
    wanted = theirs(CAPTIONS, negative_prompt=["square", "square"], **given).images
    drawn = ours.draw(CAPTIONS, num=1, seed=SEED, steps=STEPS, guidance=3.0, negative="square").images
    close(drawn, wanted)


def test_skipped_blocks(both):
    """Of captions alone: diffusers skips none for what pictures shall not show, where the programs that made skipping
    known do."""
    theirs, ours = both
    theirs.scheduler = stable.scheduler()
    # diffusers 0.42 skips blocks by a name that transformers 5 no longer has
    object.__setattr__(theirs.text_encoder, "text_model", theirs.text_encoder)
    given = {"num_inference_steps": STEPS, "guidance_scale": 1.0, "latents": noise_of(2), "output_type": "np"}
    wanted = theirs(CAPTIONS, clip_skip=1, **given).images
    close(ours.draw(CAPTIONS, num=1, seed=SEED, steps=STEPS, guidance=1, clip_skip=1).images, wanted)


PICTURE = np.random.default_rng(0).integers(0, 256, (stable.SIZE, stable.SIZE, 3), np.uint8)
MASK = np.zeros((stable.SIZE, stable.SIZE, 1), np.uint8)
MASK[4:11, 2:9] = 255


def noise_of_variations(num, shape=(stable.SIDE, stable.SIDE, 4)):
    keys = [jax.random.split(jax.random.fold_in(jax.random.key(SEED), i))[1] for i in range(num)]
    drawn = np.stack([np.asarray(jax.random.normal(key, shape)) for key in keys])
    return torch.from_numpy(np.moveaxis(drawn, -1, 1).copy())


def loaded(theirs, place):
    theirs.save_pretrained(place / "folder")
    import_pipeline(place / "folder", place / "model")
    theirs.set_progress_bar_config(disable=True)
    return flaxgen.load(place / "model")


def without_chance(monkeypatch, module, noise):
    """Encodings are their means, as ours are, and noise is ours."""
    means = diffusers.models.autoencoders.vae.DiagonalGaussianDistribution
    monkeypatch.setattr(means, "sample", lambda self, generator=None: self.mode())
    monkeypatch.setattr(module, "randn_tensor", lambda shape, **_: noise[: shape[0]])


@pytest.mark.parametrize("kind", ["stable", "stable_xl", "refiner"])
def test_variations(kind, tmp_path, monkeypatch):
    import diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_img2img as plain
    import diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl_img2img as xl

    pipeline = diffusers.StableDiffusionXLImg2ImgPipeline
    if kind == "stable":
        theirs = stable.stable(kind=diffusers.StableDiffusionImg2ImgPipeline, name="DDIMScheduler")
    else:
        theirs = stable.stable_xl(pipeline, 5 if kind == "refiner" else 6, name="DDIMScheduler")
    ours = loaded(theirs, tmp_path)
    without_chance(monkeypatch, plain if kind == "stable" else xl, noise_of_variations(2))
    given = {"num_inference_steps": STEPS, "strength": 0.7, "guidance_scale": 3.0, "output_type": "np"}
    wanted = theirs(["a red square"] * 2, image=PIL.Image.fromarray(PICTURE), **given).images
    drawn = ours.vary(PICTURE, caption="a red square", num=2, seed=SEED, steps=STEPS, guidance=3.0, strength=0.7)
    close(drawn.images, wanted)


@pytest.mark.parametrize("kind", ["stable", "stable_xl"])
def test_upscaling(kind, tmp_path, monkeypatch):
    """Theirs is image to image of latents that torch enlarged."""
    import diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_img2img as plain
    import diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl_img2img as xl

    name = "StableDiffusionImg2ImgPipeline" if kind == "stable" else "StableDiffusionXLImg2ImgPipeline"
    theirs = getattr(stable, kind)(kind=getattr(diffusers, name), name="DDIMScheduler")
    ours = loaded(theirs, tmp_path)
    larger = 2 * stable.SIDE
    without_chance(monkeypatch, plain if kind == "stable" else xl, noise_of_variations(2, (larger, larger, 4)))
    pixels = torch.from_numpy(np.moveaxis(PICTURE / np.float32(127.5) - 1, -1, 0)[None])
    with torch.no_grad():
        small = theirs.vae.encode(pixels).latent_dist.mode() * theirs.vae.config.scaling_factor
    latents = torch.nn.functional.interpolate(small, scale_factor=2.0, mode="bilinear").repeat(2, 1, 1, 1)
    given = {"num_inference_steps": STEPS, "strength": 0.7, "guidance_scale": 3.0, "output_type": "np"}
    wanted = theirs(["a red square"] * 2, image=latents, **given).images
    asked = {"caption": "a red square", "num": 2, "seed": SEED, "steps": STEPS, "guidance": 3.0, "strength": 0.7}
    close(ours.upscale(PICTURE, **asked).images, wanted)


@pytest.mark.parametrize("channels", [4, 9])
def test_inpainting_by_both_kinds_of_nets(channels, tmp_path, monkeypatch):
    import diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_inpaint as module

    theirs = stable.stable(channels, diffusers.StableDiffusionInpaintPipeline, name="DDIMScheduler")
    ours = loaded(theirs, tmp_path)
    noise = noise_of(2)
    without_chance(monkeypatch, module, noise)
    given = {"num_inference_steps": STEPS, "strength": 1.0, "guidance_scale": 3.0, "output_type": "np"}
    pictures = {"image": PIL.Image.fromarray(PICTURE), "mask_image": PIL.Image.fromarray(MASK[..., 0])}
    wanted = theirs(["a red square"] * 2, **pictures, latents=noise, height=16, width=16, **given).images
    seen = []
    monkeypatch.setattr(regions.Window, "put", lambda self, image, drawn, *rest: seen.append(drawn) or drawn)
    ours.inpaint(PICTURE, MASK, caption="a red square", num=2, seed=SEED, steps=STEPS, guidance=3.0, whole=True)
    close(seen[0], wanted)


def test_a_folder_comes_back_byte_by_byte(both, tmp_path):
    theirs, ours = both
    theirs.scheduler = stable.scheduler()
    theirs.save_pretrained(tmp_path / "theirs")
    export_pipeline(ours, tmp_path / "ours")
    again = type(theirs).from_pretrained(tmp_path / "ours")
    for name, part in theirs.components.items():
        if isinstance(part, torch.nn.Module):
            found = getattr(again, name).state_dict()
            assert part.state_dict().keys() == found.keys()
            assert all(torch.equal(value, found[key]) for key, value in part.state_dict().items()), name
    index = json.loads((tmp_path / "ours" / "model_index.json").read_text())
    assert index["_class_name"] == type(theirs).__name__


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_as_it_is(dtype, tmp_path):
    """From a folder to a model directory, which is half as large, through a composition, and back."""
    theirs = stable.stable().to(dtype)
    theirs.save_pretrained(tmp_path / "theirs")
    import_pipeline(tmp_path / "theirs", tmp_path / "model")
    parts = [f"{path.name}={path}" for path in (tmp_path / "model").iterdir() if path.is_dir()]
    assert main(["compose", str(tmp_path / "whole"), *parts]) == 0
    assert main(["export", str(tmp_path / "whole"), str(tmp_path / "ours"), "--layout", "diffusers"]) == 0
    for path in sorted((tmp_path / "theirs").glob("*/*.safetensors")):
        first, second = (load_torch(tmp_path / side / path.relative_to(tmp_path / "theirs"))
                         for side in ("theirs", "ours"))  # fmt: skip
        again = {name.removeprefix("text_model."): value for name, value in second.items()}
        assert len(first) == len(again)
        for name, value in first.items():
            found = again[name.removeprefix("text_model.")]
            assert found.dtype == value.dtype == dtype, name
            assert torch.equal(found, value), name
    assert main(["compose", str(tmp_path / "single"), *parts, "--single"]) == 0
    stored = safetensors.numpy.load_file(tmp_path / "single" / "denoiser" / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {np.dtype(np.float32)}
    loaded = flaxgen.load(tmp_path / "whole")
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(loaded.parts["denoiser"].params))


def ldm_tokenizer(folder):
    """One of 30 tokens, as the toys' text towers know."""
    words = ["!", *"abcdefghijklm", *(f"{letter}</w>" for letter in "abcdefghijklm")]
    vocab = {word: i for i, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    transformers.CLIPTokenizer(vocab=vocab, merges=[], model_max_length=9).save_pretrained(folder)


@pytest.mark.parametrize("kind", ldm_toy.NETS)
def test_a_single_file_and_its_folder_hold_the_same(kind, tmp_path):
    """Single file -> flaxgen -> single file, and -> a folder -> flaxgen."""
    write_single(tmp_path / "a.safetensors", ldm_toy.make(kind))
    ldm_tokenizer(tmp_path / "tokenizer")
    more = ["--set", "prediction=v"] if kind == "sd2" else []
    assert main(["import", str(tmp_path / "a.safetensors"), str(tmp_path / "model"), *more]) == 0
    assert main(["export", str(tmp_path / "model"), str(tmp_path / "single"), "--layout", "stability"]) == 0
    first, second = (
        safetensors.numpy.load_file(tmp_path / name) for name in ("a.safetensors", "single/model.safetensors")
    )
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert main(["export", str(tmp_path / "model"), str(tmp_path / "folder"), "--layout", "diffusers"]) == 0
    import_pipeline(tmp_path / "folder", tmp_path / "again")
    models = [flaxgen.load(tmp_path / name) for name in ("model", "again")]
    assert models[0].fingerprint == models[1].fingerprint
    assert models[0].whole.config == models[1].whole.config
