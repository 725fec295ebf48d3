"""The unCLIP that comes with flaxgen: it is whole, small, and draws."""

import jax
import numpy as np
import pytest

import flaxgen
from flaxgen import verbs
from flaxgen.data import Data, open_source
from flaxgen.family import files
from flaxgen.metrics.scene_oracle import accuracy, arrange, holds, read, relation
from flaxgen.scenes.captions import RELATIONS, parse

MOST_BYTES = 25_000_000


@pytest.fixture(scope="module")
def shipped():
    return flaxgen.load()


def test_it_is_whole_and_small(shipped):
    assert shipped.parts.keys() == shipped.composite.parts.keys()
    assert shipped.image_size == 128
    assert files.bytes_in(verbs.find()) <= MOST_BYTES


def test_it_names_no_place_of_the_machine_that_made_it():
    for path in verbs.find().rglob("*.json"):
        assert '": "/' not in path.read_text(), path


def with_things(count):
    """Those of 200 scenes that have so many."""
    source = open_source(Data("scenes", split="seen", seed=1, size=200, image_size=32))
    return [example for example in map(source.__getitem__, range(200)) if len(parse(example["text"]).things) == count]


def test_its_clip_knows_what_scenes_show(shipped):
    """Colour, shape and size of what is alone in a picture."""
    alone = with_things(1)
    kinds = [parse(example["text"]).things[0] for example in alone]
    classes = sorted({f"a {kind.colour} {kind.shape}" for kind in kinds})
    found = shipped.parts["clip"].classify(np.stack([example["image"] for example in alone]), classes)
    right = [classes[i] == f"a {kind.colour} {kind.shape}" for i, kind in zip(found, kinds, strict=True)]
    assert np.mean(right) > 0.9


def test_its_clip_knows_who_is_left_or_above(shipped):
    """A picture is nearer to its caption than to the same with the opposite relation."""
    pairs, clip = with_things(2), shipped.parts["clip"]
    image = clip.encode_image(np.stack([pair["image"] for pair in pairs]))
    true = clip.encode_text([pair["text"] for pair in pairs]).embedding
    opposite = clip.encode_text([pair["false_texts"][0] for pair in pairs]).embedding
    assert np.mean(((true - opposite) * image).sum(1) > 0) > 0.9


@pytest.mark.slow
def test_it_draws_two_objects_where_the_caption_says(shipped):
    things = (("red circle", "blue square"), ("green triangle", "yellow ring"))
    captions = [f"a {a} {phrase} a {b}" for a, b in things for phrase in RELATIONS]
    right = []
    for image, caption in zip(shipped.draw(captions, seed=0, num=1).images, captions, strict=True):
        if pair := arrange(read(image), parse(caption)._replace(relation=None)):
            right.append(relation(*pair) == parse(caption).relation)
    assert len(right) >= 5
    assert np.mean(right) > 0.9


@pytest.mark.slow
def test_it_draws_single_objects(shipped):
    captions = [
        f"a {colour} {shape}" for colour in ("red", "green", "blue") for shape in ("circle", "square", "triangle")
    ]
    drawn = shipped.draw(captions, seed=0, num=2).images
    assert accuracy(drawn, [caption for caption in captions for _ in range(2)]) > 0.9
    mask = np.zeros((128, 128), bool)
    mask[:, 64:] = True
    painted = shipped.inpaint(drawn[0], mask, "a red circle", seed=1, num=1).images
    assert (painted[0][~mask] == drawn[0][~mask]).all()
    assert jax.tree.leaves(shipped.parts["decoder"].params)[0].dtype == np.float32


def test_the_dalle_that_comes_along_is_small_and_draws_what_captions_say():
    """One object each, of eight candidates the best, which holds for nearly all."""
    dalle = flaxgen.load("dalle-scenes")
    assert dalle.parts.keys() == dalle.composite.parts.keys()
    assert files.bytes_in(verbs.find("dalle-scenes")) <= 10_000_000
    for path in verbs.find("dalle-scenes").rglob("*.json"):
        assert '": "/' not in path.read_text(), path
    captions = ["a red circle", "a blue square", "a green ring", "a yellow triangle"]
    drawn = dalle.draw(captions, num=2, candidates=8).images
    assert np.mean([holds(image, captions[i // 2]) for i, image in enumerate(drawn)]) >= 0.75
