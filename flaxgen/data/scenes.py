"""Drawn scenes with captions: one or two coloured shapes on a plain light ground, at any resolution."""

from collections.abc import Iterator, Mapping
from itertools import combinations, product
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from flaxgen.data.decode import DataError
from flaxgen.scenes.captions import Description, Thing, by_places, contradict, direction, write
from flaxgen.scenes.shapes import COLOURS, LARGE, SHAPES, SMALL, rasterise

SCENES = 7004
"""The last word of the seed, so that no other stream of the same seed is equal."""
DRAWS = 36
SPLITS = ("train", "seen", "novel")
LESSONS = ("lesson1", "lesson2")
"""Training scenes to begin with: single objects whose place is said; then also two, told by the places of both. From
these a CLIP learns in minutes what it does not from "train" alone: who is left and who is right (docs/unclip.md)."""
MARGIN, GAP = 0.02, 0.06
"""Least distances, in shares of the side: to the picture's edge, and between two objects along their relation."""
SLANT = 0.5
"""Most that two objects differ across their relation, in shares of what they differ along it."""
JITTER = 12
"""Most that a level of an object's colour differs from the colour's, of 255; the ground's differs half as much."""
ALONE, SIZE_SAID, PLACE_SAID = 0.3, 0.5, 0.5
"""Share of the scenes with one object, of the objects whose size is said, and of the places of single ones."""
OFF_MIDDLE, OFF_DIAGONAL = 0.1, 1.5
"""A single object has a place if it is this far off the picture's middle, in shares of the side, and so many times
farther along than across."""
BACKGROUNDS = ((246, 246, 246), (232, 232, 232), (247, 241, 229), (229, 240, 247), (235, 246, 234), (246, 234, 240))

KINDS = tuple(product(COLOURS, SHAPES))
HELD_OUT = frozenset(
    {("purple", "circle"), ("yellow", "square"), ("cyan", "triangle"), ("red", "cross"), ("blue", "ring")}
)
"""Kinds that are never in training: every shape once, so that colours and shapes on their own are all seen."""
SEEN = tuple(kind for kind in KINDS if kind not in HELD_OUT)
HELD_OUT_PAIRS = frozenset(
    frozenset((a, b)) for (i, a), (j, b) in combinations(enumerate(SEEN), 2) if (3 * j - i) % 10 == 3
)
"""Pairs of seen kinds that are never in one training scene: 31 of 300, every kind in two or three of them."""


def is_novel(description: Description) -> bool:
    """Whether a training scene can never be this: it holds a kind, or a pair of kinds, that is held out."""
    return _novel(tuple((thing.colour, thing.shape) for thing in description.things))


def _novel(kinds: tuple[tuple[str, str], ...]) -> bool:
    return not HELD_OUT.isdisjoint(kinds) or frozenset(kinds) in HELD_OUT_PAIRS


COMPOSITIONS = {
    novel: tuple(
        tuple(made for made in all_made if _novel(made) == novel)
        for all_made in ([(kind,) for kind in KINDS], list(combinations(KINDS, 2)))
    )
    for novel in (False, True)
}
"""By novelty: what single objects can be, and what two can be; two of one kind are no pair."""


class Object(NamedTuple):
    """A shape at (`x`, `y`) of `radius`, in shares of the side; `rgb` in 0 .. 255."""

    colour: str
    shape: str
    size: str
    x: float
    y: float
    radius: float
    rgb: tuple[float, ...]


class Scene(NamedTuple):
    """One object, or two of which the first is `relation` the second, on a ground of one colour."""

    objects: tuple[Object, ...]
    relation: str | None
    background: tuple[float, ...]


class Scenes:
    """`size` scenes: `image` uint8 [S S 3] of `image_size` S, `text`, a caption that is true of it, and `false_texts`,
    FALSE in the same words that are nearly true.

    Element i depends on (seed, split, i) alone; at another `image_size` it is the same scene. Compositions are shared
    by the splits "train" and "seen" (also called "test"), and never met in training in the split "novel"; the LESSONS
    are easier training.

    Raises:
        DataError: if the split is not known, or the pictures have no size.
    """

    num_classes = None
    class_names = None

    def __init__(self, split: str, seed: int, size: int, image_size: int):
        split = "seen" if split == "test" else split
        if split not in SPLITS + LESSONS:
            known = ", ".join(("train", "test", *SPLITS[1:], *LESSONS))
            raise DataError(f"data.split={split!r} of the scenes is not known: use one of {known}")
        if image_size < 16:
            raise DataError(f"data.image_size={image_size} is too small for scenes: use 16 or more, such as 32")
        self._words = (seed, (SPLITS + LESSONS).index(split), SCENES)
        self._lesson = split if split in LESSONS else ""
        self._compositions = COMPOSITIONS[split == "novel"]
        self._size, self._image_size = size, image_size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        scene, text, false_texts = self._draw(index)
        return {"image": render(scene, self._image_size), "text": text, "false_texts": false_texts}

    def scene(self, index: int) -> Scene:
        """What element `index` is a picture of."""
        return self._draw(index)[0]

    def text(self, index: int) -> str:
        """The caption of element `index`, without its picture."""
        return self._draw(index)[1]

    def name(self, index: int) -> str:
        return f"scene {index}"

    def _draw(self, index: int) -> tuple[Scene, str, tuple[str, ...]]:
        if not 0 <= index < self._size:
            raise IndexError(f"scene {index} is not one of the {self._size}")
        seed, split, last = self._words
        rng = np.random.default_rng((seed, index, split, last))
        while True:
            # `random` alone: its stream is the same in every NumPy
            scene, said, wording, contradicted = self._made(iter(rng.random(DRAWS).tolist()))
            if not self._lesson or said.relation:
                return scene, write(said, wording), tuple(write(each, wording) for each in contradicted)

    def _made(self, u: Iterator[float]) -> tuple[Scene, Description, tuple[float, ...], tuple[Description, ...]]:
        """A scene, what is said of it, in which words, and what is said falsely."""
        alone, place_said = (1.0 if self._lesson == "lesson1" else ALONE), (1.0 if self._lesson else PLACE_SAID)
        kinds = _pick(self._compositions[next(u) > alone], next(u))
        scene = _scene(kinds if next(u) < 0.5 else kinds[::-1], u)
        things = tuple(Thing(o.colour, o.shape, o.size if next(u) < SIZE_SAID else None) for o in scene.objects)
        said, turned = describe(scene)._replace(things=things), next(u) < 0.5
        if len(things) == 2:
            said = said.turned() if turned else said
        elif next(u) >= place_said:
            said = said._replace(relation=None)
        template, *words = (next(u) for _ in range(5))
        if self._lesson and len(things) == 2:
            template = by_places(template)
        return scene, said, (template, *words), contradict(said, (next(u), next(u)))


def render(scene: Scene, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """The picture of a scene, `size` pixels a side."""
    image = np.empty((size, size, 3), np.float32)
    image[:] = scene.background
    for thing in scene.objects:
        top, left, coverage = rasterise(thing.shape, thing.x, thing.y, thing.radius, size)
        height, width = coverage.shape
        below = image[top : top + height, left : left + width]
        below += coverage[..., None].astype(np.float32) * (np.array(thing.rgb, np.float32) - below)
    return (image + 0.5).astype(np.uint8)


def describe(scene: Scene) -> Description:
    """All that a caption could say of a scene."""
    things = tuple(Thing(o.colour, o.shape, o.size) for o in scene.objects)
    return Description(things, _place(scene.objects[0]) if len(things) == 1 else scene.relation)


def _place(alone: Object) -> str | None:
    """Where an object is, of the picture's middle, if that can be said."""
    across, down = alone.x - 0.5, alone.y - 0.5
    near, far = sorted((abs(across), abs(down)))
    if far < OFF_MIDDLE or far < OFF_DIAGONAL * near:
        return None
    return direction(across, down)


def _scene(kinds: tuple[tuple[str, str], ...], u: Iterator[float]) -> Scene:
    """Objects of these kinds, the first left of or above the second; everything else is drawn from `u`."""
    background = _near(_pick(BACKGROUNDS, next(u)), JITTER / 2, u)
    sizes = tuple("large" if next(u) < 0.5 else "small" for _ in kinds)
    radii = tuple(_between(*(LARGE if size == "large" else SMALL), next(u)) for size in sizes)
    halves = [
        (SHAPES[shape].half_width * radius, SHAPES[shape].half_height * radius)
        for (_, shape), radius in zip(kinds, radii, strict=True)
    ]
    relation = None if len(kinds) == 1 else ("left of" if next(u) < 0.5 else "above")
    places = _alone(halves[0], u) if relation is None else _beside(halves, relation == "above", u)
    objects = tuple(
        Object(
            colour, shape, size, *place, radius, tuple(level + JITTER * (2 * next(u) - 1) for level in COLOURS[colour])
        )
        for (colour, shape), size, place, radius in zip(kinds, sizes, places, radii, strict=True)
    )
    return Scene(objects, relation, background)


def _alone(half: tuple[float, float], u: Iterator[float]) -> list[tuple[float, float]]:
    x, y = (_between(MARGIN + h, 1 - MARGIN - h, next(u)) for h in half)
    return [(x, y)]


def _beside(halves: list[tuple[float, float]], upright: bool, u: Iterator[float]) -> list[tuple[float, float]]:
    """Two positions: along the relation what room is left over is shared out in three, across it they are near."""
    (first, first_across), (second, second_across) = [half[::-1] if upright else half for half in halves]
    room = 1 - 2 * MARGIN - GAP - 2 * (first + second)
    near, far = sorted((next(u), next(u)))
    along = MARGIN + first + room * near, 1 - MARGIN - second - room * (1 - far)
    start = _between(MARGIN + first_across, 1 - MARGIN - first_across, next(u))
    reach = SLANT * (along[1] - along[0])
    low, high = max(MARGIN + second_across, start - reach), min(1 - MARGIN - second_across, start + reach)
    across = start, _between(low, high, next(u))
    return [(b, a) if upright else (a, b) for a, b in zip(along, across, strict=True)]


def _near(rgb: tuple[int, ...], jitter: float, u: Iterator[float]) -> tuple[float, ...]:
    return tuple(level + jitter * (2 * next(u) - 1) for level in rgb)


def _between(low: float, high: float, share: float) -> float:
    return low + (high - low) * share


def _pick(options, choice: float):
    return options[int(choice * len(options))]
