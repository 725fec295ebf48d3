"""The world of the emoji pictures: 150 things by their names, and captions of one to three of them."""

from collections.abc import Mapping
from typing import NamedTuple

from flaxgen.scenes.captions import OPPOSITE, RELATIONS, SIZES, pick_phrases, pick_sentence

NAMES: Mapping[str, str] = {
    "2708": "aeroplane", "23f0": "alarm clock", "1f47d": "alien", "1f3c8": "american football", "2693": "anchor",
    "1f621": "angry face", "1f34e": "apple", "1f951": "avocado", "1f388": "balloon", "1f34c": "banana",
    "1f3c0": "basketball", "1f43b": "bear", "1f41d": "bee", "1f37a": "beer", "1f514": "bell", "1f499": "blue heart",
    "1f4a3": "bomb", "1f4d5": "book", "1f966": "broccoli", "1f354": "burger", "1f68c": "bus", "1f98b": "butterfly",
    "1f335": "cactus", "1f370": "cake", "1f4f7": "camera", "1f36c": "candy", "1f697": "car", "1f955": "carrot",
    "1f3f0": "castle", "1f431": "cat", "1f9c0": "cheese", "1f352": "cherries", "1f424": "chick", "1f336": "chili",
    "2601": "cloud", "1f36a": "cookie", "1f60e": "cool face", "1f42e": "cow", "1f980": "crab", "1f40a": "crocodile",
    "1f950": "croissant", "1f451": "crown", "1f62d": "crying face", "1f9c1": "cupcake", "1f48e": "diamond",
    "1f3b2": "die", "1f436": "dog", "1f42c": "dolphin", "1f369": "doughnut", "1f432": "dragon", "1f457": "dress",
    "1f986": "duck", "1f95a": "egg", "1f418": "elephant", "1f332": "fir tree", "1f525": "fire",
    "1f692": "fire engine", "1f420": "fish", "1f9a9": "flamingo", "1f6f8": "flying saucer", "26bd": "football",
    "1f98a": "fox", "1f35f": "french fries", "1f438": "frog", "1f47b": "ghost", "1f992": "giraffe", "1f347": "grapes",
    "1f3b8": "guitar", "1f528": "hammer", "1f3a7": "headphones", "2764": "heart", "1f681": "helicopter",
    "1f434": "horse", "1f32d": "hot dog", "1f3e0": "house", "1f366": "ice cream", "1f456": "jeans", "1f511": "key",
    "1f428": "koala", "1f41e": "ladybird", "1f34b": "lemon", "1f4a1": "light bulb", "1f981": "lion",
    "1f99e": "lobster", "1f512": "lock", "1f36d": "lollipop", "1f9f2": "magnet", "1f341": "maple leaf",
    "1f3a4": "microphone", "1f52c": "microscope", "1f435": "monkey", "1f319": "moon", "1f42d": "mouse",
    "1f344": "mushroom", "1f34a": "orange", "1f989": "owl", "1f334": "palm tree", "1f43c": "panda", "1f99c": "parrot",
    "1f351": "peach", "1f350": "pear", "1f427": "penguin", "1f437": "pig", "1f34d": "pineapple", "1f355": "pizza",
    "1f4a9": "poo", "1f37f": "popcorn", "1f381": "present", "1f968": "pretzel", "1f383": "pumpkin", "1f430": "rabbit",
    "1f308": "rainbow", "1f916": "robot", "1f680": "rocket", "1f413": "rooster", "1f339": "rose",
    "26f5": "sailing boat", "1f988": "shark", "1f411": "sheep", "1f455": "shirt", "1f480": "skull",
    "1f600": "smiling face", "1f40c": "snail", "1f40d": "snake", "2744": "snowflake", "26c4": "snowman",
    "1f31f": "star", "1f353": "strawberry", "1f31e": "sun", "1f33b": "sunflower", "1f363": "sushi", "1f32e": "taco",
    "1f695": "taxi", "1f9f8": "teddy bear", "1f4fa": "television", "1f42f": "tiger", "1f345": "tomato",
    "1f3a9": "top hat", "1f69c": "tractor", "1f682": "train", "1f333": "tree", "1f3c6": "trophy", "1f337": "tulip",
    "1f422": "turtle", "2602": "umbrella", "1f984": "unicorn", "1f30b": "volcano", "1f349": "watermelon",
    "1f40b": "whale", "1f993": "zebra",
}  # fmt: skip
"""What is drawn, by the code point that an emoji's file is called after."""
UNCOUNTED = frozenset(
    {"broccoli", "cheese", "cherries", "fire", "french fries", "grapes", "headphones", "jeans", "popcorn", "sushi"}
)
"""Names that no article goes before."""
THREE: Mapping[str, tuple[str, ...]] = {
    "left of": (
        "{a}, {b} and {c} from left to right",
        "{a}, {b} and {c} side by side",
        "{a} on the left, {b} in the middle and {c} on the right",
    ),
    "above": (
        "{a}, {b} and {c} from top to bottom",
        "{a}, {b} and {c} one below the other",
        "{a} at the top, {b} in the middle and {c} at the bottom",
    ),
}
"""Sentences of three things, by how the first lies to the second and the second to the third."""
ARTICLES = ("a", "one", "")
MARGIN = 0.03
"""The least distance of a thing to the picture's edge, in shares of the side."""
VOWELS = ("a", "e", "i", "o", "um")
"""What "an" goes before."""
STRIDE = 37
FALSE = 6
"""How many contradictions of a row there are."""


class Emoji(NamedTuple):
    """A thing as a caption has it; `size` is "small", "large" or not said."""

    name: str
    size: str | None = None


class Row(NamedTuple):
    """One thing, or two or three of which each is `relation` the next: any of RELATIONS, of three a key of THREE."""

    things: tuple[Emoji, ...]
    relation: str | None = None

    def turned(self) -> "Row":
        """The same, told from the other end."""
        return self if self.relation is None else Row(self.things[::-1], OPPOSITE[self.relation])


def write(row: Row, choices: tuple[float, ...]) -> str:
    """A caption. `choices` are numbers in [0, 1): which template, article, phrase, and word of every size."""
    template, article, phrase, *sizes = choices
    if len(row.things) == 3:
        sentence = _pick(THREE[str(row.relation)], template)
    else:
        sentence = pick_sentence(len(row.things), False, template)
    articles = ARTICLES if sentence.startswith("{") else ARTICLES[:2]
    nouns = [_noun(thing, _pick(articles, article), size) for thing, size in zip(row.things, sizes, strict=False)]
    said = {} if len(row.things) == 3 else pick_phrases(row.relation, phrase)
    return sentence.format(**dict(zip("abc", nouns, strict=False)), **said)


def contradict(row: Row, choices: tuple[float, ...]) -> tuple[Row, ...]:
    """FALSE rows nearly the same, that no picture of the first one shows. `choices` are two numbers in [0, 1).

    The things in the opposite order, along the other axis, each thing by another name, another size where one is said,
    and other names again as often as it takes.
    """
    things, relation = row.things, row.relation
    false: list[Row] = []
    if relation:
        false.append(row._replace(things=things[::-1]))
        across = [other for other in (RELATIONS if len(things) == 2 else THREE) if _axis(other) != _axis(relation)]
        false.append(row._replace(relation=_pick(tuple(across), choices[0])))
    false += [_with(row, i, _resized(thing)) for i, thing in enumerate(things) if thing.size]
    for turn in range(max(0, FALSE - len(false))):
        place = turn % len(things)
        false.append(_with(row, place, _renamed(row, place, choices[1], turn)))
    return tuple(false[:FALSE])


def _noun(thing: Emoji, article: str, size: float) -> str:
    words = f"{_pick(SIZES[thing.size], size)} {thing.name}" if thing.size else thing.name
    if not article or thing.name in UNCOUNTED:
        return words
    return f"an {words}" if article == "a" and words.startswith(VOWELS) else f"{article} {words}"


def _axis(relation: str) -> bool:
    return relation in ("left of", "right of")


def _with(row: Row, place: int, thing: Emoji) -> Row:
    return row._replace(things=(*row.things[:place], thing, *row.things[place + 1 :]))


def _resized(thing: Emoji) -> Emoji:
    return thing._replace(size="small" if thing.size == "large" else "large")


def _renamed(row: Row, place: int, choice: float, turn: int) -> Emoji:
    """The thing with a name that is not in the row, the `turn`-th STRIDE after the one chosen."""
    others = sorted(set(NAMES.values()) - {thing.name for thing in row.things})
    return row.things[place]._replace(name=others[(int(choice * len(others)) + STRIDE * turn) % len(others)])


def _pick(options: tuple[str, ...], choice: float) -> str:
    return options[int(choice * len(options))]
