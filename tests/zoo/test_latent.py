"""Latent diffusion: it learns from an autoencoder's latents and captions' states, and draws through both."""

import dataclasses
import json
from typing import Any

import compilations
import dalle_toy
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_weights
import unclip_toy
from PIL import Image
from saving import write_model

import flaxgen
from flaxgen import parallel, verbs
from flaxgen.cli import main
from flaxgen.data import open_source
from flaxgen.family.denoising import Objective
from flaxgen.family.sampling import Sampling
from flaxgen.nets.attention import SpatialTransformer
from flaxgen.nets.dit import DiT
from flaxgen.nets.unet import UNet
from flaxgen.nets.vqvae import VqVae
from flaxgen.zoo import autoencoder, latent
from flaxgen.zoo.latent.config import SOLVERS, WAVES, batch_spec, check_sampling, with_solver
from flaxgen.zoo.latent.model import make_loss
from flaxgen.zoo.latent.statistics import SCALES
from flaxgen.zoo.latent.text import condition_of, read_captions

SIZE, SIDE, CHANNELS = 16, 4, 3
READS = SpatialTransformer(heads=2, norm_groups=4)
NET = UNet(
    image_size=SIDE, in_channels=CHANNELS, out_channels=CHANNELS, channels=8, multipliers=(1,), depth=1,
    attention=(READS,), middle="none", norm_groups=4, time_channels=8, token_dim=unclip_toy.WIDTH,
)  # fmt: skip
VAE = autoencoder.Config(
    **dalle_toy.RUN,
    steps=1,
    net=VqVae(
        image_size=SIZE, factor=4, channels=4, residual_channels=4, depth=1, latent_channels=CHANNELS, moments=True
    ),
    bottleneck=autoencoder.Gaussian(),
)
SAMPLING = Sampling(steps=4, guidance=2.0, threshold="none", grid="leading", offset=1, batch=8)
CAPTIONS = ("a red circle", "a small blue square")


def config_of(toy=None, **changes):
    places: Any = {} if toy is None else {"autoencoder": str(toy / "vae"), "clip": str(toy / "clip")}
    config = latent.Config(**dalle_toy.RUN, steps=2, net=NET, context=unclip_toy.CONTEXT, sampling=SAMPLING, **places)
    return dataclasses.replace(config, **changes)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """An autoencoder, another one, a CLIP, and the net, as model directories of random weights."""
    root = tmp_path_factory.mktemp("latent")
    for name, config in (("vae", VAE), ("clip", unclip_toy.CLIP_CONFIG)):
        dalle_toy.write_random(root / name, config)
    model = verbs.load(root / "vae")
    write_model(root / "other", VAE, jax.tree.map(lambda x: -x, model.params), 1)
    dalle_toy.write_random(root / "net", config_of(root), strength=3.0)
    assert compose(root / "whole", root) == 0
    return root


def compose(target, toy, **parts):
    given = {"autoencoder": toy / "vae", "denoiser": toy / "net", "clip": toy / "clip"} | parts
    return main(["compose", str(target), *(f"{part}={path}" for part, path in given.items())])


@pytest.fixture(scope="module")
def whole(toy):
    return flaxgen.load(toy / "whole")


def test_a_run_learns_from_scaled_latents_and_draws_as_its_composed_model(toy, tmp_path):
    config = config_of(toy)
    verbs.train(config, tmp_path / "run")  # without a plan: on one device
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 2
    assert all(0.5 < line["loss"] < 2 for line in lines), "a net that begins at 0 is wrong by the noise"
    assert compose(tmp_path / "model", toy, denoiser=tmp_path / "run") == 0
    drawn = [flaxgen.load(tmp_path / place).draw(CAPTIONS, num=1).images for place in ("run", "model")]
    np.testing.assert_array_equal(*drawn)
    stored = json.loads((tmp_path / "model" / "denoiser" / SCALES).read_text())
    images = np.stack([example["image"] for example in map(open_source(config.data).__getitem__, range(24))])
    latents = verbs.load(toy / "vae").encode(images)
    np.testing.assert_allclose(stored["mean"], latents.mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(stored["std"], latents.std((0, 1, 2)), rtol=1e-4)


def test_examples_are_scaled_latents_and_states_of_their_captions(toy):
    config = config_of(toy)
    files = latent.FAMILY.prepare(config, {})
    source = latent.FAMILY.open_source(latent.FAMILY, config, files)
    examples = [source[i] for i in range(len(source))]
    latents = np.stack([example["latent"] for example in examples])
    np.testing.assert_allclose(latents.mean((0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(latents.std((0, 1, 2)), 1, atol=1e-4)
    caption = open_source(config.data)[5]["text"]
    states = read_captions([verbs.load(toy / "clip")], config.text, [caption])
    np.testing.assert_allclose(examples[5]["tokens"], states.tokens[0], atol=2e-3)


def test_a_hidden_caption_is_the_empty_one(toy):
    model = verbs.load(toy / "net")
    config = dataclasses.replace(model.config, objective=Objective(condition_dropout=1 - 1e-7))
    keys = jax.random.key_data(jax.random.split(jax.random.key(0), 8))
    rng = np.random.default_rng(0)
    batch = {name: jnp.asarray(rng.normal(size=spec.shape), spec.dtype) for name, spec in batch_spec(config).items()}
    hidden = jax.jit(make_loss(config, model.files))(model.params, batch, jax.random.wrap_key_data(keys))[0]
    empty = read_captions([verbs.load(toy / "clip")], config.text, [""]).tokens.astype(np.float16)
    plain = dataclasses.replace(config, objective=Objective())
    told = {**batch, "tokens": jnp.repeat(jnp.asarray(empty), 8, 0)}
    loss = jax.jit(make_loss(plain, model.files))
    np.testing.assert_allclose(hidden, loss(model.params, told, jax.random.wrap_key_data(keys))[0], rtol=1e-6)
    assert abs(float(hidden - loss(model.params, batch, jax.random.wrap_key_data(keys))[0])) > 1e-5


def test_steps_guidance_seeds_captions_and_strengths_compile_nothing(whole):
    picture = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    whole.draw(CAPTIONS, num=1)
    whole.vary(picture, num=2)
    settings = ((3, 2.0, 0, None), (7, 5.0, 0, None), (7, 5.0, 1, None), (7, 5.0, 1, "a"))
    with compilations.counted() as seen:
        drawn = [
            whole.draw(CAPTIONS, num=1, steps=steps, guidance=guidance, seed=seed, negative=negative).images
            for steps, guidance, seed, negative in settings
        ]
        drawn += [whole.vary(picture, num=2, strength=strength, steps=9).images for strength in (0.3, 0.9)]
    assert seen == []
    assert len({images.tobytes() for images in drawn}) == len(drawn)
    with compilations.counted() as seen:
        whole.draw(CAPTIONS, num=1, sampler="euler")
    assert seen, "another sampler is another program"


def test_a_picture_follows_from_seed_and_number_alone(whole):
    many = whole.draw(["a red circle"], num=3).images
    np.testing.assert_array_equal(many[:1], whole.draw(["a red circle"], num=1).images)
    assert (many[0] != many[1]).any()
    pair = whole.draw(CAPTIONS, num=1).images
    np.testing.assert_array_equal(pair[0], many[0])


@pytest.mark.parametrize("name", SOLVERS)
def test_a_sampler_is_known_by_its_usual_name(name):
    """Its steps and guidance stay, and times that are trailing, as models for few steps need them."""
    chosen = with_solver(SAMPLING, name)
    assert (chosen.steps, chosen.guidance, chosen.batch) == (4, 2.0, 8)
    check_sampling(config_of(), chosen)
    its_own = name.endswith("karras") or name == "lcm"
    assert (with_solver(dataclasses.replace(SAMPLING, grid="trailing"), name).grid == "trailing") != its_own


def test_variations_of_little_strength_stay_near_the_picture(whole, toy):
    picture = open_source(dalle_toy.DATA)[3]["image"]
    near, far = (whole.vary(picture, num=4, strength=strength, steps=20).images for strength in (0.05, 1.0))
    kept = np.asarray(verbs.load(toy / "vae").autoencode(picture[None]))
    distance = [np.abs(images / 127.5 - 1 - kept).mean() for images in (near, far)]
    assert distance[0] < distance[1] / 2


def test_inpainting_changes_nothing_beside_the_mask(whole):
    picture = np.random.default_rng(1).integers(0, 256, (24, 20, 3), np.uint8)
    mask = np.zeros((24, 20, 1), np.uint8)
    mask[3:12, 4:15] = 255
    drawn = whole.inpaint(picture, mask, caption="a red circle", num=2).images
    free = np.broadcast_to(mask > 127, picture.shape)
    assert (drawn[:, ~free] == picture[~free]).all()
    assert (drawn[:, free] != picture[free]).mean() > 0.5


def test_other_sizes_and_tiles(whole):
    drawn = whole.draw(["a red circle"], num=1, height=24, width=32)
    assert drawn.images.shape == (1, 24, 32, 3)


@pytest.mark.parametrize("kind", ["UNet", "DiT"])
def test_classes(kind, tmp_path, toy):
    """A net that knows classes and no captions samples them in turn."""
    net = dataclasses.replace(NET, token_dim=0, num_classes=5, attention=())
    if kind == "DiT":
        net = DiT(SIDE, CHANNELS, CHANNELS, patch=2, width=16, depth=1, heads=2, num_classes=5)
    config = config_of(toy, net=net, objective=Objective(condition_dropout=0.2))
    params = random_weights.draw_like(latent.FAMILY.abstract_params(config))
    write_model(tmp_path / "net", config, params, 1, {})
    model = flaxgen.load(tmp_path / "net")
    all_classes, one = model.sample(num=8).images, model.sample(num=8, label=1).images
    assert all_classes.shape == (8, SIZE, SIZE, 3)
    np.testing.assert_array_equal(all_classes[1::4], one[1::4])
    with pytest.raises(ValueError, match="expected a class from 0 to 3"):
        model.sample(label=4)
    with pytest.raises(ValueError, match="reads no captions: use sample"):
        model.draw("a red circle")


@pytest.mark.slow
def test_a_step_on_a_mesh_is_a_step_on_one_device(toy):
    model, found = verbs.load(toy / "net"), []
    rng = np.random.default_rng(0)
    batch = {name: rng.normal(size=spec.shape).astype(spec.dtype) for name, spec in batch_spec(model.config).items()}
    for plan in (parallel.jit_plan(), parallel.mesh_plan(data=4, fsdp=2), parallel.pmap_plan()):
        init, make_step = latent.FAMILY.training(model.config, model.files)
        state = init(jax.random.key(0))
        # a third of the toy's weights, which are so large that the last digits of sums show in its gradients
        state = plan.place_state(state._replace(params=jax.tree.map(lambda x: jnp.array(x / 3), model.params)))
        state, metrics = plan.compile_step(make_step)(state, plan.place_batch(batch), jax.random.key(1))
        found.append((jax.device_get(plan.single(state).params), {k: float(v) for k, v in metrics.items()}))
    for ours, said in found[1:]:
        assert said == pytest.approx(found[0][1], rel=1e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), ours, found[0][0])


def test_the_vector_holds_embedding_and_sizes(toy):
    """Of sizes 0 the waves are cos 0 and sin 0."""
    net = dataclasses.replace(NET, token_dim=0, attention=(), vector_dim=unclip_toy.DIM + 6 * WAVES)
    config = config_of(toy, net=net, sizes=6)
    states = read_captions([verbs.load(toy / "clip")], config.text, CAPTIONS)
    vector = condition_of(config, states, (8.0, 16.0, 0.0, 0.0, 8.0, 16.0))["vector"]
    assert vector.shape == (2, net.vector_dim)
    np.testing.assert_allclose(vector[:, : unclip_toy.DIM], states.embedding, rtol=1e-6)
    waves = vector[0, unclip_toy.DIM :].reshape(6, WAVES)
    np.testing.assert_array_equal(waves[2, : WAVES // 2], 1)
    np.testing.assert_array_equal(waves[2, WAVES // 2 :], 0)
    np.testing.assert_allclose(waves[0, 0], np.cos(8), rtol=1e-5)
    np.testing.assert_array_equal(waves[0], waves[4])


BAD = {
    "steps": (["--steps", "2000"], "steps=2000"),
    "sampler": (["--sampler", "eular"], "expected one of pndm, ddim"),
    "size": (["--width", "30"], "expected multiples of 4, the nearest are 32x16"),
    "skip": (["--clip-skip", "9"], "the text encoder has 1 blocks"),
    "set": (["--set", "churn=-1"], "churn=-1"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_end_in_one_line(name, toy, tmp_path, capsys):
    flags, said = BAD[name]
    out = str(tmp_path / "out.png")
    assert main(["draw", "a red circle", "--model", str(toy / "whole"), "--num", "1", "--out", out, *flags]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert len([line for line in error.splitlines() if "error" in line]) == 1


def test_parts_that_do_not_belong_together_are_refused(toy, tmp_path, capsys):
    assert compose(tmp_path / "a", toy, autoencoder=toy / "other") == 2
    assert "was trained with the autoencoder" in capsys.readouterr().err
    with pytest.raises(ValueError, match="are 4 a side"):
        latent.FAMILY.prepare(config_of(toy, net=dataclasses.replace(NET, image_size=8)), {})
    with pytest.raises(ValueError, match="the autoencoder's latents have 3 channels"):
        latent.FAMILY.prepare(config_of(toy, net=dataclasses.replace(NET, in_channels=2, out_channels=2)), {})
    narrow = config_of(toy, net=dataclasses.replace(NET, token_dim=8))
    with pytest.raises(ValueError, match=r"states are 16 wide|give tokens"):
        latent.FAMILY.open_source(latent.FAMILY, narrow, latent.FAMILY.prepare(config_of(toy), {}))


def test_a_damaged_scale_is_named(toy):
    model = verbs.load(toy / "net")
    broken = dataclasses.replace(model, files={**model.files, SCALES: b"[]"})
    with pytest.raises(ValueError, match=r"latents\.json is damaged"):
        broken.draw("a red circle")


def test_a_picture_as_file_goes_in_and_out(toy, tmp_path):
    Image.fromarray(open_source(dalle_toy.DATA)[0]["image"]).save(tmp_path / "a.png")
    given = ["vary", str(tmp_path / "a.png"), "--model", str(toy / "whole"), "--caption", "a red circle", "--num", "1"]
    assert main([*given, "--out", str(tmp_path / "b.png")]) == 0
    assert main(["again", str(tmp_path / "b.png"), "--out", str(tmp_path / "c.png")]) == 0
    assert (np.asarray(Image.open(tmp_path / "b.png")) == np.asarray(Image.open(tmp_path / "c.png"))).all()
