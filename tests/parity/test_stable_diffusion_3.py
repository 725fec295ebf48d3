"""Whole folders of Stable Diffusion 3 and 3.5: imported, run beside diffusers' own pipelines on the same noise, and
exported again."""

import json

import compilations
import numpy as np
import PIL.Image
import pytest

import flaxgen
from flaxgen.family import regions
from flaxgen.interchange.latent_pipelines import LAYOUT, export_pipeline

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
plain = pytest.importorskip("test_stable_diffusion")
stable = pytest.importorskip("stable_folder")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
SHAPE = (stable.SIDE, stable.SIDE, 16)
SEED, STEPS, CAPTIONS = plain.SEED, plain.STEPS, plain.CAPTIONS
KINDS = {
    "sd3": {"third": True},
    "sd3_without_t5": {"third": False},
    "sd35": {"third": True, "qk_norm": "rms_norm", "dual_attention_layers": (0, 1)},
}


def loaded(theirs, place):
    theirs.save_pretrained(place / "folder")
    assert LAYOUT.matches(place / "folder")
    LAYOUT.read(place / "folder", place / "model", ())
    theirs.set_progress_bar_config(disable=True)
    return flaxgen.load(place / "model")


@pytest.fixture(scope="module", params=KINDS)
def both(request, tmp_path_factory):
    """Their pipeline, and ours of its folder."""
    theirs = stable.stable_3(**KINDS[request.param])
    return theirs, loaded(theirs, tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("negative", [None, "square"])
def test_captions_draw_the_same(both, negative):
    theirs, ours = both
    given = {"num_inference_steps": STEPS, "guidance_scale": 3.0, "latents": plain.noise_of(2, SHAPE)}
    wanted = theirs(CAPTIONS, negative_prompt=negative and [negative] * 2, output_type="np", **given).images
    drawn = ours.draw(CAPTIONS, num=1, seed=SEED, steps=STEPS, guidance=3.0, negative=negative).images
    plain.close(drawn, wanted)
    other = ours.draw(CAPTIONS, num=1, seed=SEED, steps=STEPS, guidance=3.0, set=("shift=1",)).images
    assert np.abs(other.astype(int) - drawn.astype(int)).max() > 2, "the shift is read"


def test_nothing_is_compiled_again(both):
    ours = both[1]
    settings = ((4, 2.0, 0, "a", 3), (9, 5.0, 0, "a", 3), (9, 5.0, 1, "a", 3), (9, 5.0, 1, "b", 3), (9, 5.0, 1, "b", 1))

    def draw(steps, guidance, seed, caption, shift):
        said = {"steps": steps, "guidance": guidance, "seed": seed, "set": (f"shift={shift}",)}
        return ours.draw([caption, "red"], num=1, **said).images.tobytes()

    first = draw(*settings[0])
    with compilations.counted() as seen:
        drawn = [draw(*values) for values in settings]
    assert seen == []
    assert drawn[0] == first
    assert len(set(drawn)) == len(drawn)


def test_other_samplers_come_to_the_same(both):
    """Of many steps, as all solve one equation."""
    ours = both[1]
    drawn = {name: ours.draw(["blue"], num=1, guidance=1, steps=100, sampler=name).images.astype(int)
             for name in ("euler", "heun", "dpmpp_2m")}  # fmt: skip
    assert all(np.abs(images - drawn["heun"]).mean() < 2 for images in drawn.values())
    with pytest.raises(ValueError, match="expected one of euler, heun, dpmpp_2m"):
        ours.draw(["blue"], num=1, sampler="pndm")


def test_variations(tmp_path, monkeypatch):
    import diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3_img2img as module

    theirs = stable.stable_3(diffusers.StableDiffusion3Img2ImgPipeline)
    ours = loaded(theirs, tmp_path)
    plain.without_chance(monkeypatch, module, plain.noise_of_variations(2, SHAPE))
    given = {"num_inference_steps": STEPS, "strength": 0.6, "guidance_scale": 3.0, "output_type": "np"}
    picture = PIL.Image.fromarray(plain.PICTURE)
    wanted = theirs(["a red square"] * 2, image=picture, height=stable.SIZE, width=stable.SIZE, **given).images
    drawn = ours.vary(plain.PICTURE, caption="a red square", num=2, seed=SEED, steps=STEPS, guidance=3.0, strength=0.6)
    plain.close(drawn.images, wanted)


def test_inpainting(tmp_path, monkeypatch):
    """Of their latents, decoded as their other two pipelines do: this one leaves out the latents' shift."""
    import diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3_inpaint as module

    theirs = stable.stable_3(diffusers.StableDiffusion3InpaintPipeline)
    ours = loaded(theirs, tmp_path)
    noise = plain.noise_of(2, SHAPE)
    plain.without_chance(monkeypatch, module, noise)
    given = {"num_inference_steps": STEPS, "strength": 1.0, "guidance_scale": 3.0, "output_type": "latent"}
    pictures = {"image": PIL.Image.fromarray(plain.PICTURE), "mask_image": PIL.Image.fromarray(plain.MASK[..., 0])}
    latents = theirs(["a red square"] * 2, **pictures, height=stable.SIZE, width=stable.SIZE, **given).images
    with torch.no_grad():
        decoded = theirs.vae.decode(latents / theirs.vae.config.scaling_factor + theirs.vae.config.shift_factor).sample
    wanted = theirs.image_processor.postprocess(decoded, output_type="np")
    seen = []
    monkeypatch.setattr(regions.Window, "put", lambda self, image, drawn, *rest: seen.append(drawn) or drawn)
    said = {"caption": "a red square", "num": 2, "seed": SEED, "steps": STEPS, "guidance": 3.0, "whole": True}
    ours.inpaint(plain.PICTURE, plain.MASK, **said)
    plain.close(seen[0], wanted)


def test_a_folder_comes_back_byte_by_byte(both, tmp_path):
    theirs, ours = both
    theirs.save_pretrained(tmp_path / "theirs")
    export_pipeline(ours, tmp_path / "ours")
    more = {} if theirs.text_encoder_3 else {"text_encoder_3": None, "tokenizer_3": None}
    again = type(theirs).from_pretrained(tmp_path / "ours", **more)
    for name, part in theirs.components.items():
        found = getattr(again, name)
        if isinstance(part, torch.nn.Module):
            assert part.state_dict().keys() == found.state_dict().keys()
            assert all(torch.equal(value, found.state_dict()[key]) for key, value in part.state_dict().items()), name
        elif name.startswith("tokenizer") and part is not None:
            assert found("a red square").input_ids == part("a red square").input_ids
    assert again.scheduler.config.shift == 3
    index = json.loads((tmp_path / "ours" / "model_index.json").read_text())
    assert index["_class_name"] == type(theirs).__name__
    LAYOUT.read(tmp_path / "ours", tmp_path / "again", ())
    both_again = flaxgen.load(tmp_path / "again")
    assert both_again.fingerprint == ours.fingerprint
    assert both_again.whole.config == ours.whole.config
