import itertools

import numpy as np
import pytest

from flaxgen.scenes.captions import (
    ARTICLES,
    ONE,
    OPPOSITE,
    RELATIONS,
    SIZES,
    TWO,
    Description,
    Thing,
    contradict,
    parse,
    write,
)
from flaxgen.scenes.shapes import COLOURS, SHAPES

CIRCLE, SQUARE = Thing("red", "circle"), Thing("blue", "square")


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a red circle", Description((CIRCLE,))),
        ("one large red circle", Description((Thing("red", "circle", "large"),))),
        ("A  red circle\nabove a blue square.", Description((CIRCLE, SQUARE), "above")),
        ("a blue square below a red circle", Description((SQUARE, CIRCLE), "below")),
        ("a blue square with a red circle above it", Description((CIRCLE, SQUARE), "above")),
        ("under one blue square is one red circle", Description((CIRCLE, SQUARE), "below")),
        ("to the left of a blue square there is a red circle", Description((CIRCLE, SQUARE), "left of")),
        (
            "there is a small green ring to the left of a large purple cross",
            Description((Thing("green", "ring", "small"), Thing("purple", "cross", "large")), "left of"),
        ),
        ("red circle and on the right of it a blue square", Description((SQUARE, CIRCLE), "right of")),
    ],
)
def test_meaning(caption, expected):
    assert parse(caption) == expected


def every_caption(description: Description) -> list[str]:
    """One of every choice of words: choices are the middles of every option's interval."""
    relation = description.relation
    counts = [len(TWO if relation else ONE), len(ARTICLES), len(RELATIONS[relation]) if relation else 1]
    counts += [len(SIZES[thing.size]) if thing.size else 1 for thing in description.things]
    middles = [((np.arange(n) + 0.5) / n).tolist() for n in counts]
    return [write(description, (*choices, 0.0)[:5]) for choices in itertools.product(*middles)]


@pytest.mark.parametrize("relation", RELATIONS)
def test_every_wording_parses_back(relation):
    for sizes in ((None, None), ("small", "large"), (None, "small"), ("large", None)):
        things = (CIRCLE._replace(size=sizes[0]), SQUARE._replace(size=sizes[1]))
        for said in (Description(things, relation), Description(things[:1])):
            captions = every_caption(said)
            assert {parse(caption) for caption in captions} == {said}
            assert len(set(captions)) >= 2 * len(TWO if said.relation else ONE)


def test_the_vocabulary_is_small():
    said = Description((Thing("red", "circle", "small"), Thing("blue", "square", "large")), "left of")
    captions = [caption for relation in RELATIONS for caption in every_caption(said._replace(relation=relation))]
    captions += every_caption(Description(said.things[:1]))
    words = {word for caption in captions for word in caption.split()} | set(COLOURS) | set(SHAPES)
    assert 35 <= len(words) <= 45


def test_turned_says_the_same():
    for relation in RELATIONS:
        said = Description((CIRCLE, SQUARE), relation)
        assert said.turned() == Description((SQUARE, CIRCLE), OPPOSITE[relation])
        assert said.turned().turned() == said
    assert Description((CIRCLE,)).turned() == Description((CIRCLE,))


@pytest.mark.parametrize(
    "caption",
    [
        "", "   ", "a", "circle", "a red", "a red dog", "a mauve circle", "a red circle a blue square",
        "a red circle near a blue square", "a red circle above", "two red circles", "ein roter Kreis", "红色的圆", "🔴",
        "a red circle above a blue square above a green ring", "a small large red circle", "a red circle " * 800,
    ],
)  # fmt: skip
def test_other_sentences_are_refused_in_one_line(caption):
    with pytest.raises(ValueError, match="is not about scenes: write for example 'a red circle") as error:
        parse(caption)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 200


def test_contradictions_differ_in_one_thing():
    """Every way there is: another relation, colours or shapes exchanged, another size, colour or shape."""
    choices = list(itertools.product((0.1, 0.6, 0.9), (0.1, 0.9), (0.0, 0.4, 0.99)))
    pair = Description((CIRCLE, SQUARE), "above")
    said = {contradict(pair, each) for each in choices}
    exchanged = Description((Thing("blue", "circle"), Thing("red", "square")), "above")
    assert said == {pair._replace(relation=other) for other in RELATIONS if other != "above"} | {exchanged}
    alike = Description((CIRCLE, Thing("red", "square", "small")), "below")
    assert contradict(alike, (0.9, 0.0, 0.0)).things == (Thing("red", "square"), Thing("red", "circle", "small"))
    one = Description((Thing("red", "circle", "large"),))
    changed = [
        sum(a != b for a, b in zip(contradict(one, each).things[0], one.things[0], strict=True)) for each in choices
    ]
    assert set(changed) == {1}
