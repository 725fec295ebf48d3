import pytest

from flaxgen.scenes.emoji import FALSE, Emoji, Row, contradict, write

CAT, DOG, ICE = Emoji("cat", "small"), Emoji("dog"), Emoji("ice cream")
FIRST = (0.0,) * 6


@pytest.mark.parametrize(
    ("row", "choices", "caption"),
    [
        (Row((CAT,)), FIRST, "a small cat"),
        (Row((ICE,)), FIRST, "an ice cream"),
        (Row((Emoji("umbrella"),)), FIRST, "an umbrella"),
        (Row((Emoji("unicorn"),)), FIRST, "a unicorn"),
        (Row((Emoji("grapes", "large"),)), FIRST, "large grapes"),
        (Row((CAT, DOG), "left of"), FIRST, "a small cat left of a dog"),
        (Row((CAT, DOG), "below"), (0.0, 0.4, 0.9, 0.9, 0.0, 0.0), "one little cat under one dog"),
        (Row((CAT, DOG, ICE), "left of"), FIRST, "a small cat, a dog and an ice cream from left to right"),
        (Row((CAT, DOG, ICE), "above"), (0.9, *FIRST[1:]),
         "a small cat at the top, a dog in the middle and an ice cream at the bottom"),
    ],
)  # fmt: skip
def test_write(row, choices, caption):
    assert write(row, choices) == caption


@pytest.mark.parametrize(
    "row",
    [Row((CAT,)), Row((DOG,)), Row((CAT, DOG), "above"), Row((DOG, CAT, ICE), "left of"), Row((DOG, ICE), "below")],
)
def test_contradictions_differ_from_the_row_and_from_each_other(row):
    for choice in (0.0, 0.37, 0.99):
        false = contradict(row, (choice, choice))
        assert len(false) == FALSE == len({*false})
        assert row not in false
        assert row.turned() not in false
