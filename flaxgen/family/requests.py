"""The verbs that several families share; a family adds fields of its own by inheriting."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from flaxgen.data import Data, to_pixels
from flaxgen.family.matching import SHOWN_POINTS, real_examples
from flaxgen.family.pictures import Pictures
from flaxgen.family.request import Clash, Request, option, picture, pictures, positional


@dataclass(frozen=True, kw_only=True)
class Sample(Request):
    """Draw samples."""

    verb: ClassVar[str] = "sample"
    examples: ClassVar[tuple[str, ...]] = ("flaxgen sample runs/digits --num 64 --class 3 --out grid.png",)
    out: ClassVar[str] = "samples.png"
    model_first: ClassVar[bool] = True

    num: int = option(64, "how many", least=1)
    first: int = option(0, "number of the first: `--first 64` goes on after 64", least=0)
    beside_data: bool = option(False, "put real examples beside the drawn ones")
    data: str | None = option(None, "where these are", default_text="where they were in training", flag="data DIR")

    def __post_init__(self):
        super().__post_init__()
        if self.data is not None and not self.beside_data:
            raise Clash(
                "{data} says where those of {beside_data} are: give both or none", data=self.data, beside_data=None
            )

    @property
    def numbers(self) -> range:
        """The numbers of the samples."""
        return range(self.first, self.first + self.num)


def label_option() -> Any:
    """The class to draw, of models that know classes."""
    return option(None, "the class to draw", least=0, default_text="all in turn", flag="class LABEL")


def set_option() -> Any:
    """Overrides of a model's own `sampling`."""
    return option((), "override, such as eta=0.5 (the model's `sampling` fields)", flag="set KEY=VALUE")


def sampled(model: Any, request: Sample, drawn: np.ndarray) -> Pictures:
    """What was drawn, float in [-1, 1] or points, as pictures; with real ones beside them where that is asked for.

    Raises:
        ValueError, OSError: if there are no real ones.
    """
    are_points = drawn.ndim == 2
    num = SHOWN_POINTS if are_points else request.num
    beside = _real(model.config, request, are_points, num) if request.beside_data else None
    return Pictures(drawn if are_points else to_pixels(drawn), beside=beside)


def check_beside(config: Any, request: Sample, are_points: bool) -> None:
    """Raises ValueError unless there are real examples where they are asked for."""
    if request.beside_data:
        _real(config, request, are_points, 1)


def _real(config: Any, request: Sample, are_points: bool, num: int) -> np.ndarray:
    data = config.data if request.data is None else replace(config.data, path=request.data)
    try:
        return real_examples(data, "point" if are_points else "image", num)
    except (ValueError, OSError) as error:
        reason = str(error).replace("--set data.path=DIR", "--data DIR")
        raise ValueError(f"beside_data: {reason}") from error


@dataclass(frozen=True, kw_only=True)
class Draw(Request):
    """Draw what captions say."""

    verb: ClassVar[str] = "draw"
    examples: ClassVar[tuple[str, ...]] = (
        'flaxgen draw "a red circle above a blue square" --num 4 --seed 0 --out out.png',
        'flaxgen draw "a red circle" "one big yellow triangle" --guidance 3 --candidates 4 --out sheet.png',
    )

    captions: tuple[str, ...] = positional("what to draw; several give a row each", metavar="caption")
    num: int = option(4, "how many pictures of each caption", least=1)


@dataclass(frozen=True, kw_only=True)
class Vary(Request):
    """Draw variations of a picture."""

    verb: ClassVar[str] = "vary"
    examples: ClassVar[tuple[str, ...]] = (
        "flaxgen vary image.png --num 8 --out out.png",
        "flaxgen vary image.png --invert --eta 0.5 --candidates 2 --out out.png",
    )

    image: Any = picture("the picture; its middle square is varied")
    num: int = option(8, "how many", least=1)


@dataclass(frozen=True, kw_only=True)
class Blend(Request):
    """Draw pictures between two."""

    verb: ClassVar[str] = "blend"
    examples: ClassVar[tuple[str, ...]] = ("flaxgen blend a.png b.png --num 7 --out out.png",)

    a: Any = picture("the first picture")
    b: Any = picture("the last picture")
    num: int = option(7, "how many, both included; 1 is the one in the middle", least=1)

    @property
    def weights(self) -> Float[np.ndarray, " N"]:
        """How far each picture is on the way from a (0) to b (1)."""
        return np.linspace(0, 1, self.num, dtype=np.float32) if self.num > 1 else np.full(1, 0.5, np.float32)


@dataclass(frozen=True, kw_only=True)
class Edit(Request):
    """Move a picture from one caption towards another."""

    verb: ClassVar[str] = "edit"
    examples: ClassVar[tuple[str, ...]] = (
        'flaxgen edit image.png --from "a red circle" --to "a green square" --out out.png',
    )

    image: Any = picture("the picture; its middle square is edited")
    caption_from: str = option("", "what it shows", flag="from CAPTION")
    caption_to: str = option("", "what it should show", flag="to CAPTION")
    num: int = option(7, "how many steps on the way; 1 is the last alone", least=1)
    strength: float = option(0.5, "how far the last picture goes", above=0, most=1)

    def __post_init__(self):
        super().__post_init__()
        if not (self.caption_from and self.caption_to):
            raise Clash(
                "an edit needs two captions: {caption_from} what the picture shows, {caption_to} what it should show",
                caption_from=None, caption_to=None,
            )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Inpaint(Request):
    """Draw anew what a mask marks."""

    verb: ClassVar[str] = "inpaint"
    examples: ClassVar[tuple[str, ...]] = (
        'flaxgen inpaint image.png mask.png "a green triangle" --out out.png',
        'flaxgen inpaint image.png mask.png "a red circle above a green triangle" --whole --out out.png',
    )

    image: Any = picture("the picture")
    mask: Any = picture("one of the same size, white (or transparent) where it is to be drawn anew", channels=1)
    caption: str = positional("what the marked part shall show")
    num: int = option(4, "how many", least=1)
    whole: bool = option(False, "the caption says what the whole picture shall show (its middle square)")
    feather: int = option(2, "pixels over which the new part fades into the old one", least=0)


SIDES = ("left", "right", "top", "bottom")
"""Where a picture may be given more ground."""


def _more(side: str) -> Any:
    return option(0, f"pixels to add at the {side}", least=0, most=8192)


@dataclass(frozen=True, kw_only=True)
class Outpaint(Request):
    """Draw what lies around a picture."""

    verb: ClassVar[str] = "outpaint"
    examples: ClassVar[tuple[str, ...]] = (
        'flaxgen outpaint photo.png "a wide beach" --left 64 --right 64 --model models/sd --out out.png',
    )

    image: Any = picture("the picture")
    caption: str = positional("what the larger picture shall show")
    num: int = option(4, "how many", least=1)
    left: int = _more("left")
    right: int = _more("right")
    top: int = _more("top")
    bottom: int = _more("bottom")
    feather: int = option(8, "pixels of the picture's edge that fade into what is new", least=0)

    def __post_init__(self):
        super().__post_init__()
        if not any(self.margins):
            raise Clash("nothing is added: give {left}, {right}, {top} or {bottom}", **dict.fromkeys(SIDES))

    @property
    def margins(self) -> tuple[int, int, int, int]:
        """The pixels that are added, in the order of SIDES."""
        return self.left, self.right, self.top, self.bottom


@dataclass(frozen=True, kw_only=True)
class Upscale(Request):
    """Draw a picture larger."""

    verb: ClassVar[str] = "upscale"
    examples: ClassVar[tuple[str, ...]] = ("flaxgen upscale runs/upsampler small.png --out large.png",)
    model_first: ClassVar[bool] = True

    image: Any = picture("the small picture")
    num: int = option(1, "how many", least=1)


@dataclass(frozen=True, kw_only=True)
class OfPictures(Request):
    """What is asked of pictures, or of examples of the data."""

    model_first: ClassVar[bool] = True

    images: tuple[Any, ...] = pictures("pictures, of which the middle square is taken; none: examples of its data")
    num: int = option(16, "how many examples, where no pictures are named", least=1)
    split: str = option("test", "the split of these examples")
    data: str | None = option(None, "where they are", default_text="where they were in training", flag="data DIR")

    def __post_init__(self):
        super().__post_init__()
        if self.images and self.data is not None:
            raise Clash("{data} is where examples are, and pictures are named: give one of them", data=self.data)


def check_pictures(config: Any, request: OfPictures) -> None:
    """Raises ValueError unless there are examples where no pictures are named."""
    if not request.images:
        real_examples(data_of(config, request), "image", 1)


def data_of(config: Any, request: OfPictures) -> Data:
    """Where the examples are."""
    data = replace(config.data, split=request.split)
    return data if request.data is None else replace(data, path=request.data)


def examples_of(config: Any, request: OfPictures, field: str = "image") -> np.ndarray:
    """A field of the examples that are meant, where no pictures are named."""
    return real_examples(data_of(config, request), field, request.num)
