"""A whole Karlo folder: imported, run beside diffusers' own pipeline on the same noise, and exported again.

diffusers keeps 1 - alpha_bar in float32, of which three digits are left at the clean end: its last step gives 0.9995 of
x0. Nets of random weights make more of that on the way to a picture, so its tables are in float64 here.
The noise is ours, which follows from the seed: functions below say by which keys, and diffusers is given the arrays.
"""

import json
import shutil
from collections import deque

import jax
import numpy as np
import PIL.Image
import pytest

import flaxgen
from flaxgen import cli
from flaxgen.diffusion import times
from flaxgen.interchange.karlo.reading import import_pipeline

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
karlo = pytest.importorskip("karlo_folder")
unclip_scheduler = pytest.importorskip("diffusers.schedulers.scheduling_unclip")

SEED = 7
CAPTIONS = ["a red square", "blue"]
PICTURE = np.random.default_rng(0).integers(0, 256, (karlo.LARGE, karlo.LARGE, 3), np.uint8)
SMALL, LARGE = ((side, side, 3) for side in (karlo.SMALL, karlo.LARGE))


def normal(key, shape):
    return np.asarray(jax.random.normal(key, (1, *shape)))[0]


def walked(key, shape, steps):
    """x_T and the noise of every step but the last, [steps ...]: the keys of `sampling.walk`."""
    start, key = jax.random.split(key)
    return np.stack([normal(start, shape), *(normal(jax.random.fold_in(key, i), shape) for i in range(steps - 1))])


def of_each(key, draw):
    """What examples draw from their own keys, [steps N ...], channels first."""
    noise = np.stack([draw(jax.random.fold_in(key, i)) for i in range(2)], axis=1)
    return torch.from_numpy(np.moveaxis(noise, -1, 2) if noise.ndim == 5 else noise)


def enlarged(key, steps):
    walk, _, _, start = jax.random.split(key, 4)
    noise = [normal(jax.random.fold_in(walk, i), LARGE) for i in range(steps - 1)]
    return np.stack([normal(start, LARGE), *noise])


def stage_keys():
    return jax.random.split(jax.random.key(SEED), 3)


def noise_of_stages():
    """Of the prior, the decoder and the upsampler."""
    prior_key, decoder_key, upsamplers_key = stage_keys()
    return (
        of_each(prior_key, lambda key: walked(jax.random.fold_in(key, 0), (karlo.DIM,), 25)),
        of_each(decoder_key, lambda key: walked(key, SMALL, 25)),
        of_each(jax.random.fold_in(upsamplers_key, 0), lambda key: enlarged(key, 7)),
    )


def exact_tables(scheduler):
    """The same table in float64 [Nichol21, eq. 17]."""
    t = torch.arange(1001, dtype=torch.float64) / 1000
    alpha_bar = torch.cos((t + 0.008) / 1.008 * torch.pi / 2) ** 2
    scheduler.betas = torch.clamp(1 - alpha_bar[1:] / alpha_bar[:-1], max=0.999)
    scheduler.alphas = 1 - scheduler.betas
    assert torch.allclose(torch.cumprod(scheduler.alphas, 0).float(), scheduler.alphas_cumprod, atol=1e-5)
    scheduler.alphas_cumprod = torch.cumprod(scheduler.alphas, 0)


def run_theirs(pipeline, noises, names, **given):
    """Their pictures [N H W 3] in [0, 1], and what each stage made on the way, all steps drawing from `noises`."""
    for name in names:
        exact_tables(getattr(pipeline, f"{name}_scheduler"))
    steps, made = deque(x for noise in noises for x in noise[1:]), {}

    def draw(shape, **_):
        assert steps[0].shape == shape
        return steps.popleft()

    def watched(name, scheduler):
        step = scheduler.step

        def record(*arguments, **keywords):
            out = step(*arguments, **keywords)
            made[name] = out.prev_sample.numpy()
            return out

        return record

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unclip_scheduler, "randn_tensor", draw)
        for name in names:
            scheduler = getattr(pipeline, f"{name}_scheduler")
            patch.setattr(scheduler, "step", watched(name, scheduler))
        latents = {f"{name}_latents": noise[0] for name, noise in zip(names, noises, strict=True)}
        pipeline.set_progress_bar_config(disable=True)
        images = pipeline(**given, **latents, output_type="np").images
    assert not steps
    return images, made


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Both models, and what theirs makes of CAPTIONS."""
    folder = tmp_path_factory.mktemp("karlo")
    pipeline = karlo.text_pipeline()
    pipeline.save_pretrained(folder / "theirs")
    assert cli.main(["import", str(folder / "theirs"), str(folder / "ours")]) == 0
    images, made = run_theirs(pipeline, noise_of_stages(), ("prior", "decoder", "super_res"), prompt=CAPTIONS)
    made["prior"] = pipeline.prior.post_process_latents(torch.from_numpy(made["prior"])).detach().numpy()
    made["decoder"] = made["decoder"].transpose(0, 2, 3, 1).clip(-1, 1)
    made["pipeline"] = pipeline
    return folder, flaxgen.load(folder / "ours"), images, made


def draw_small(parts, condition, key):
    empty = {name: value[None] for name, value in parts["clip"].empty_text().items()}
    return parts["decoder"].generate(condition, key, empty=empty)


def enlarge(parts, small, key):
    """In [0, 1], as diffusers gives pictures."""
    return parts["upsampler_1"].upsample(small, jax.random.fold_in(key, 0)) / 2 + 0.5


def largest(ours, theirs):
    assert ours.shape == theirs.shape
    assert theirs.std() > 0.05  # or there is nothing to compare
    return np.abs(ours - theirs).max()


def test_prior(drawn):
    _, model, _, made = drawn
    ours = model.parts["prior"].draw_embeddings(model.parts["clip"].text_fields(CAPTIONS), stage_keys()[0])
    assert largest(ours, made["prior"]) <= 1e-4


def test_decoder(drawn):
    _, model, _, made = drawn
    text = model.parts["clip"].text_fields(CAPTIONS)
    ours = draw_small(model.parts, {**text, "image_embedding": made["prior"]}, stage_keys()[1])
    assert largest(ours, made["decoder"]) <= 1e-3


def test_upsampler(drawn):
    _, model, images, made = drawn
    assert largest(enlarge(model.parts, made["decoder"], stage_keys()[2]), images) <= 1e-4


def test_whole_pipeline(drawn):
    _, model, images, _ = drawn
    text = model.parts["clip"].text_fields(CAPTIONS)
    prior_key, decoder_key, upsamplers_key = stage_keys()
    embedding = model.parts["prior"].draw_embeddings(text, prior_key)
    small = draw_small(model.parts, {**text, "image_embedding": embedding}, decoder_key)
    assert largest(enlarge(model.parts, small, upsamplers_key), images) <= 1e-3
    pixels = model.draw(CAPTIONS, seed=SEED, num=1).images
    assert np.abs(pixels - images * 255.0).max() <= 1


def test_export_is_read_by_diffusers(drawn):
    """The very files come back, and the pipeline that diffusers makes of them."""
    folder, _, _, made = drawn
    assert cli.main(["export", str(folder / "ours"), str(folder / "back"), "--layout", "diffusers"]) == 0
    check_same_files(folder / "theirs", folder / "back", 6)
    pipeline, again = made["pipeline"], read(diffusers.UnCLIPPipeline, folder / "back")
    for name in ("prior_scheduler", "decoder_scheduler", "super_res_scheduler"):
        ours, theirs = (dict(getattr(p, name).config) for p in (again, pipeline))
        assert {k: v for k, v in ours.items() if k[0] != "_"} == {k: v for k, v in theirs.items() if k[0] != "_"}
    given = {"padding": "max_length", "max_length": karlo.CONTEXT, "truncation": True}
    captions = [*CAPTIONS, "", "red " * 20]
    assert again.tokenizer.model_max_length == karlo.CONTEXT
    assert again.tokenizer(captions, **given) == pipeline.tokenizer(captions, **given)


def read(pipeline, folder):
    """By diffusers. It moved the package that Karlo's model_index.json names, and then reads no such folder, not even
    its own: here the package is where it was."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diffusers.pipelines, "unclip", diffusers.pipelines.deprecated.unclip, raising=False)
        return pipeline.from_pretrained(folder)


def check_same_files(there, back, count):
    tensors = sorted(path.relative_to(there) for path in there.rglob("*.safetensors"))
    assert len(tensors) == count
    for path in tensors:
        assert (there / path).read_bytes() == (back / path).read_bytes(), path
    assert tensors == sorted(path.relative_to(back) for path in back.rglob("*.safetensors"))


def test_variation(tmp_path):
    """UnCLIPImageVariationPipeline is `vary`: a picture's embedding, the empty caption on both sides of guidance."""
    pipeline = karlo.variation_pipeline()
    pipeline.save_pretrained(tmp_path / "theirs")
    assert cli.main(["import", str(tmp_path / "theirs"), str(tmp_path / "ours")]) == 0
    model = flaxgen.load(tmp_path / "ours")
    image = PIL.Image.fromarray(PICTURE)
    with torch.no_grad():
        pixels = pipeline.feature_extractor(images=image, return_tensors="pt").pixel_values
        embedding = pipeline.image_encoder(pixels).image_embeds.numpy()
    assert largest(model.parts["clip"].encode_image(PICTURE[None]), embedding) <= 1e-5
    noises = noise_of_stages()[1:]
    images, _ = run_theirs(pipeline, noises, ("decoder", "super_res"), image=image, num_images_per_prompt=2)
    assert np.abs(model.vary(PICTURE, seed=SEED, num=2).images - images * 255.0).max() <= 1
    assert largest(images[0], images[1]) > 0.1

    assert cli.main(["export", str(tmp_path / "ours"), str(tmp_path / "back"), "--layout", "diffusers"]) == 0
    check_same_files(tmp_path / "theirs", tmp_path / "back", 6)
    again = read(diffusers.UnCLIPImageVariationPipeline, tmp_path / "back")
    theirs = again.feature_extractor(images=image, return_tensors="pt").pixel_values
    assert torch.equal(theirs, pixels)


def test_kandinsky_prior(tmp_path):
    """Karlo's class with another reach of x0; the towers come with it."""
    karlo.kandinsky_prior().save_pretrained(tmp_path / "theirs")
    assert cli.main(["import", str(tmp_path / "theirs"), str(tmp_path / "ours")]) == 0
    model = flaxgen.load(tmp_path / "ours")
    assert model.parts["prior"].config.sampling.limit == 10.0
    text = model.parts["clip"].text_fields(CAPTIONS)
    assert np.isfinite(model.parts["prior"].draw_embeddings(text, jax.random.key(0))).all()
    assert cli.main(["export", str(tmp_path / "ours"), str(tmp_path / "back"), "--layout", "diffusers"]) == 0
    check_same_files(tmp_path / "theirs", tmp_path / "back", 3)
    read(diffusers.KandinskyV22PriorPipeline, tmp_path / "back")


def test_their_grid_is_ours():
    """Inclusive of both ends; where the exact time is between two, theirs may round a float that is below."""
    scheduler = diffusers.UnCLIPScheduler()
    for steps in (*range(2, 60), 100, 250, 999, 1000):
        scheduler.set_timesteps(steps)
        ours = (times.linspace(steps, 1000)[:-1] * 1000 - 1).round().astype(int)
        theirs, between = scheduler.timesteps.numpy(), 2 * 999 * np.arange(steps)[::-1] % (2 * (steps - 1)) == steps - 1
        assert np.array_equal(ours[~between], theirs[~between]), steps
        assert np.abs(ours - theirs).max() <= 1
        assert steps not in (7, 25) or np.array_equal(ours, theirs)


def test_files_of_before(drawn, tmp_path):
    """Karlo's own folder has vocab.json and merges.txt, and pads by a token of special_tokens_map.json."""
    folder, model, _, _ = drawn
    shutil.copytree(folder / "theirs", tmp_path / "old")
    there = tmp_path / "old" / "tokenizer"
    described = json.loads((there / "tokenizer.json").read_text())["model"]
    (there / "tokenizer.json").unlink()
    (there / "vocab.json").write_text(json.dumps(described["vocab"]))
    (there / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(pair) for pair in described["merges"])]))
    (there / "tokenizer_config.json").write_text(json.dumps({"model_max_length": karlo.CONTEXT}))
    pad = {"content": "!", "lstrip": False, "normalized": False}
    (there / "special_tokens_map.json").write_text(json.dumps({"pad_token": pad}))
    import_pipeline(tmp_path / "old", tmp_path / "ours")
    again = flaxgen.load(tmp_path / "ours").parts["clip"]
    for ours, before in zip(again.tokenizer(CAPTIONS), model.parts["clip"].tokenizer(CAPTIONS), strict=True):
        np.testing.assert_array_equal(ours, before)
    assert again.tokenizer.pad_id == 0
