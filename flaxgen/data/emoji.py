"""Endless pictures of emoji with captions: one to three of 150 things on a plain ground or a gradient, at any size.

The emoji are files that the user has, one picture of each on white or on nothing, called by its code point, as Noto
and Twemoji have them: `1f431.png`, `emoji_u1f431.png`.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, combinations
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFilter

from flaxgen.data.cutouts import cut_out, find_files
from flaxgen.data.decode import DataError
from flaxgen.data.folder import file_size
from flaxgen.scenes.emoji import MARGIN, NAMES, Emoji, Row, contradict, write

EMOJI = 7005
"""The last word of the seed, so that no other stream of the same seed is equal."""
DRAWS = 40
SPLITS = ("train", "seen", "novel", "closeups")
COUNTS = (0.45, 0.9)
"""Up to these shares of the pictures show one thing, and two; the rest three."""
GAP = 0.06
"""The least distance between two things along their relation, in shares of the side."""
ONE: Mapping[str, tuple[float, float]] = {"small": (0.36, 0.46), "large": (0.58, 0.8)}
TWO: Mapping[str, tuple[float, float]] = {"small": (0.28, 0.33), "large": (0.38, 0.43)}
THIRD = (0.24, 0.27)
"""How large a thing is, the longer side of what is not empty of it, in shares of the picture's side."""
SIZE_SAID, PLAIN = 0.5, 0.5
SLANT = 0.4
"""Most that neighbours differ across their relation, in shares of what they differ along it."""
GROUNDS = ((250, 250, 250), (250, 240, 220), (222, 238, 250), (226, 245, 226), (250, 226, 236), (236, 228, 250),
           (252, 246, 204), (214, 240, 240), (205, 213, 228), (176, 205, 240))  # fmt: skip
SMALLEST_CLOSEUP = 24.0
"""Pixels that a close-up has at least before it is brought to its size."""


Colour = tuple[int, int, int]


class Placed(NamedTuple):
    """A thing around (`x`, `y`), `extent` wide or high, in shares of the side."""

    name: str
    size: str | None
    x: float
    y: float
    extent: float


class Picture(NamedTuple):
    """Things of which each is `relation` the next, on a ground from one colour to another, `upright` downwards."""

    things: tuple[Placed, ...]
    relation: str | None
    ground: tuple[Colour, Colour]
    upright: bool


class EmojiPictures:
    """`size` pictures: `image` uint8 [S S 3] of `image_size` S, `text`, a caption that is true of it, and
    `false_texts`, FALSE that are nearly true. Of "closeups" `label`, which of `class_names` the only thing is.

    Element i depends on (seed, split, i) alone. "train" and "seen" (also called "test") have the same compositions;
    those of "novel" are pairs that training never has. "closeups" are single things that fill the picture, with blur
    and noise, for a classifier.

    Raises:
        DataError: if the split is not known, the pictures have no size, or emoji are missing in the folder.
    """

    def __init__(self, folder: str, split: str, seed: int, size: int, image_size: int):
        split = "seen" if split == "test" else split
        if split not in SPLITS:
            raise DataError(f"data.split={split!r} of emoji is not known: use one of test, {', '.join(SPLITS)}")
        if image_size < 16:
            raise DataError(f"data.image_size={image_size} is too small for emoji: use 16 or more, such as 128")
        self._files = find_files(folder)
        self._cuts = {name: cut_out(path) for name, path in self._files.items()}
        self._words = (seed, SPLITS.index(split), EMOJI)
        self._split, self._size, self._image_size = split, size, image_size
        self.class_names = tuple(sorted(self._files)) if split == "closeups" else None
        self.num_classes = len(self.class_names) if self.class_names else None

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        if self.class_names:
            return self._closeup(index, self.class_names)
        picture, row, choices, contradicted = self._made(index)
        false = tuple(write(each, choices) for each in contradict(row, contradicted))
        return {"image": self._render(picture), "text": write(row, choices), "false_texts": false}

    def picture(self, index: int) -> Picture:
        """What element `index` shows."""
        return self._made(index)[0]

    def row(self, index: int) -> Row:
        """What the caption of element `index` says."""
        return self._made(index)[1]

    def text(self, index: int) -> str:
        """The caption of element `index`, without its picture."""
        _, row, choices, _ = self._made(index)
        return write(row, choices)

    def name(self, index: int) -> str:
        return f"emoji picture {index}"

    def outline(self) -> Iterator[str]:
        """Name and size of every file; see `identity.Filed`."""
        for path in self._files.values():
            yield f"{path.name} {file_size(str(path))}"

    def _draws(self, index: int) -> Iterator[float]:
        if not 0 <= index < self._size:
            raise IndexError(f"picture {index} is not one of the {self._size}")
        seed, split, last = self._words
        # `random` alone: its stream is the same in every NumPy
        return iter(np.random.default_rng((seed, index, split, last)).random(DRAWS).tolist())

    def _made(self, index: int) -> tuple[Picture, Row, tuple[float, ...], tuple[float, float]]:
        """A picture, what is said of it, in which words, and what is said falsely."""
        u = self._draws(index)
        picture = _compose(self._split == "novel", u)
        things = tuple(Emoji(o.name, o.size if next(u) < SIZE_SAID else None) for o in picture.things)
        row = Row(things, picture.relation)
        row = row.turned() if len(things) == 2 and next(u) < 0.5 else row
        return picture, row, tuple(next(u) for _ in range(6)), (next(u), next(u))

    def _render(self, picture: Picture) -> UInt8[np.ndarray, "S S 3"]:
        canvas = _ground(picture, self._image_size)
        for thing in picture.things:
            _paste(canvas, self._cuts[thing.name], thing)
        return np.asarray(canvas)

    def _closeup(self, index: int, names: tuple[str, ...]) -> Mapping[str, Any]:
        u = self._draws(index)
        label = int(next(u) * len(names))
        side = round(_between(SMALLEST_CLOSEUP, max(SMALLEST_CLOSEUP, 2.0 * self._image_size), next(u)))
        extent = _between(0.8, 1.0, next(u))
        x, y = (0.5 + (1 - extent) * (next(u) - 0.5) for _ in range(2))
        picture = Picture((Placed(names[label], None, x, y, extent),), None, *_ground_of(u))
        canvas = _ground(picture, side)
        _paste(canvas, self._cuts[names[label]], picture.things[0])
        blurred = canvas.filter(ImageFilter.GaussianBlur(next(u) * side / 40))
        pixels = np.asarray(blurred.resize((self._image_size, self._image_size), Image.Resampling.BICUBIC), np.float32)
        noise = np.random.default_rng((*self._words, index)).random(pixels.shape, np.float32)
        noisy = pixels + 60 * next(u) * (noise - 0.5)
        return {"image": np.clip(noisy + 0.5, 0, 255).astype(np.uint8), "label": label, "text": names[label]}


ORDER = tuple(sorted(NAMES.values()))
HELD_OUT = frozenset(
    frozenset((first, second)) for (i, first), (j, second) in combinations(enumerate(ORDER), 2) if (3 * j - i) % 10 == 3
)
"""Pairs that are never together in training: a tenth of all, of every name."""
PARTNERS = {
    novel: {
        name: tuple(other for other in ORDER if other != name and (frozenset((name, other)) in HELD_OUT) == novel)
        for name in ORDER
    }
    for novel in (False, True)
}
"""By novelty: which names each may be together with."""


def _compose(novel: bool, u: Iterator[float]) -> Picture:
    """Things and where they are; each is left of or above the next."""
    share = next(u)
    count = 2 if novel else 1 + sum(share > limit for limit in COUNTS)
    names = _names(count, novel, u)
    upright = next(u) < 0.5
    relation = None if count == 1 else "above" if upright else "left of"
    sizes = tuple(None if count == 3 else "large" if next(u) < 0.5 else "small" for _ in names)
    limits = {1: ONE, 2: TWO}.get(count, {})
    extents = tuple(_between(*limits.get(str(size), THIRD), next(u)) for size in sizes)
    places = _line(extents, upright, u)
    things = tuple(
        Placed(name, size, *place, extent)
        for name, size, place, extent in zip(names, sizes, places, extents, strict=True)
    )
    return Picture(things, relation, *_ground_of(u))


def _names(count: int, novel: bool, u: Iterator[float]) -> tuple[str, ...]:
    """Different names; any two are held out in a picture that is novel, and else none."""
    names = [_pick(ORDER, next(u))]
    while len(names) < count:
        partners = [PARTNERS[novel][name] for name in names]
        names.append(_pick([name for name in partners[0] if all(name in known for known in partners)], next(u)))
    return tuple(names)


def _line(extents: Sequence[float], upright: bool, u: Iterator[float]) -> list[tuple[float, float]]:
    """The middles of things in a row, or upright in a column: what room is left over lies between them by chance,
    and across it neighbours are near."""
    room = 1 - 2 * MARGIN - GAP * (len(extents) - 1) - sum(extents)
    free = sorted(next(u) for _ in extents)
    ends = accumulate(extents)
    along = [
        MARGIN + room * share + end - extent / 2 + GAP * i
        for i, (share, end, extent) in enumerate(zip(free, ends, extents, strict=True))
    ]
    across = [0.5 if len(extents) > 2 else _between(MARGIN + extents[0] / 2, 1 - MARGIN - extents[0] / 2, next(u))]
    for i, extent in enumerate(extents[1:], 1):
        reach, half = SLANT * (along[i] - along[i - 1]), MARGIN + extent / 2
        across.append(_between(max(half, across[-1] - reach), min(1 - half, across[-1] + reach), next(u)))
    return [(b, a) if upright else (a, b) for a, b in zip(along, across, strict=True)]


def _ground_of(u: Iterator[float]) -> tuple[tuple[Colour, Colour], bool]:
    first, second = _pick(GROUNDS, next(u)), _pick(GROUNDS, next(u))
    return (first, first if next(u) < PLAIN else second), next(u) < 0.5


def _ground(picture: Picture, size: int) -> Image.Image:
    first, second = np.array(picture.ground, np.float32)
    along = ((np.arange(size, dtype=np.float32) + 0.5) / size)[:, None]
    line = first + along * (second - first)
    pixels = np.broadcast_to(line[:, None] if picture.upright else line[None], (size, size, 3))
    return Image.fromarray((pixels + 0.5).astype(np.uint8))


def _paste(canvas: Image.Image, cut: Image.Image, thing: Placed) -> None:
    side = max(1, round(thing.extent * canvas.width))
    drawn = cut.resize((side, side), Image.Resampling.LANCZOS)
    left, top = (round(place * canvas.width - side / 2) for place in (thing.x, thing.y))
    canvas.paste(drawn, (left, top), drawn)


def _between(low: float, high: float, share: float) -> float:
    return low + (high - low) * share


def _pick(options, choice: float):
    return options[int(choice * len(options))]
