"""Walks, grids, directions and projections in the latents of tiny generators, with and without a w."""

import dataclasses

import gan_toy
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen import parallel
from flaxgen.data import to_pixels
from flaxgen.family.sheets import grid
from flaxgen.measure.features import Extractor, make_extractor
from flaxgen.zoo.gan import directions, latents, projection

JIT = parallel.make_plan("jit")
LABEL = {"style": None, "dcgan": None, "mlp": 2}


def key():
    """The same one, new, since none may be used twice."""
    return jax.random.key(7)


@pytest.fixture(scope="module")
def models():
    return {name: gan_toy.make_model(name, JIT) for name in gan_toy.CONFIGS}


@pytest.fixture(scope="module")
def style(models):
    """The StyleGAN2, and w of nine of its samples."""
    return models["style"], latents.find_latents(models["style"], key(), range(9))


@pytest.mark.parametrize("name", LABEL)
def test_a_walk_ends_at_the_samples_of_its_seed(models, name):
    model, label = models[name], LABEL[name]
    samples = model.generate(key(), 8, label=label)
    ends = latents.find_latents(model, key(), (5, 2), label=label)
    way = latents.interpolate(ends, 4, loop=False)
    assert way.has_styles == (name == "style")
    drawn = latents.synthesize(model, way)
    np.testing.assert_allclose(drawn[[0, 3]], samples[[5, 2]], atol=1e-5)
    assert np.abs(np.diff(drawn, axis=0)).max((1, 2, 3)).min() > 1e-3
    loop = latents.interpolate(ends, 6, loop=True)
    np.testing.assert_allclose(latents.synthesize(model, loop)[[0, 3]], samples[[5, 2]], atol=1e-5)


def test_styles_of_all_classes_are_those_of_the_samples(models):
    """Without a label sample i is of class i modulo the number of classes."""
    found = latents.find_latents(models["mlp"], key(), (4, 0, 5))
    assert found.label is not None
    np.testing.assert_array_equal(found.label, [1, 0, 2])
    np.testing.assert_allclose(
        latents.synthesize(models["mlp"], found), models["mlp"].generate(key(), 8)[[4, 0, 5]], atol=1e-5
    )


def test_a_loop_in_w_goes_straight_and_closes(style):
    codes = latents.take(style[1], (0, 1, 2)).codes
    way = latents.interpolate(latents.Latents(codes), 12, loop=True).codes
    np.testing.assert_array_equal(way[::4], codes)
    steps = (np.roll(way, -1, axis=0) - way).reshape(3, 4, *way.shape[1:])
    legs = np.roll(codes, -1, axis=0) - codes
    np.testing.assert_allclose(steps, np.repeat(legs[:, None] / 4, 4, axis=1), atol=1e-6)


def test_a_loop_in_z_turns_at_a_steady_pace_and_closes():
    points = np.random.default_rng(0).normal(size=(3, 50)).astype(np.float32)
    way = latents.interpolate(latents.Latents(points), 12, loop=True).codes
    np.testing.assert_allclose(way[::4], points, rtol=1e-5, atol=1e-5)
    norms = np.linalg.norm(way, axis=1)
    np.testing.assert_allclose(norms[2], (norms[0] + norms[4]) / 2, rtol=1e-5)
    unit = way / norms[:, None]
    angles = np.arccos((unit * np.roll(unit, -1, axis=0)).sum(1)).reshape(3, 4)
    ends = points / np.linalg.norm(points, axis=1, keepdims=True)
    whole = np.arccos((ends * np.roll(ends, -1, axis=0)).sum(1))
    np.testing.assert_allclose(angles, np.repeat(whole[:, None] / 4, 4, axis=1), rtol=1e-3)


@pytest.mark.parametrize("plan", ["pmap", "mesh"])
def test_many_devices_find_and_draw_the_same(models, plan):
    there = dataclasses.replace(models["mlp"], plan=parallel.make_plan(plan))
    ours, theirs = (latents.find_latents(model, key(), (9, 1, 4)) for model in (models["mlp"], there))
    np.testing.assert_allclose(ours.codes, theirs.codes, atol=1e-6)
    np.testing.assert_allclose(
        latents.synthesize(models["mlp"], ours), latents.synthesize(there, theirs), rtol=1e-5, atol=1e-5
    )


def test_truncation_rows_are_samples_and_end_in_one_picture(style):
    model, found = style
    rows = latents.truncation_rows(model, found, (1.0, 0.5, 0.0))
    assert rows.shape == (3, 9, 8, 8, 3)
    np.testing.assert_allclose(rows[0], model.generate(key(), 9), atol=1e-5)
    half = dataclasses.replace(model.config.sampling, truncation=0.5)
    np.testing.assert_allclose(rows[1], model.generate(key(), 9, sampling=half), atol=1e-5)
    np.testing.assert_allclose(rows[2], np.repeat(rows[2, :1], 9, 0), atol=1e-6)
    assert np.abs(rows[0] - rows[0, :1]).max() > 0.01
    picture = latents.show_rows(rows)
    np.testing.assert_array_equal(picture, grid(rows.reshape(27, 8, 8, 3), columns=9))


def test_styles_are_mixed_by_layers(style):
    found = style[1]
    a, b = latents.take(found, (0, 1)), latents.take(found, (2, 3))
    np.testing.assert_array_equal(latents.mix(a, b, range(0)).codes, a.codes)
    np.testing.assert_array_equal(latents.mix(a, b, range(4)).codes, b.codes)
    coarse, fine = latents.mix(a, b, range(2)).codes, latents.mix(b, a, range(2, 4)).codes
    np.testing.assert_array_equal(coarse, fine)
    np.testing.assert_array_equal(coarse[:, :2], b.codes[:, :2])
    np.testing.assert_array_equal(coarse[:, 2:], a.codes[:, 2:])


def test_a_mixing_grid_shows_its_sources(style):
    model, found = style
    a, b = latents.take(found, (0, 1)), latents.take(found, (2, 3, 4))
    samples = model.generate(key(), 9)
    for layers, same_as in ((range(0), samples[:2, None]), (range(4), samples[None, 2:5])):
        rows = latents.mixing_rows(model, a, b, layers)
        assert rows.shape == (3, 4, 8, 8, 3)
        assert (rows[0, 0] == 1).all()
        np.testing.assert_allclose(rows[1:, 0], samples[:2], atol=1e-5)
        np.testing.assert_allclose(rows[0, 1:], samples[2:5], atol=1e-5)
        np.testing.assert_allclose(rows[1:, 1:], np.broadcast_to(same_as, (2, 3, 8, 8, 3)), atol=1e-5)


def test_principal_components_are_those_of_the_covariance():
    rng = np.random.default_rng(0)
    axes, _ = np.linalg.qr(rng.normal(size=(5, 3)))
    samples = rng.normal(size=(400, 3)) * [3, 2, 1] @ axes.T + 7  # three dimensions of five
    found = directions.principal_components(samples.astype(np.float32))
    values, vectors = np.linalg.eigh(np.cov(samples.T, bias=True))
    np.testing.assert_allclose(found.deviations, np.sqrt(values[:1:-1]), rtol=1e-5)
    np.testing.assert_allclose(np.abs(found.components @ vectors[:, :1:-1]), np.eye(3), atol=1e-4)
    np.testing.assert_allclose(found.shares, values[:1:-1] / values.sum(), rtol=1e-4)
    np.testing.assert_allclose(found.mean, samples.mean(0), rtol=1e-5)
    largest = np.abs(found.components).argmax(1)
    assert (found.components[np.arange(3), largest] > 0).all()


def test_directions_of_w_are_its_principal_components(style):
    model, found = style[0], directions.directions(style[0], key(), 200, 3)
    w = latents.find_latents(model, key(), range(200), truncation=1.0).codes[:, 0]
    values = np.linalg.eigvalsh(np.cov(w.T, bias=True))
    np.testing.assert_allclose(found.deviations, np.sqrt(values[:-4:-1]), rtol=1e-3)
    assert found.components.shape == (3, 6)


def test_directions_of_z_move_the_first_layer_along_its_principal_components(models):
    """One deviation along a direction moves what the layer gives by one deviation of that principal component."""
    model = models["mlp"]
    found = directions.directions(model, key(), 300, 6, label=1)
    kernel = np.asarray(model.params["params"]["dense_0"]["kernel"], np.float64)
    z = latents.find_latents(model, key(), range(300), label=1).codes
    values = np.linalg.eigvalsh(kernel.T @ np.cov(z.T, bias=True) @ kernel)[:-7:-1]
    moved = (found.components * found.deviations[:, None]) @ kernel
    np.testing.assert_allclose(moved @ moved.T, np.diag(values), atol=1e-4 * values[0])
    np.testing.assert_allclose(found.shares, values / values.sum(), rtol=1e-3)


def test_exploring_starts_at_the_latent_and_moves_chosen_layers(style):
    model, start = style[0], latents.take(style[1], (1,))
    found = directions.directions(model, key(), 100, 2)
    rows = directions.explore(model, start, found, (-2, 0, 2))
    assert rows.shape == (2, 3, 8, 8, 3)
    sample = model.generate(key(), 9)[1]
    np.testing.assert_allclose(rows[:, 1], np.stack([sample, sample]), atol=1e-5)
    moved = start.codes + 2 * found.deviations[0] * found.components[0]
    np.testing.assert_allclose(
        rows[0, 2], latents.synthesize(model, latents.Latents(moved.astype(np.float32)))[0], atol=1e-5
    )
    none = directions.explore(model, start, found, (-2, 2), range(0))
    np.testing.assert_allclose(none, np.broadcast_to(sample, none.shape), atol=1e-5)


def test_directions_of_a_dcgan_move_its_pictures(models):
    model = models["dcgan"]
    start = latents.find_latents(model, key(), (0,))
    rows = directions.explore(model, start, directions.directions(model, key(), 100, 1), (0, 2))
    np.testing.assert_allclose(rows[0, 0], model.generate(key(), 1)[0], atol=1e-5)
    assert np.abs(rows[0, 1] - rows[0, 0]).max() > 0.01


def test_pyramid_distance_counts_every_scale():
    """A constant counts at all three scales, a chessboard at the finest alone."""
    zero, constant = jnp.zeros((1, 16, 16, 1)), jnp.full((1, 16, 16, 1), 0.5)
    board = jnp.asarray(np.indices((16, 16)).sum(0) % 2 * 2.0 - 1)[None, :, :, None]
    assert projection.pyramid_distance(constant, zero)[0] == pytest.approx(0.25)
    assert projection.pyramid_distance(board, zero)[0] == pytest.approx(1 / 3)


def test_noise_correlation_sees_pictures_in_noise():
    """Of a constant 1 at 16 and 8 pixels, two directions each; of a chessboard at 16; of white noise little."""
    board = jnp.asarray(np.indices((16, 16)).sum(0) % 2 * 2.0 - 1)
    assert projection.noise_correlation(jnp.ones((16, 16))) == pytest.approx(4)
    assert projection.noise_correlation(board) == pytest.approx(2)
    assert projection.noise_correlation(jax.random.normal(key(), (64, 64))) < 0.02


@pytest.mark.parametrize(("share", "expected"), [(0, 0), (0.025, 0.05), (0.5, 0.1), (0.875, 0.05), (1, 0)])
def test_the_learning_rate_rises_and_falls(share, expected):
    assert projection.learning_rate(share) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("name", LABEL)
def test_a_picture_of_the_generator_is_found(models, name):
    """Far nearer than the picture of the mean code."""
    model = models[name]
    target = to_pixels(model.generate(key(), 3, label=LABEL[name])[1])
    search = projection.Search(steps=150, label=LABEL[name], samples=64)
    told = []
    found = projection.project(model, target, jax.random.key(1), search, told.append)
    assert found.distances[-1] < found.distances[0] / 10
    assert len(told) == 150
    np.testing.assert_array_equal(found.distances[1:-1], np.float32(told))
    np.testing.assert_allclose(latents.synthesize(model, found.latents)[0], found.picture, atol=1e-5)
    assert found.params is model.params


def test_fitted_noise_comes_nearer_and_stays_noise(style):
    model, _ = style
    target = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    plain, fitted = (
        projection.project(model, target, key(), projection.Search(steps=60, fit_noise=fit, samples=64))
        for fit in (False, True)
    )
    assert fitted.distances[-1] < plain.distances[-1]
    drawn = latents.synthesize(dataclasses.replace(model, params=fitted.params), fitted.latents)
    np.testing.assert_allclose(drawn[0], fitted.picture, atol=1e-5)
    noise = fitted.params["buffers"]["synthesis"]["block_8"]["conv_1"]["noise_const"]
    assert noise.shape == (8, 8)
    assert noise.mean() == pytest.approx(0, abs=1e-5)
    assert jnp.square(noise).mean() == pytest.approx(1, abs=1e-4)


def test_features_have_their_say(models):
    """Features that see the brightness alone bring it nearer to the target's, and their distance is added."""
    model = models["mlp"]
    target = np.full((8, 8, 1), 160, np.uint8)

    def apply(params, inputs):
        return {"features": params["scale"] * inputs["image"].mean((1, 2))}

    bright = Extractor("brightness", {"scale": jnp.float32(3)}, apply)
    told, untold = (
        projection.project(model, target, key(), projection.Search(60, 0, extractor=extractor, samples=64))
        for extractor in (bright, None)
    )
    mean = target.mean() / 127.5 - 1
    assert abs(told.picture.mean() - mean) < 0.8 * abs(untold.picture.mean() - mean)
    pixels = projection.pyramid_distance(jnp.asarray(told.picture)[None], jnp.asarray(target / 127.5 - 1)[None])
    assert told.distances[-1] == pytest.approx(float(pixels[0]) + (told.picture.mean() / mean - 1) ** 2, rel=1e-3)


def test_a_picture_is_fitted_to_the_generator(models):
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, 10:50] = 200
    fitted = projection.fit_picture(models["dcgan"], image)
    assert fitted.shape == (16, 16, 3)
    assert (fitted == 200).all()


def of(name):
    return lambda models: latents.find_latents(models[name], key(), range(3), label=LABEL[name])


BAD = {
    "numbers": (
        lambda m: latents.find_latents(m["style"], key(), (0, -1)),
        r"picture \[-1\]: expected a number from 0",
    ),
    "no numbers": (lambda m: latents.find_latents(m["style"], key(), ()), "expected the numbers of one or more"),
    "label": (lambda m: latents.find_latents(m["mlp"], key(), (0,), label=3), "expected a class from 0 to 2"),
    "no classes": (lambda m: latents.find_latents(m["style"], key(), (0,), label=0), "this model knows no classes"),
    "psi": (lambda m: latents.find_latents(m["dcgan"], key(), (0,), truncation=0.5), "needs a generator with a w"),
    "one": (lambda m: latents.interpolate(latents.take(of("dcgan")(m), (0,)), 9, loop=True), "expected 2 or more"),
    "frames": (lambda m: latents.interpolate(of("dcgan")(m), 3, loop=True), "frames=3 through 3 .*: expected 4"),
    "classes": (
        lambda m: latents.interpolate(latents.find_latents(m["mlp"], key(), (0, 1)), 9, loop=True),
        "no way between classes in z",
    ),
    "shape": (lambda m: latents.synthesize(m["style"], of("dcgan")(m)), r"\(6,\): this generator takes \(4, 6\)"),
    "truncate": (lambda m: latents.truncate(m["dcgan"], of("dcgan")(m), 0.5), "needs a generator with a w"),
    "mix": (lambda m: latents.mix(of("dcgan")(m), of("dcgan")(m), range(1)), "mixed in w"),
    "layers": (lambda m: latents.mix(of("style")(m), of("style")(m), range(5)), "layers=0:5: expected a part of 0:4"),
    "count": (lambda m: directions.directions(m["style"], key(), 20, 7), "this generator has 6 directions"),
    "samples": (lambda m: directions.directions(m["style"], key(), 3, 3), "count=3 of num=3 samples"),
    "unlabelled": (lambda m: directions.directions(m["mlp"], key(), 20, 2), "those of one class: choose a label"),
}


@pytest.mark.parametrize(("call", "message"), BAD.values(), ids=BAD)
def test_what_has_no_meaning_is_one_line(models, call, message):
    with pytest.raises(ValueError, match=message) as error:
        call(models)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "shape", "search", "message"),
    [
        ("style", (8, 8, 1), {}, "this generator draws"),
        ("style", (8, 8, 3), {"steps": 0}, "steps=0"),
        ("style", (8, 8, 3), {"samples": 1}, "samples=1"),
        ("dcgan", (16, 16, 3), {"fit_noise": True}, "this generator has no noise"),
        ("mlp", (8, 8, 1), {}, "choose a label"),
        ("points", (8, 8, 1), {}, r"draws points of shape \(2,\), and no pictures"),
        ("style", (8, 8, 3), {"extractor": Extractor("inception:abc", {}, lambda _, x: {})}, "have no gradient"),
    ],
)
def test_searches_that_cannot_begin_are_one_line(models, name, shape, search, message):
    with pytest.raises(ValueError, match=message) as error:
        projection.project(models[name], np.zeros(shape, np.uint8), key(), projection.Search(**search))
    assert "\n" not in str(error.value)


def test_weights_that_are_no_numbers_are_told(models):
    broken = jax.tree.map(lambda x: np.full_like(x, np.nan), models["mlp"].params)
    model = dataclasses.replace(models["mlp"], params=broken)
    with pytest.raises(FloatingPointError, match="distance is not finite"):
        projection.project(model, np.zeros((8, 8, 1), np.uint8), key(), projection.Search(1, 0, samples=64))
    with pytest.raises(FloatingPointError, match="the model is broken"):
        latents.synthesize(model, of("mlp")(models))


def test_the_pixels_that_evaluation_compares_have_gradients(models):
    target = to_pixels(models["mlp"].generate(key(), 1, label=0)[0])
    search = projection.Search(20, 0, extractor=make_extractor("pixels"), samples=64)
    found = projection.project(models["mlp"], target, key(), search)
    assert found.distances[-1] < found.distances[0]
