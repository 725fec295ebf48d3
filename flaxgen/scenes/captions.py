"""The language of the scenes: captions of about 40 words, and their meaning."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from flaxgen.scenes.shapes import COLOURS, SHAPES

SIZES: Mapping[str, tuple[str, ...]] = {"small": ("small", "little"), "large": ("large", "big")}
"""The words of each size."""
RELATIONS: Mapping[str, tuple[str, ...]] = {
    "left of": ("left of", "to the left of", "on the left of"),
    "right of": ("right of", "to the right of", "on the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
"""The phrases of each relation."""
OPPOSITE: Mapping[str, str] = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
ARTICLES = ("a ", "one ", "")
"""None at all only where the caption begins with the thing."""
ONE = (
    "{a}",
    "there is {a}",
    "this is {a}",
    "here is {a}",
    "only {a}",
    "a picture of {a}",
    "an image of {a}",
    "a drawing of {a}",
)
TWO = (
    "{a} {relation} {b}",
    "{a} is {relation} {b}",
    "there is {a} {relation} {b}",
    "here is {a} {relation} {b}",
    "a picture of {a} {relation} {b}",
    "an image of {a} {relation} {b}",
    "a drawing of {a} {relation} {b}",
)
"""In each, {a} is `relation` {b}."""
INVERTED = (
    "{relation} {b} is {a}",
    "{relation} {b} there is {a}",
    "{b} with {a} {relation} it",
    "{b} and {a} {relation} it",
    "{b} and {relation} it {a}",
    "there is {b} with {a} {relation} it",
    "a picture of {b} with {a} {relation} it",
)
"""The same with {b} before {a}."""
INVERTED_SHARE = 0.25
"""Of the captions of two things. Were it half, no phrase by itself would say anything of which thing stands where, and
that is learned much later (docs/unclip.md)."""


class Thing(NamedTuple):
    """An object as a caption has it; `size` is "small", "large" or not said."""

    colour: str
    shape: str
    size: str | None = None


class Description(NamedTuple):
    """One thing, or two of which the first is `relation` the second ("left of", "right of", "above", "below")."""

    things: tuple[Thing, ...]
    relation: str | None = None

    def turned(self) -> "Description":
        """The same, told from the other thing: "a above b" is "b below a"."""
        return Description(self.things[::-1], OPPOSITE[self.relation]) if self.relation else self


def write(description: Description, choices: tuple[float, ...]) -> str:
    """A caption. `choices` are five numbers in [0, 1): which template, article, phrase, and word of either size."""
    template, article, phrase, *sizes = choices
    sentence = _pick(ONE, template) if description.relation is None else _pick_of_two(template)
    articles = ARTICLES if sentence.startswith("{") else ARTICLES[:2]
    nouns = [
        _pick(articles, article)
        + (_pick(SIZES[thing.size], size) + " " if thing.size else "")
        + f"{thing.colour} {thing.shape}"
        for thing, size in zip(description.things, sizes, strict=False)
    ]
    if description.relation is None:
        return sentence.format(a=nouns[0])
    return sentence.format(a=nouns[0], b=nouns[1], relation=_pick(RELATIONS[description.relation], phrase))


def contradict(description: Description, choices: tuple[float, ...]) -> tuple[Description, ...]:
    """Three descriptions nearly the same, that no scene of the first one holds. `choices` are two numbers in [0, 1).

    Of two things the opposite relation, one of the other axis, and the colours (of equal ones, the shapes) exchanged;
    of one thing another colour, another shape, and the other size, or where none is said both another colour and shape.
    """
    if description.relation is None:
        return tuple(Description((thing,)) for thing in _others(description.things[0], choices))
    a, b = description.things
    known = description.relation, OPPOSITE[description.relation]
    across = _pick(tuple(relation for relation in RELATIONS if relation not in known), choices[0])
    field = "colour" if a.colour != b.colour else "shape"
    exchanged = a._replace(**{field: getattr(b, field)}), b._replace(**{field: getattr(a, field)})
    return (
        Description((a, b), OPPOSITE[description.relation]),
        Description((a, b), across),
        Description(exchanged, description.relation),
    )


def _others(thing: Thing, choices: tuple[float, ...]) -> tuple[Thing, Thing, Thing]:
    colour, shape = (
        _pick(tuple(value for value in known if value != own), choice)
        for known, own, choice in zip((COLOURS, SHAPES), thing, choices, strict=False)
    )
    resized = thing._replace(size="small" if thing.size == "large" else "large")
    both = thing._replace(colour=colour, shape=shape)
    return thing._replace(colour=colour), thing._replace(shape=shape), resized if thing.size else both


def parse(caption: str) -> Description:
    """What a caption says; case, spaces and a full stop at its end do not matter.

    Raises:
        ValueError: if it is not a sentence about scenes.
    """
    words = " ".join(caption.lower().split()).removesuffix(".").rstrip()
    for pattern in PATTERNS:
        found = pattern.fullmatch(words)
        if found:
            parts = found.groupdict()
            things = tuple(_thing(parts, name) for name in "ab" if name in parts)
            return Description(things, RELATION_OF[parts["relation"]] if len(things) == 2 else None)
    shown = caption if len(caption) <= 60 else caption[:57] + "..."
    raise ValueError(f"caption {shown!r} is not about scenes: write for example 'a red circle above a blue square'")


def _pick_of_two(choice: float) -> str:
    if choice < INVERTED_SHARE:
        return _pick(INVERTED, choice / INVERTED_SHARE)
    return _pick(TWO, (choice - INVERTED_SHARE) / (1 - INVERTED_SHARE))


def _pick(options: tuple[str, ...], choice: float) -> str:
    return options[int(choice * len(options))]


SIZE_OF = {word: size for size, words in SIZES.items() for word in words}
RELATION_OF = {phrase: relation for relation, phrases in RELATIONS.items() for phrase in phrases}


def _pattern(template: str) -> re.Pattern:
    def thing(name):
        return (
            rf"(?:a |one )?(?:(?P<{name}_size>{'|'.join(SIZE_OF)}) )?"
            rf"(?P<{name}_colour>{'|'.join(COLOURS)}) (?P<{name}>{'|'.join(SHAPES)})"
        )

    return re.compile(template.format(a=thing("a"), b=thing("b"), relation=rf"(?P<relation>{'|'.join(RELATION_OF)})"))


PATTERNS = tuple(_pattern(template) for template in (*ONE, *TWO, *INVERTED))


def _thing(parts: Mapping[str, str | None], name: str) -> Thing:
    colour, shape, size = parts[f"{name}_colour"], parts[name], parts[f"{name}_size"]
    return Thing(str(colour), str(shape), SIZE_OF[size] if size else None)
