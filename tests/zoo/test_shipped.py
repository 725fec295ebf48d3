"""The unCLIP that comes with flaxgen: it is whole, small, and draws."""

import jax
import numpy as np
import pytest

import flaxgen
from flaxgen.metrics.scene_oracle import accuracy
from flaxgen.zoo import files, unclip

MOST_BYTES = 25_000_000


@pytest.fixture(scope="module")
def shipped():
    return flaxgen.load(unclip.SHIPPED)


def test_it_is_whole_and_small(shipped):
    assert all(stage is not None for stage in shipped.stages)
    assert shipped.image_size == 128
    assert files.bytes_in(unclip.SHIPPED) <= MOST_BYTES


def test_it_names_no_place_of_the_machine_that_made_it():
    for path in unclip.SHIPPED.rglob("*.json"):
        assert '": "/' not in path.read_text(), path


def test_its_clip_knows_what_scenes_show(shipped):
    """Colour, shape and size of what is alone in a picture."""
    from flaxgen.data import Data, open_source
    from flaxgen.scenes.captions import parse

    source = open_source(Data("scenes", split="seen", seed=1, size=200, image_size=32))
    alone = [source[i] for i in range(len(source)) if len(parse(source[i]["text"]).things) == 1]
    kinds = [parse(example["text"]).things[0] for example in alone]
    classes = sorted({f"a {kind.colour} {kind.shape}" for kind in kinds})
    found = shipped.stages.clip.classify(np.stack([example["image"] for example in alone]), classes)
    right = [classes[i] == f"a {kind.colour} {kind.shape}" for i, kind in zip(found, kinds, strict=True)]
    assert np.mean(right) > 0.9


@pytest.mark.slow
def test_it_draws_single_objects(shipped):
    captions = [
        f"a {colour} {shape}" for colour in ("red", "green", "blue") for shape in ("circle", "square", "triangle")
    ]
    drawn = shipped.draw(captions, seed=0, num=2)
    assert accuracy(drawn, [caption for caption in captions for _ in range(2)]) > 0.7
    mask = np.zeros((128, 128), bool)
    mask[:, 64:] = True
    painted = shipped.inpaint(drawn[0], mask, "a red circle", seed=1)
    assert (painted[0][~mask] == drawn[0][~mask]).all()
    assert jax.tree.leaves(shipped.stages.decoder.params)[0].dtype == np.float32
