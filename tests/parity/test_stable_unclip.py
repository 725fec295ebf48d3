"""Stable unCLIP and image variations: folders imported, run beside diffusers' own pipelines on the same noise, and
exported again."""

import jax
import numpy as np
import PIL.Image
import pytest
from test_stable_diffusion import close, noise_of

import flaxgen
from flaxgen.cli import main
from flaxgen.interchange.stable_diffusion import export_pipeline, import_pipeline
from flaxgen.zoo.latent import looks

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
karlo = pytest.importorskip("karlo_folder")
stable = pytest.importorskip("stable_folder")

SEED, STEPS, LEVEL, WIDTH = 7, 5, 400, karlo.DIM
PICTURE = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)


def unclip():
    from diffusers.pipelines.stable_diffusion import StableUnCLIPImageNormalizer

    torch.manual_seed(0)
    tokenizer, normalizer = karlo.make_tokenizer(), StableUnCLIPImageNormalizer(WIDTH)
    with torch.no_grad():
        normalizer.mean.normal_()
        normalizer.std.uniform_(0.5, 2)
    return diffusers.StableUnCLIPImg2ImgPipeline(
        feature_extractor=karlo.image_processor(),
        image_encoder=stable.shake(karlo.image_encoder(), 0.2),
        image_normalizer=normalizer,
        image_noising_scheduler=diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        tokenizer=tokenizer,
        text_encoder=stable.text_encoder(tokenizer, stable.WIDTHS["clip"]),
        unet=stable.unet(
            stable.WIDTHS["clip"], class_embed_type="projection", projection_class_embeddings_input_dim=2 * WIDTH
        ),
        scheduler=stable.scheduler("DDIMScheduler"),
        vae=stable.vae(),
    )


def variation():
    torch.manual_seed(0)
    return diffusers.StableDiffusionImageVariationPipeline(
        vae=stable.vae(),
        image_encoder=stable.shake(karlo.image_encoder(), 0.2),
        unet=stable.unet(WIDTH),
        scheduler=stable.scheduler("DDIMScheduler"),
        safety_checker=None,
        feature_extractor=karlo.image_processor(),
        requires_safety_checker=False,
    )


@pytest.fixture(scope="module", params=[unclip, variation], ids=["unclip", "variation"])
def both(request, tmp_path_factory):
    """Their pipeline, ours of its folder, and where that is."""
    place, theirs = tmp_path_factory.mktemp("looks"), request.param()
    theirs.save_pretrained(place / "folder")
    import_pipeline(place / "folder", place / "model")
    theirs.set_progress_bar_config(disable=True)
    return theirs, flaxgen.load(place / "model"), place


def noise_on_embeddings(num):
    key = jax.random.fold_in(jax.random.key(SEED), looks.NOISE)
    drawn = np.stack([np.asarray(jax.random.normal(jax.random.fold_in(key, i), (WIDTH,))) for i in range(num)])
    return torch.from_numpy(drawn)


@pytest.mark.parametrize("level", [None, LEVEL])
def test_variations_of_a_picture(both, level, monkeypatch):
    theirs, ours, _ = both
    given = {"num_inference_steps": STEPS, "guidance_scale": 3.0, "latents": noise_of(2), "output_type": "np"}
    own = {"num": 2, "seed": SEED, "steps": STEPS, "guidance": 3.0}
    pictures = [PIL.Image.fromarray(PICTURE)] * 2
    if isinstance(theirs, diffusers.StableDiffusionImageVariationPipeline):
        if level is not None:
            with pytest.raises(ValueError, match="noise_level=400: this model reads the embedding"):
                ours.vary(PICTURE, noise_level=level, **own)
            return
        close(ours.vary(PICTURE, **own).images, theirs(pictures, **given).images)
        return
    plain, noise = theirs.noise_image_embeddings, noise_on_embeddings(2)
    monkeypatch.setattr(theirs, "noise_image_embeddings", lambda **more: plain(**{**more, "noise": noise}))
    wanted = theirs(pictures, ["a red square"] * 2, noise_level=level or 0, **given).images
    close(ours.vary(PICTURE, caption="a red square", noise_level=level, **own).images, wanted)


def test_a_picture_makes_a_difference_and_its_noise_too(both):
    _, ours, _ = both
    own = {"num": 1, "seed": SEED, "steps": STEPS, "guidance": 3.0}
    drawn = [ours.vary(picture, **own).images for picture in (PICTURE, 255 - PICTURE)]
    assert np.abs(drawn[0].astype(int) - drawn[1]).max() > 8


def test_blends_end_at_what_each_picture_looks_like(both):
    """All begin with the same noise; equal pictures give equal ones along the way."""
    _, ours, _ = both
    own = {"num": 3, "seed": SEED, "steps": STEPS, "guidance": 3.0}
    same = ours.blend(PICTURE, PICTURE, **own).images
    np.testing.assert_allclose(same[1].astype(int), same[0], atol=1)
    drawn = ours.blend(PICTURE, 255 - PICTURE, **own).images
    np.testing.assert_allclose(drawn[0].astype(int), same[0], atol=1)
    assert np.abs(drawn[2].astype(int) - drawn[0]).max() > 8


def test_exports_are_what_was_imported(both, tmp_path):
    theirs, ours, place = both
    export_pipeline(ours, tmp_path / "back")
    load = pytest.importorskip("safetensors.torch").load_file
    for file in (place / "folder").rglob("*.safetensors"):
        name = file.relative_to(place / "folder")
        one, other = load(file), load(tmp_path / "back" / name)
        if name.parts[0] == "text_encoder":  # transformers 5 writes other names than it and its versions before read
            one = {f"text_model.{key.removeprefix('text_model.')}": value for key, value in one.items()}
        assert set(one) == set(other), name
        assert all(torch.equal(one[key], other[key]) for key in one), name
    again = type(theirs).from_pretrained(tmp_path / "back")
    assert type(again.unet.config.class_embed_type) is type(theirs.unet.config.class_embed_type)
    again.set_progress_bar_config(disable=True)
    given = {"num_inference_steps": 2, "latents": noise_of(1), "output_type": "np"}
    drawn = []
    for pipeline in (theirs, again):
        torch.manual_seed(0)
        drawn.append(pipeline(image=PIL.Image.fromarray(PICTURE), **given).images)
    np.testing.assert_array_equal(*drawn)


def test_what_is_asked_of_the_wrong_model(both, tmp_path, capsys):
    theirs, ours, place = both
    if isinstance(theirs, diffusers.StableDiffusionImageVariationPipeline):
        assert main(["draw", "a", "--model", str(place / "model"), "--out", str(tmp_path / "a.png")]) == 2
        assert "draws variations of pictures alone: use vary or blend" in capsys.readouterr().err
        with pytest.raises(ValueError, match="caption is not read by this model"):
            ours.vary(PICTURE, caption="a")
    else:
        assert ours.draw("a red square", num=1, steps=2).images.shape == (1, stable.SIZE, stable.SIZE, 3)
        with pytest.raises(ValueError, match="noise_level=1000: expected"):
            ours.vary(PICTURE, noise_level=1000)
