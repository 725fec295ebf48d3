"""Requests as values: what is out of range is one line, what is written is read again, and every face says the same."""

import dataclasses
import inspect
import json
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from flaxgen.family import request
from flaxgen.family.pictures import Pictures
from flaxgen.family.request import Request, RequestError, make, option, picture, positional
from flaxgen.family.trained import Answering, Handler


@dataclasses.dataclass(frozen=True, kw_only=True)
class Paint(Request):
    """Paint a picture over."""

    verb: ClassVar[str] = "paint"

    image: object = picture("what is painted over")
    colours: tuple[str, ...] = positional("which colours")
    num: int = option(2, "how many", least=1, most=9)
    share: float | None = option(None, "how much of it", above=0, most=1, default_text="all")
    brush: str = option("round", "which brush", choices=("round", "flat"))


class Painter(Answering):
    requests: ClassVar = {Paint: Handler(lambda model, asked, progress: Pictures(asked.image.pixels[None]))}
    kind, name, step, fingerprint = "painter", "here", 3, "abc"


IMAGE = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)


def paint(**fields):
    return make(Paint, {"image": IMAGE, "colours": "red", **fields})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num": 0}, "num=0: expected 1 to 9"),
        ({"num": 10}, "num=10: expected 1 to 9"),
        ({"num": 1.5}, "num=1.5: expected a whole number"),
        ({"num": True}, "num=True: expected a whole number"),
        ({"num": "many"}, "num='many': expected a whole number"),
        ({"share": 0}, "share=0.0: expected a number above 0, at most 1"),
        ({"share": float("nan")}, "share=nan: expected a number above 0, at most 1"),
        ({"brush": "flt"}, "brush='flt': expected one of round, flat, did you mean flat?"),
        ({"colours": ()}, "colours=(): expected one or more"),
        ({"colours": ("red", 3)}, "colours=3: expected text"),
        ({"seed": -1}, "seed=-1: expected 0 to 4294967295"),
        ({"nmu": 3}, "paint has no 'nmu': expected image, colours, seed, num, share, brush, did you mean num?"),
        (
            {"image": np.zeros((2, 2, 2, 2))},
            "a picture of shape (2, 2, 2, 2): expected a file, a PIL image or an array",
        ),
    ],
)
def test_what_is_out_of_range_is_one_line(fields, message):
    with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
        paint(**fields)
    assert message in str(caught.value)
    assert isinstance(caught.value, RequestError) == ("=" in message.partition(":")[0])


def test_what_lacks_is_named():
    with pytest.raises(ValueError, match="paint needs colours"):
        make(Paint, {"image": IMAGE})


def test_values_are_brought_to_their_types():
    asked = paint(share=1, num=np.int64(3), colours=["red", "blue"])
    assert (asked.share, asked.num, asked.colours) == (1.0, 3, ("red", "blue"))
    assert type(asked.num) is int
    np.testing.assert_array_equal(paint(image=Image.fromarray(IMAGE)).image.pixels, IMAGE)
    np.testing.assert_array_equal(paint(image=IMAGE[..., 0]).image.pixels, IMAGE[..., :1].repeat(3, -1))
    np.testing.assert_array_equal(paint(image=IMAGE / 127.5 - 1).image.pixels, IMAGE)


def test_a_request_is_its_json(tmp_path):
    Image.fromarray(IMAGE).save(tmp_path / "image.png")
    asked = paint(image=tmp_path / "image.png", share=0.25, num=4)
    written = json.loads(json.dumps(request.to_json(asked)))
    again = request.from_json(Paint, written)
    assert request.to_json(again) == written
    np.testing.assert_array_equal(again.image.pixels, IMAGE)
    Image.fromarray(IMAGE + 1).save(tmp_path / "image.png")
    with pytest.raises(ValueError, match="is no longer the picture that this was drawn from"):
        request.from_json(Paint, written)


def test_a_picture_that_was_no_file_cannot_come_again():
    with pytest.raises(ValueError, match="was no file"):
        request.from_json(Paint, request.to_json(paint()))


def test_the_schema_says_what_the_checks_do():
    schema = request.schema(Paint)
    assert schema["required"] == ["image", "colours"]
    assert schema["properties"]["num"] == {
        "type": "integer", "minimum": 1, "maximum": 9, "default": 2, "description": "how many"
    }  # fmt: skip
    assert schema["properties"]["share"]["exclusiveMinimum"] == 0
    assert schema["properties"]["colours"]["items"] == {"type": "string"}
    assert schema["properties"]["brush"]["enum"] == ["round", "flat"]
    json.dumps(schema)


def test_a_request_is_a_method_with_a_signature_and_help():
    painter = Painter()
    assert "paint" in dir(painter)
    signature = inspect.signature(painter.paint)
    assert list(signature.parameters) == ["image", "colours", "seed", "num", "share", "brush"]
    assert signature.parameters["num"].kind is inspect.Parameter.KEYWORD_ONLY
    assert "num: how many (1 to 9) (2)" in painter.paint.__doc__
    drawn = painter.paint(IMAGE, "red", num=3)
    np.testing.assert_array_equal(drawn.images, IMAGE[None])
    assert drawn.about["request"]["num"] == 3
    assert (drawn.about["model"], drawn.about["step"], drawn.about["weights"]) == ("here", 3, "abc")
    with pytest.raises(TypeError, match="nmu"):
        painter.paint(IMAGE, "red", nmu=3)
    with pytest.raises(AttributeError, match="a painter model has no 'draw': it has paint"):
        painter.draw("a")


def test_a_mask_that_is_an_array_may_be_transparent():
    from flaxgen.family.request import read_input

    pixels = np.full((2, 3, 4), 255, np.uint8)
    assert read_input(pixels, 1).pixels.min() == 255
    pixels[0, :, 3] = 0
    np.testing.assert_array_equal(read_input(pixels, 1).pixels[..., 0], [[255] * 3, [0] * 3])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gather(Request):
    """Look at pictures."""

    verb: ClassVar[str] = "gather"

    images: tuple[object, ...] = request.pictures("any number")
    beside: object = request.picture_option("one more")


def test_any_number_of_pictures_and_one_that_may_be_left_out(tmp_path):
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    for i, file in enumerate(files):
        Image.fromarray(IMAGE + i).save(file)
    asked = make(Gather, {"images": files, "beside": files[0]})
    assert [one.path for one in asked.images] == list(map(str, files))
    again = request.from_json(Gather, json.loads(json.dumps(request.to_json(asked))))
    assert [one.digest for one in again.images] == [one.digest for one in asked.images]
    assert again.beside.digest == asked.images[0].digest
    assert make(Gather, {"images": np.stack([IMAGE] * 3)}).images[2].pixels.shape == (4, 4, 3)
    assert len(make(Gather, {"images": files[0]}).images) == 1
    nothing = request.from_json(Gather, request.to_json(make(Gather, {})))
    assert (nothing.images, nothing.beside) == ((), None)
    files[1].unlink()
    with pytest.raises(OSError, match=r"b\.png"):
        request.from_json(Gather, request.to_json(asked))
    fields = request.schema(Gather)["properties"]
    assert fields["images"] == {"type": "array", "items": {"type": "string", "format": "picture"},
                                "description": "any number", "default": []}  # fmt: skip
    assert fields["beside"]["format"] == "picture"
