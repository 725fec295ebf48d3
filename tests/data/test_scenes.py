import itertools
import re

import numpy as np
import pytest

from flaxgen.data import Data, DataError, Order, batches, open_source
from flaxgen.data.scenes import (
    GAP,
    HELD_OUT,
    HELD_OUT_PAIRS,
    JITTER,
    KINDS,
    MARGIN,
    OFF_DIAGONAL,
    OFF_MIDDLE,
    SLANT,
    SPLITS,
    Scenes,
    describe,
    is_novel,
    render,
)
from flaxgen.scenes.captions import FALSE, Description, parse
from flaxgen.scenes.shapes import COLOURS, LARGE, SHAPES, SMALL

COUNT = 1500


def drawn(split: str, count: int = COUNT):
    source = Scenes(split, 0, count, 32)
    return [source.scene(i) for i in range(count)]


@pytest.fixture(scope="module")
def scenes():
    return {split: drawn(split) for split in SPLITS}


def kinds(scene):
    return frozenset((thing.colour, thing.shape) for thing in scene.objects)


def test_an_element_depends_on_seed_split_and_index_alone():
    image = Scenes("train", 0, 10, 32)[7]["image"]
    np.testing.assert_array_equal(image, Scenes("train", 0, 1000, 32)[7]["image"])
    for other in (Scenes("train", 1, 10, 32)[7], Scenes("seen", 0, 10, 32)[7], Scenes("train", 0, 10, 32)[6]):
        assert not np.array_equal(image, other["image"])


def test_the_same_scene_at_every_size():
    """At 128 pixels it is the one at 32, averaged over 4 x 4, but for soft corners."""
    for i in range(40):
        small, large = (Scenes("train", 3, 40, size)[i] for size in (32, 128))
        assert small["text"] == large["text"]
        averaged = large["image"].reshape(32, 4, 32, 4, 3).mean(axis=(1, 3))
        assert np.abs(small["image"] - averaged).mean() < 1.5


def test_the_splits_are_other_scenes(scenes):
    places = [{scene.objects[0][3:] for scene in scenes[split]} for split in SPLITS]
    assert [len(place) for place in places] == [COUNT] * 3
    assert not set.intersection(places[0], places[1])
    assert Scenes("test", 5, 10, 32)[3]["text"] == Scenes("seen", 5, 10, 32)[3]["text"]


def test_training_never_has_what_is_held_out(scenes):
    for split, expected in (("train", False), ("seen", False), ("novel", True)):
        found = {is_novel(describe(scene)) for scene in scenes[split]}
        assert found == {expected}
        # by the definition, and not by is_novel
        held = [bool(kinds(scene) & HELD_OUT) or kinds(scene) in HELD_OUT_PAIRS for scene in scenes[split]]
        assert set(held) == {expected}


def test_held_out_is_spread_over_colours_and_shapes(scenes):
    assert len(HELD_OUT) == 5
    assert len({colour for colour, _ in HELD_OUT}) == len({shape for _, shape in HELD_OUT}) == 5
    seen = set(KINDS) - HELD_OUT
    assert len(HELD_OUT_PAIRS) / len(list(itertools.combinations(seen, 2))) == pytest.approx(0.1, abs=0.01)
    assert all(pair <= seen and len(pair) == 2 for pair in HELD_OUT_PAIRS)
    assert set().union(*HELD_OUT_PAIRS) == seen
    # training meets every colour, shape, kind and pair that is not held out
    assert set().union(*map(kinds, scenes["train"])) == seen
    novel = scenes["novel"]
    assert {kind for scene in novel for kind in kinds(scene)} == set(KINDS)
    assert sum(kinds(scene) in HELD_OUT_PAIRS for scene in novel) > 100


def test_captions_are_true_and_say_no_more_than_the_scene():
    for split in SPLITS:
        source = Scenes(split, 0, 300, 32)
        for i in range(300):
            said, true = parse(source.text(i)), describe(source.scene(i))
            true = true if said.relation == true.relation else true.turned()
            assert said.relation == true.relation or (said.relation is None and len(said.things) == 1)
            for thing, full in zip(said.things, true.things, strict=True):
                assert thing[:2] == full[:2]
                assert thing.size in (None, full.size)


def test_captions_vary():
    source = Scenes("train", 0, 2000, 32)
    texts = [source.text(i) for i in range(2000)]
    said = [parse(text) for text in texts]
    sized = [thing.size is not None for description in said for thing in description.things]
    assert np.mean(sized) == pytest.approx(0.5, abs=0.05)
    relations = [description.relation for description in said if len(description.things) == 2]
    places = [description.relation for description in said if len(description.things) == 1]
    assert len(places) / 2000 == pytest.approx(0.3, abs=0.05)
    assert 0.1 < len([place for place in places if place]) / len(places) < 0.5
    for relation in ("left of", "right of", "above", "below"):
        assert relations.count(relation) / len(relations) == pytest.approx(0.25, abs=0.05)
        assert places.count(relation) > 20
    assert len(set(texts)) > 1800
    assert texts[5] == source[5]["text"]


def test_lessons_say_where_things_are():
    """Single objects with a place; then also pairs, told by the places of both; compositions as in training."""
    for lesson, most in (("lesson1", 1), ("lesson2", 2)):
        source = Scenes(lesson, 0, 400, 32)
        said = [parse(source.text(i)) for i in range(400)]
        assert {len(description.things) for description in said} == set(range(1, most + 1))
        assert all(description.relation for description in said)
        assert all(re.search(r" (on the|at the) (left|right|top|bottom)| on top", source.text(i)) for i in range(400))
        assert not any(re.search(r" of | it\b|above|below|over|under", _bare(source.text(i))) for i in range(400))
        assert not any(is_novel(describe(source.scene(i))) for i in range(400))
        assert source[7]["text"] == Scenes(lesson, 0, 8, 64)[7]["text"]
    with_pairs = [len(description.things) == 2 for description in said]
    assert 0.7 < np.mean(with_pairs) < 0.9


def _bare(text: str) -> str:
    return re.sub(r"^(a picture|an image|a drawing) of ", "", text)


def test_the_place_of_a_single_object(scenes):
    for scene in scenes["train"]:
        if len(scene.objects) == 1:
            x, y = np.subtract(scene.objects[0][3:5], 0.5)
            place = describe(scene).relation
            assert (place is None) == (max(abs(x), abs(y)) < max(OFF_MIDDLE, OFF_DIAGONAL * min(abs(x), abs(y))))
            if place:
                assert {"left of": -x, "right of": x, "above": -y, "below": y}[place] == max(abs(x), abs(y))


def test_objects_keep_apart_and_inside(scenes):
    for scene in itertools.chain(*scenes.values()):
        boxes = []
        for thing in scene.objects:
            low, high = LARGE if thing.size == "large" else SMALL
            assert low <= thing.radius <= high
            half = np.array([SHAPES[thing.shape].half_width, SHAPES[thing.shape].half_height]) * thing.radius
            middle = np.array([thing.x, thing.y])
            assert (middle - half).min() >= MARGIN - 1e-9
            assert (middle + half).max() <= 1 - MARGIN + 1e-9
            boxes.append((middle, half))
        if scene.relation is None:
            assert len(boxes) == 1
            continue
        (first, first_half), (second, second_half) = boxes
        axis = {"left of": 0, "above": 1}[scene.relation]
        difference = second - first
        assert difference[axis] >= first_half[axis] + second_half[axis] + GAP - 1e-9
        assert abs(difference[1 - axis]) <= SLANT * difference[axis] + 1e-9


def test_positions_fill_the_picture(scenes):
    alone = np.array([scene.objects[0][3:5] for scene in scenes["train"] if scene.relation is None])
    assert alone.min() < 0.15
    assert alone.max() > 0.85
    np.testing.assert_allclose(alone.mean(axis=0), 0.5, atol=0.03)


def test_colours(scenes):
    for scene in scenes["train"]:
        assert min(scene.background) > 215
        for thing in scene.objects:
            assert np.abs(np.subtract(thing.rgb, COLOURS[thing.colour])).max() <= JITTER
    assert len({scene.background for scene in scenes["train"]}) == COUNT


def test_the_picture_has_the_colours_where_the_scene_says():
    """The middle of every disc, square and triangle is of its colour, and the corners are of the ground's."""
    source, seen = Scenes("train", 0, 100, 96), 0
    for i in range(100):
        scene, image = source.scene(i), source[i]["image"]
        for thing in scene.objects:
            if thing.shape != "ring":
                pixel = image[int(thing.y * 96), int(thing.x * 96)]
                np.testing.assert_allclose(pixel, thing.rgb, atol=1)
                seen += 1
        np.testing.assert_allclose(image[0, 0], scene.background, atol=1)
    assert seen > 75


def test_through_the_loader():
    source = open_source(Data("scenes", image_size=32, size=50))
    assert len(source) == 50
    batch = next(batches(source, Order(0, 8), start_step=0, fields=("image", "text"), threads=2))
    assert batch["image"].shape == (8, 32, 32, 3)
    assert batch["image"].dtype == np.uint8
    assert all(len(parse(text).things) in (1, 2) for text in batch["text"])


def agrees(scene: Description, told: Description) -> bool:
    """Whether all that is told, in this order, is so in the scene."""
    same = all(
        (b.colour, b.shape) == (a.colour, a.shape) and b.size in (None, a.size)
        for a, b in zip(scene.things, told.things, strict=True)
    )
    unsaid = told.relation is None and len(told.things) == 1
    return same and (unsaid or told.relation == scene.relation)


def test_false_captions_are_nearly_true():
    """The scene never holds what they say."""
    source = Scenes("seen", 0, 400, 32)
    for i in range(400):
        scene, said = describe(source.scene(i)), parse(source[i]["text"])
        contradictions = {parse(text) for text in source[i]["false_texts"]}
        assert len(contradictions) == FALSE
        for false in contradictions:
            assert len(false.things) == len(said.things)
            assert not any(agrees(scene, told) for told in (false, false.turned()))
            assert agrees(scene, said) or agrees(scene, said.turned())


def test_crops_are_of_larger_renders():
    """As upsamplers are trained: the loader cuts, the source draws at `resize`."""
    data = Data("scenes", image_size=32, resize=64, random_crop=True, size=10)
    np.testing.assert_array_equal(open_source(data)[3]["image"], Scenes("train", 0, 10, 64)[3]["image"])


def test_there_is_an_end():
    source = Scenes("train", 0, 5, 32)
    assert len(list(source)) == 5
    with pytest.raises(IndexError, match="scene 5 is not one of the 5"):
        source[5]


def test_render_any_scene():
    scene = Scenes("train", 0, 5, 32).scene(0)._replace(objects=(), relation=None, background=(250.0, 240.0, 230.0))
    assert (render(scene, 16) == (250, 240, 230)).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"split": "dev"}, "data.split='dev' of the scenes .* one of train, test, seen, novel, lesson1, lesson2"),
        ({"image_size": 0}, "data.image_size=0 is too small for scenes: use 16 or more"),
        ({"flip": True}, "set data.flip false"),
        ({"channels": 1}, "data.channels 3"),
    ],
)
def test_bad_values_are_one_line(fields, message):
    with pytest.raises(DataError, match=message) as error:
        open_source(Data("scenes", **{"image_size": 32, **fields}))
    assert "\n" not in str(error.value)
