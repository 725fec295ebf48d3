"""Models of latent diffusion that read the embedding of a picture."""

import dataclasses

import compilations
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_weights
import unclip_toy
from PIL import Image
from saving import write_model
from test_latent import NET, SIZE, compose, config_of, toy  # noqa: F401

import flaxgen
from flaxgen.cli import main
from flaxgen.family.process import Process
from flaxgen.types import Params
from flaxgen.zoo import clip, latent
from flaxgen.zoo.latent import looks
from flaxgen.zoo.latent.config import ImageEmbedding
from flaxgen.zoo.latent.requests import BlendLatent, VaryLatent, used
from flaxgen.zoo.latent.statistics import STATISTICS, statistics_of, write_statistics

A, B = np.random.default_rng(3).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)
NOISED = {"net": NET.clone(vector_dim=2 * unclip_toy.DIM), "image_embedding": ImageEmbedding()}
SHOWN = {"net": NET.clone(token_dim=unclip_toy.DIM), "context": 1, "image_embedding": ImageEmbedding("token")}
MEAN, STD = np.linspace(-1, 1, unclip_toy.DIM, dtype=np.float32), np.full(unclip_toy.DIM, 2, np.float32)


def params_of(config) -> Params:
    return jax.tree.map(lambda x: 3 * x, random_weights.draw_like(latent.FAMILY.abstract_params(config)))


@pytest.fixture(scope="module")
def models(toy, tmp_path_factory):  # noqa: F811
    """Where models of both kinds are."""
    root = tmp_path_factory.mktemp("looks")
    for name, fields, files in (
        ("noised", NOISED, write_statistics(MEAN, STD)),
        ("shown", SHOWN, {}),
    ):
        config = config_of(**fields)
        write_model(root / f"{name}_net", config, params_of(config), 1, files)
        parts = {"denoiser": root / f"{name}_net", "vision": toy / "clip", "autoencoder": toy / "vae"}
        parts |= {"clip": toy / "clip"} if name == "noised" else {}
        assert main(["compose", str(root / name), *(f"{part}={path}" for part, path in parts.items())]) == 0
    return root


def test_noise_on_an_embedding_is_that_of_its_level():
    """alpha^2 of entry n is cos^2((n + 1) / N + s) over that of the start [Nichol21, eq. 17], in float64."""
    rng, level, steps = np.random.default_rng(0), 12, 40
    x, noise = rng.normal(size=(2, unclip_toy.DIM))
    statistics = {"mean": jnp.asarray(MEAN), "std": jnp.asarray(STD)}
    how = ImageEmbedding(noise=Process(schedule="cosine", timesteps=steps))
    found = looks.noised(how, jnp.float32(x), level, jnp.float32(noise), statistics)

    def f(t):
        return np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2

    kept = f((level + 1) / steps) / f(0)
    wanted = (np.sqrt(kept) * (x - MEAN) / STD + np.sqrt(1 - kept) * noise) * STD + MEAN
    half = unclip_toy.DIM // 2
    angles = level * 10_000.0 ** (-np.arange(half) / half)
    np.testing.assert_allclose(found, np.concatenate([wanted, np.cos(angles), np.sin(angles)]), atol=1e-5)


def test_what_is_seen_changes_what_is_drawn_and_numbers_compile_nothing(models):
    model = flaxgen.load(models / "noised")
    first = model.vary(A, num=2, caption="a red circle").images
    with compilations.counted() as seen:
        others = [
            model.vary(B, num=2, caption="a red circle").images,
            model.vary(A, num=2, caption="a red circle", noise_level=900).images,
            model.vary(A, num=2, caption="a small blue square", seed=1, steps=3).images,
        ]
    assert seen == []
    assert len({images.tobytes() for images in (first, *others)}) == 4
    more = model.vary(A, num=3, caption="a red circle").images  # another batch is another program
    np.testing.assert_allclose(more[:2].astype(int), first, atol=2)
    assert first[0].tobytes() != first[1].tobytes()


def test_parts_are_read_one_at_a_time_and_pictures_are_drawn_again(models, tmp_path):
    """The same bytes; a picture says which strength it was drawn with, None where it began with noise."""
    whole, sequential = (flaxgen.load(models / "noised", sequential=way) for way in (False, True))
    pictures = whole.vary(A, num=1, noise_level=9)
    np.testing.assert_array_equal(sequential.vary(A, num=1, noise_level=9).images, pictures.images)
    Image.fromarray(A).save(tmp_path / "a.png")
    arguments = ["vary", str(tmp_path / "a.png"), "--num", "1", "--noise-level", "9", "--model", str(models / "noised")]
    assert main([*arguments, "--out", str(tmp_path / "b.png")]) == 0
    assert main(["again", str(tmp_path / "b.png"), "--out", str(tmp_path / "c.png")]) == 0
    drawn = [np.asarray(Image.open(tmp_path / name)) for name in ("b.png", "c.png")]
    np.testing.assert_array_equal(*drawn)
    np.testing.assert_array_equal(drawn[0], pictures.images[0])
    config = whole.whole.config
    assert [used(config, VaryLatent(image=A, **more))["strength"] for more in ({}, {"strength": 0.5})] == [None, 0.5]
    assert used(config_of(), VaryLatent(image=A))["strength"] == 0.75
    assert used(config_of(), BlendLatent(a=A, b=A))["strength"] == 0.6


def test_other_verbs_look_at_no_picture(models):
    model, mask = flaxgen.load(models / "noised"), np.zeros((SIZE, SIZE, 1), np.uint8)
    mask[:8] = 255
    assert model.inpaint(A, mask, "a red circle", num=1).images.shape == (1, SIZE, SIZE, 3)
    assert model.upscale(A, factor=1.5).images.shape == (1, 24, 24, 3)
    drawn = [model.draw("a red circle", num=1, seed=seed).images for seed in (0, 0, 1)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert drawn[0].tobytes() != drawn[2].tobytes()


def test_a_blend_is_drawn_with_noise_on_embeddings(models):
    model = flaxgen.load(models / "noised")
    drawn = [model.blend(A, B, num=2, noise_level=level).images for level in (0, 900)]
    assert drawn[0].tobytes() != drawn[1].tobytes()


def test_a_clip_of_one_tower_says_what_it_reads():
    config = unclip_toy.CLIP_CONFIG
    for tower, fields in (("text", {"image"}), ("vision", {"ids", "mask", "false_ids", "false_mask"})):
        one = dataclasses.replace(config, net=config.net.clone(**{tower: None}))
        assert set(clip.FAMILY.batch_spec(one)) == fields


def test_a_strength_begins_with_the_picture(models):
    model = flaxgen.load(models / "noised")
    drawn = model.vary(A, num=1, strength=0.25)
    again = np.asarray(model.whole.autoencoder.autoencode(A[None]))
    given = np.clip((again + 1) * 127.5, 0, 255)
    distances = [np.abs(images.astype(float) - given).mean() for images in (drawn.images, model.vary(A, num=1).images)]
    assert distances[0] < distances[1]


def test_a_blend_walks_between_embeddings_from_one_noise(models, monkeypatch):
    model, seen = flaxgen.load(models / "shown"), []
    monkeypatch.setattr(
        looks, "condition", lambda parts, embeddings, *rest: seen.append(embeddings) or whole(embeddings)
    )

    def whole(embeddings):
        return {"tokens": embeddings[:, None]}

    images = model.blend(A, B, num=3).images
    (embeddings,) = seen
    tower = model.whole.vision
    tower = dataclasses.replace(tower, config=dataclasses.replace(tower.config, normalise=False))
    a, b = (tower.encode_image(picture[None])[0] for picture in (A, B))
    assert abs(np.linalg.norm(a) - unclip_toy.DIM**0.5) > 1e-3, "its own length, and not the one of other stages"
    np.testing.assert_allclose(embeddings[[0, 2]], [a, b], rtol=1e-4, atol=1e-5)
    bisector = a / np.linalg.norm(a) + b / np.linalg.norm(b)
    expected = bisector / np.linalg.norm(bisector) * (np.linalg.norm(a) + np.linalg.norm(b)) / 2
    np.testing.assert_allclose(embeddings[1], expected, rtol=1e-3, atol=1e-4)
    assert len({image.tobytes() for image in images}) == 3
    same = model.blend(A, A, num=2).images
    np.testing.assert_array_equal(same[0], same[1])


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("shown", ["draw", "a"], "draws variations of pictures alone: use vary or blend"),
        ("shown", ["vary", "PICTURE", "--caption", "a"], "caption is not read by this model"),
        (
            "shown",
            ["vary", "PICTURE", "--noise-level", "3"],
            "noise_level=3: this model reads the embedding of a picture",
        ),
        ("shown", ["vary", "PICTURE", "--clip-skip", "1"], "clip_skip is not read by this model"),
        ("shown", ["vary", "PICTURE", "--plain"], "plain is not read by this model"),
        ("shown", ["vary", "PICTURE", "--refine-from", "0"], "refine_from is not read by this model"),
        ("noised", ["vary", "PICTURE", "--noise-level", "1000"], "--noise-level 1000: expected 0 to 999"),
    ],
)
def test_what_cannot_be_asked(models, name, arguments, said, tmp_path, capsys):
    Image.fromarray(A).save(tmp_path / "a.png")
    given = [str(tmp_path / "a.png") if argument == "PICTURE" else argument for argument in arguments]
    assert main([*given, "--model", str(models / name), "--out", str(tmp_path / "out.png")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_parts_that_do_not_belong_together(models, toy, tmp_path, capsys):  # noqa: F811
    assert compose(tmp_path / "a", toy, vision=toy / "clip") == 2
    assert "vision: this denoiser reads no embeddings of pictures" in capsys.readouterr().err
    config = config_of(net=NET.clone(vector_dim=6), image_embedding=ImageEmbedding())
    write_model(tmp_path / "net", config, params_of(config), 1)
    assert compose(tmp_path / "b", toy, denoiser=tmp_path / "net", vision=toy / "clip") == 2
    assert f"embeddings {unclip_toy.DIM} wide, and the denoiser reads 3" in capsys.readouterr().err
    assert compose(tmp_path / "d", toy, denoiser=models / "shown_net", vision=toy / "clip") == 2
    assert "clip: this denoiser reads the embedding of a picture alone, leave it out" in capsys.readouterr().err
    assert compose(tmp_path / "c", toy, denoiser=models / "noised_net") == 0
    with pytest.raises(ValueError, match="lacks the part 'vision', the CLIP whose embeddings"):
        flaxgen.load(tmp_path / "c").vary(A)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"net": NET.clone(vector_dim=5)}, "net.vector_dim=5: expected twice the width"),
        ({"net": NET}, "net.vector_dim=0: expected twice the width"),
        ({"net": NET.clone(vector_dim=4, token_dim=0)}, "net.token_dim=0: a net with an image_embedding"),
        (
            {"image_embedding": ImageEmbedding("token"), **{"net": NET.clone(vector_dim=4)}},
            "net.vector_dim=4: expected",
        ),
    ],
)
def test_fields_that_do_not_fit(fields, said):
    with pytest.raises(ValueError, match=said):
        config_of(**{"image_embedding": ImageEmbedding(), **fields})


def test_it_is_not_trained_here_and_its_statistics_are_checked(toy):  # noqa: F811
    with pytest.raises(ValueError, match="imported, and not trained here"):
        latent.FAMILY.prepare(config_of(toy, **NOISED), {})
    other = config_of(toy, net=NOISED["net"])
    with pytest.raises(ValueError, match="image_embedding=None: the net in there has ImageEmbedding"):
        latent.family.check_same_net(other, config_of(toy, **NOISED), "there")
    with pytest.raises(ValueError, match="is damaged"):
        statistics_of({STATISTICS: b"no"}, 3)
    with pytest.raises(ValueError, match="expected"):
        statistics_of(write_statistics(MEAN, STD), 3)
