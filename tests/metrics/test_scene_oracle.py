"""The oracle against real renders, whose scenes are known, and against pictures that are none."""

import itertools

import numpy as np
import pytest
from PIL import Image, ImageFilter

from flaxgen.data.scenes import SPLITS, Object, Scene, Scenes, describe, render
from flaxgen.metrics.scene_oracle import accuracy, arrange, holds, read, relation, spread
from flaxgen.scenes.captions import OPPOSITE, Description, Thing, parse
from flaxgen.scenes.shapes import COLOURS, SHAPES

PIXELS = (32, 64, 128)


def noisy(image, std=8.0, seed=0):
    noise = np.random.default_rng((seed, int(image.sum()))).normal(0, std, image.shape)
    return np.clip(image + noise + 0.5, 0, 255).astype(np.uint8)


def soft(image):
    """A blur of 0.7 pixels of 32."""
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(0.7 * len(image) / 32)))


def tinted(image):
    """Colours that are slightly wrong, and a ground that is not even."""
    slope = np.linspace(-6, 6, len(image))[:, None, None]
    return np.clip(image * np.array([0.9, 1.03, 0.95]) + slope, 0, 255).astype(np.uint8)


def drawn(split, size, count):
    """Scenes, their renders and their captions."""
    source = Scenes(split, 0, count, size)
    return [(source.scene(i), source[i]["image"], source.text(i)) for i in range(count)]


@pytest.fixture(scope="module")
def train():
    return drawn("train", 32, 80)


def only(*things: Object, relation: str | None = None) -> Scene:
    return Scene(things, relation, (240.0, 240.0, 236.0))


def thing(colour="red", shape="circle", x=0.5, y=0.5, radius=0.12) -> Object:
    rgb = tuple(map(float, COLOURS[colour]))
    return Object(colour, shape, "small" if radius < 0.15 else "large", x, y, radius, rgb)


@pytest.mark.parametrize("count", [25, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("size", PIXELS)
@pytest.mark.parametrize("split", SPLITS)
def test_real_renders_with_noise(split, size, count):
    """Right about all objects, their sizes and relation, and about the caption, on 98 % at least."""
    scenes = drawn(split, size, count)
    found = [(read(noisy(image)), describe(scene), parse(text)) for scene, image, text in scenes]
    assert np.mean([arrange(objects, true) is not None for objects, true, _ in found]) >= 0.98
    assert np.mean([arrange(objects, said) is not None for objects, _, said in found]) >= 0.98


@pytest.mark.parametrize("change", [soft, tinted, lambda image: noisy(image, 16)], ids=["soft", "tinted", "noisier"])
@pytest.mark.parametrize("size", PIXELS)
def test_pictures_that_are_a_little_off(change, size):
    scenes = drawn("train", size, 20)
    assert accuracy([change(image) for _, image, _ in scenes], [text for *_, text in scenes]) >= 0.95


@pytest.mark.parametrize("size", PIXELS)
def test_positions_and_radii(size):
    for scene, image, _ in drawn("train", size, 20):
        order = arrange(read(image), describe(scene))
        assert order is not None
        for found, true in zip(order, scene.objects, strict=True):
            assert np.hypot(found.x - true.x, found.y - true.y) < 0.01
            assert found.radius == pytest.approx(true.radius, rel=0.12)


def test_every_kind_in_both_sizes():
    for colour, shape, radius in itertools.product(COLOURS, SHAPES, (0.1, 0.13, 0.17, 0.21)):
        made = thing(colour, shape, 0.47, 0.55, radius)
        (found,) = read(noisy(render(only(made), 32)))
        assert found[:3] == made[:3]


def test_no_to_pictures_of_nothing(train):
    texts = [text for *_, text in train]
    rng = np.random.default_rng(0)
    for size in PIXELS:
        blank = np.full((size, size, 3), 240, np.uint8)
        noise = rng.integers(0, 256, (size, size, 3)).astype(np.uint8)
        light = np.where(rng.random((size, size, 1)) < 0.4, noise, blank)
        for image in (blank, noisy(blank), noise, light, 0 * blank):
            assert not any(holds(image, text) for text in texts[:5])
    assert read(np.full((32, 32, 3), 240, np.uint8)) == ()


def test_no_to_swapped_pictures(train):
    """A caption holds of another's picture only where it is true of it."""
    wrong = right = 0
    captions = [(text, parse(text)) for *_, text in train]
    for scene, image, own in train[:30]:
        found = read(noisy(image))
        assert holds(image, own)
        for _, said in captions:
            true = describe(scene)
            true = true if said.relation == true.relation else true.turned()
            alike = len(said.things) == len(true.things) and all(
                a[:2] == b[:2] and a.size in (None, b.size) for a, b in zip(said.things, true.things, strict=True)
            )
            fitting = alike and said.relation in ((None, true.relation) if len(true.things) == 1 else (true.relation,))
            answer = arrange(found, said) is not None
            wrong, right = wrong + (answer and not fitting), right + (answer and fitting)
    assert wrong == 0
    assert right >= 30


def changed(description: Description):
    """The description with one thing wrong, in every way."""
    for at, one in enumerate(description.things):
        wrong = [one._replace(colour=colour) for colour in COLOURS if colour != one.colour]
        wrong += [one._replace(shape=shape) for shape in SHAPES if shape != one.shape]
        wrong += [one._replace(size="large" if one.size == "small" else "small")]
        for other in wrong:
            yield description._replace(things=(*description.things[:at], other, *description.things[at + 1 :]))
    if description.relation:
        for way in OPPOSITE:
            if way != description.relation:
                yield description._replace(relation=way)


def test_no_to_a_wrong_colour_shape_size_or_relation(train):
    for scene, image, _ in train:
        found = read(noisy(image))
        assert arrange(found, describe(scene)) is not None
        assert not any(arrange(found, wrong) for wrong in changed(describe(scene)))


def test_the_place_of_a_single_object_is_from_the_middle():
    for x, y, place in ((0.2, 0.4, "on the left"), (0.6, 0.2, "at the top"), (0.5, 0.8, "at the bottom")):
        found = render(only(thing(x=x, y=y)), 64)
        for said in ("on the left", "at the right", "on top", "at the top", "on the bottom", "at the bottom"):
            same = parse(f"a red circle {said}") == parse(f"a red circle {place}")
            assert holds(found, f"a red circle {said}") == same
        assert holds(found, "a red circle")


def test_no_to_a_missing_or_an_extra_object(train):
    for scene, image, text in train[:60]:
        if scene.relation is None:
            continue
        both = read(noisy(image))
        for one in scene.objects:
            alone = read(noisy(render(scene._replace(objects=(one,), relation=None), 32)))
            assert arrange(alone, parse(f"a {one.colour} {one.shape}"))
            assert arrange(alone, parse(text)) is None
            assert arrange(both, parse(f"a {one.colour} {one.shape}")) is None


@pytest.mark.parametrize("size", PIXELS)
def test_other_shapes_and_colours_are_not_taken_for_known_ones(size):
    at = (np.arange(size) + 0.5) / size - 0.5
    x, y = np.broadcast_arrays(at[None, :], at[:, None])
    half_disc = (np.hypot(x, y) < 0.2) & (y > 0)
    bar = (np.abs(x) < 0.25) & (np.abs(y) < 0.06)
    two_discs = np.minimum(np.hypot(x - 0.1, y - 0.05), np.hypot(x + 0.1, y + 0.05)) < 0.12
    for inside in (half_disc, bar, two_discs):
        (found,) = read(np.where(inside[..., None], (222, 36, 40), 240).astype(np.uint8))
        assert (found.colour, found.shape) == ("red", "")
    disc = np.hypot(x, y) < 0.2
    for rgb in ((10, 10, 10), (110, 110, 110), (120, 90, 60)):
        (found,) = read(np.where(disc[..., None], rgb, 240).astype(np.uint8))
        assert (found.colour, found.shape) == ("", "circle")
    huge = np.hypot(x, y) < 0.32
    (found,) = read(np.where(huge[..., None], (222, 36, 40), 240).astype(np.uint8))
    assert found.size == ""


def test_touching_objects_are_told_apart_by_colour():
    made = only(thing("red", "square", 0.36), thing("blue", "square", 0.36 + 0.24 * 0.88), relation="left of")
    assert holds(render(made, 64), "a red square left of a blue square")


def test_relation_is_the_larger_difference():
    (red,) = read(render(only(thing("red", x=0.3, y=0.5)), 64))
    for x, y, expected in ((0.7, 0.6, "left of"), (0.2, 0.52, "right of"), (0.4, 0.8, "above"), (0.35, 0.2, "below")):
        (blue,) = read(render(only(thing("blue", x=x, y=y)), 64))
        assert relation(red, blue) == expected
        assert relation(blue, red) == OPPOSITE[expected]


def test_order_of_the_caption():
    made = only(thing("red", x=0.5, y=0.25), thing("blue", "square", 0.45, 0.75), relation="above")
    image = render(made, 32)
    for text in ("a red circle above a blue square", "a blue square with a small red circle over it"):
        assert holds(image, text)
        order = arrange(read(image), parse(text))
        assert order is not None
        assert [one.colour for one in order] == ["red", "blue"]
    assert not holds(image, "a blue square above a red circle")
    assert arrange(read(image), Description((Thing("red", "circle"),))) is None


def test_spread_of_known_places():
    """Two pictures 0.3 and 0.4 apart: each is 0.25 from their mean."""
    images = [render(only(thing(x=x, y=y)), 64) for x, y in ((0.3, 0.3), (0.6, 0.7))]
    assert spread(images, "a red circle") == pytest.approx(0.25, abs=0.005)
    other = render(only(thing("blue", x=0.8)), 64)
    assert spread([*images, other], "a red circle") == pytest.approx(0.25, abs=0.005)
    assert spread([images[0]] * 3, "a red circle") == pytest.approx(0, abs=1e-9)
    assert np.isnan(spread([images[0], other], "a red circle"))


def test_accuracy_by_hand():
    image = render(only(thing()), 32)
    texts = ["a red circle", "a blue circle", "one small red circle", "a red circle above a blue ring"]
    assert accuracy(np.stack([image] * 4), texts) == 0.5


def test_bad_input():
    image = render(only(thing()), 32)
    with pytest.raises(ValueError, match="4 pictures and 1 captions"):
        accuracy([image] * 4, ["a red circle"])
    with pytest.raises(ValueError, match="0 pictures"):
        accuracy([], [])
    with pytest.raises(ValueError, match="is not about scenes"):
        holds(image, "a dog")
    for bad in (image[:8, :8], image[:, :20]):
        with pytest.raises(ValueError, match=r"uint8 \[S S 3\] of S >= 16, got uint8"):
            read(bad)
