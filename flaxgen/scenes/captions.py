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
PLACES: Mapping[str, tuple[str, ...]] = {
    "left of": ("on the left", "at the left"),
    "right of": ("on the right", "at the right"),
    "above": ("at the top", "on top"),
    "below": ("at the bottom", "on the bottom"),
}
"""Where in the picture a thing is, by what it is of the picture's middle."""
ONE_PLACED = tuple(f"{sentence} {{place}}" for sentence in ONE)
PLACED = (
    "{a} {place} and {b} {other}",
    "there is {a} {place} and {b} {other}",
    "{a} is {place} and {b} is {other}",
    "a picture of {a} {place} and {b} {other}",
)
"""The same by the places of both."""
FALSE = 6
"""How many contradictions of a description there are."""
SHARES = (0.5, 0.15, 0.35)
"""Of TWO, INVERTED and PLACED among the captions of two things. Were as many inverted as not, no phrase by itself would
say anything of which thing stands where, and that is learned much later (docs/unclip.md)."""


class Thing(NamedTuple):
    """An object as a caption has it; `size` is "small", "large" or not said."""

    colour: str
    shape: str
    size: str | None = None


class Description(NamedTuple):
    """One thing, or two of which the first is `relation` the second ("left of", "right of", "above", "below"). Where
    the place of one alone is said, it is `relation` the picture's middle."""

    things: tuple[Thing, ...]
    relation: str | None = None

    def turned(self) -> "Description":
        """The same, told from the other thing: "a above b" is "b below a"."""
        if self.relation is None or len(self.things) == 1:
            return self
        return Description(self.things[::-1], OPPOSITE[self.relation])


def direction(across: float, down: float) -> str:
    """The relation of a thing to what it lies `across` (to the right) and `down` of: that of the larger difference."""
    if abs(across) > abs(down):
        return "left of" if across < 0 else "right of"
    return "above" if down < 0 else "below"


def write(description: Description, choices: tuple[float, ...]) -> str:
    """A caption. `choices` are five numbers in [0, 1): which template, article, phrase, and word of either size."""
    template, article, phrase, *sizes = choices
    sentence = pick_sentence(len(description.things), description.relation is not None, template)
    articles = ARTICLES if sentence.startswith("{") else ARTICLES[:2]
    nouns = [
        _pick(articles, article)
        + (_pick(SIZES[thing.size], size) + " " if thing.size else "")
        + f"{thing.colour} {thing.shape}"
        for thing, size in zip(description.things, sizes, strict=False)
    ]
    return sentence.format(**dict(zip("ab", nouns, strict=False)), **pick_phrases(description.relation, phrase))


def contradict(description: Description, choices: tuple[float, ...]) -> tuple[Description, ...]:
    """FALSE descriptions nearly the same, that no scene of the first one holds. `choices` are two numbers in [0, 1).

    Of two things the opposite relation, one of the other axis, the colours (of equal ones, the shapes) exchanged,
    another shape of the one or of the other, and another size where one is said, else another colour of the one. Of one
    thing another colour, another shape, another place and the other size where they are said, and both another colour
    and another shape as often as it takes.
    """
    if len(description.things) == 1:
        return _contradict_one(description, choices)
    (a, b), relation = description.things, str(description.relation)
    known = relation, OPPOSITE[relation]
    across = _pick(tuple(other for other in RELATIONS if other not in known), choices[0])
    field = "colour" if a.colour != b.colour else "shape"
    exchanged = a._replace(**{field: getattr(b, field)}), b._replace(**{field: getattr(a, field)})
    recoloured, reshaped = _other(a, "colour", choices[0]), _other(a, "shape", choices[1])
    resized = (_resized(a), b) if a.size else (a, _resized(b)) if b.size else (recoloured, b)
    return (
        Description((a, b), OPPOSITE[relation]),
        Description((a, b), across),
        Description(exchanged, relation),
        Description((reshaped, b), relation),
        Description((a, _other(b, "shape", choices[1])), relation),
        Description(resized, relation),
    )


def _contradict_one(description: Description, choices: tuple[float, ...]) -> tuple[Description, ...]:
    thing, place = description.things[0], description.relation
    things = [_other(thing, "colour", choices[0]), _other(thing, "shape", choices[1])]
    false = [description._replace(things=(other,)) for other in things]
    if place:
        elsewhere = _pick(tuple(other for other in RELATIONS if other != place), choices[0])
        false.append(description._replace(relation=elsewhere))
    if thing.size:
        false.append(description._replace(things=(_resized(thing),)))
    for turn in range(FALSE - len(false)):
        recoloured = _other(thing, "colour", choices[0], turn)
        false.append(description._replace(things=(_other(recoloured, "shape", choices[1], turn),)))
    return tuple(false)


def _other(thing: Thing, field: str, choice: float, turn: int = 0) -> Thing:
    """The thing with another `colour` or `shape`, the `turn`-th after the one chosen."""
    known = {"colour": COLOURS, "shape": SHAPES}[field]
    values = tuple(value for value in known if value != getattr(thing, field))
    return thing._replace(**{field: values[(int(choice * len(values)) + turn) % len(values)]})


def _resized(thing: Thing) -> Thing:
    return thing._replace(size="small" if thing.size == "large" else "large")


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
            things, relation = tuple(_thing(parts, name) for name in "ab" if name in parts), _relation(parts)
            if "other" not in parts or relation == OPPOSITE[RELATION_OF[str(parts["other"])]]:
                return Description(things, relation)
    shown = caption if len(caption) <= 60 else caption[:57] + "..."
    raise ValueError(f"caption {shown!r} is not about scenes: write for example 'a red circle above a blue square'")


def pick_sentence(count: int, is_placed: bool, choice: float) -> str:
    """A template for one thing, whose place is said or not, or for two."""
    if count == 1:
        return _pick(ONE_PLACED if is_placed else ONE, choice)
    for share, templates in zip(SHARES, (TWO, INVERTED, PLACED), strict=True):
        if choice < share:
            return _pick(templates, choice / share)
        choice -= share
    return PLACED[-1]


def pick_phrases(relation: str | None, choice: float) -> dict[str, str]:
    """What a template says of a relation, by the names that it has there."""
    if relation is None:
        return {}
    said = {"relation": RELATIONS[relation], "place": PLACES[relation], "other": PLACES[OPPOSITE[relation]]}
    return {name: _pick(phrases, choice) for name, phrases in said.items()}


def by_places(choice: float) -> float:
    """The choice of a template, from `choice` in [0, 1), with which `write` tells two things by the places of both."""
    return 1 - SHARES[-1] * (1 - choice)


def _pick(options: tuple[str, ...], choice: float) -> str:
    return options[int(choice * len(options))]


SIZE_OF = {word: size for size, words in SIZES.items() for word in words}
RELATION_OF = {
    phrase: relation for known in (RELATIONS, PLACES) for relation, phrases in known.items() for phrase in phrases
}


def _pattern(template: str) -> re.Pattern:
    def thing(name):
        return (
            rf"(?:a |one )?(?:(?P<{name}_size>{'|'.join(SIZE_OF)}) )?"
            rf"(?P<{name}_colour>{'|'.join(COLOURS)}) (?P<{name}>{'|'.join(SHAPES)})"
        )

    phrases = {"relation": RELATIONS, "place": PLACES, "other": PLACES}
    groups = {
        name: f"(?P<{name}>{'|'.join(phrase for each in known.values() for phrase in each)})"
        for name, known in phrases.items()
    }
    return re.compile(template.format(a=thing("a"), b=thing("b"), **groups))


PATTERNS = tuple(_pattern(template) for template in (*ONE, *ONE_PLACED, *TWO, *INVERTED, *PLACED))


def _relation(parts: Mapping[str, str | None]) -> str | None:
    said = parts.get("relation") or parts.get("place")
    return RELATION_OF[said] if said else None


def _thing(parts: Mapping[str, str | None], name: str) -> Thing:
    colour, shape, size = parts[f"{name}_colour"], parts[name], parts[f"{name}_size"]
    return Thing(str(colour), str(shape), SIZE_OF[size] if size else None)
