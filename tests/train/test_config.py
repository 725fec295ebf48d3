"""Overrides and JSON: what is right arrives typed, what is wrong is one line that names the key."""

import json
from dataclasses import dataclass, field
from typing import Literal

import pytest
from flax import linen as nn

from flaxgen.train import config as configs


class Level(nn.Module):
    heads: int = 1


class Net(nn.Module):
    channels: int = 32
    multipliers: tuple[int, ...] = (1, 2)
    heads: int | None = None
    dtype: str = "float32"
    interval: tuple[float, float] = (0.0, 1.0)
    levels: tuple[Level | None, ...] = (None, Level())


@dataclass(frozen=True)
class Rates:
    learning_rate: float = 1e-3
    decay: Literal["constant", "cosine"] = "constant"

    def __post_init__(self):
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate={self.learning_rate}: expected a number above 0")


@dataclass(frozen=True)
class Config:
    steps: int = 10
    flip: bool = False
    path: str = ""
    rates: Rates = Rates()
    net: Net = Net()
    decay: Rates | str = Rates()


@dataclass(frozen=True)
class Disc:
    """An older version wrote a diameter."""

    radius: int = 8

    @classmethod
    def upgrade(cls, fields):
        return {"radius": fields["diameter"] // 2} if "diameter" in fields else fields


@dataclass(frozen=True)
class Named:
    name: str


KNOWN = {kind.__name__: kind for kind in (Net, Level, Rates, Config, Named, Disc)}


@pytest.mark.parametrize(
    ("assignment", "read"),
    [
        ("steps=7", lambda c: c.steps == 7),
        ("steps=1e3", lambda c: c.steps == 1000 and isinstance(c.steps, int)),
        ("flip=true", lambda c: c.flip is True),
        ("path=a/b=c", lambda c: c.path == "a/b=c"),
        ("path=12", lambda c: c.path == "12"),
        ("path=none", lambda c: c.path == "none"),
        ("rates.learning_rate=1", lambda c: c.rates.learning_rate == 1.0 and isinstance(c.rates.learning_rate, float)),
        ("rates.decay=cosine", lambda c: c.rates.decay == "cosine"),
        ("net.multipliers=1,2,4", lambda c: c.net.multipliers == (1, 2, 4)),
        ("net.multipliers=3", lambda c: c.net.multipliers == (3,)),
        ("net.multipliers=", lambda c: c.net.multipliers == ()),
        ("path=", lambda c: c.path == ""),
        ("net.heads=none", lambda c: c.net.heads is None),
        ("net.heads=4", lambda c: c.net.heads == 4),
        ("net.multipliers=[1,2]", lambda c: c.net.multipliers == (1, 2)),
        ("net.interval=0,0.5", lambda c: c.net.interval == (0.0, 0.5) and isinstance(c.net.interval[0], float)),
        ("decay=none", lambda c: c.decay == "none"),
        ("decay.learning_rate=2", lambda c: c.decay.learning_rate == 2.0),
        ("path={[]}", lambda c: c.path == "{[]}"),
        ("net.dtype=bfloat16", lambda c: c.net.dtype == "bfloat16"),
        ("net.levels.1.heads=4", lambda c: c.net.levels == (None, Level(4))),
        ("net.levels.1=none", lambda c: c.net.levels == (None, None)),
        ("net.multipliers.0=3", lambda c: c.net.multipliers == (3, 2)),
    ],
)
def test_override_parses_by_the_type_of_the_field(assignment, read):
    assert read(configs.override(Config(), [assignment]))


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("step=7", "step is not a field of Config: the nearest is steps"),
        ("net.chanels=7", "net.chanels is not a field of Net: the nearest is net.channels"),
        ("steps=many", "steps=many: expected an integer"),
        ("steps=1.5", "steps=1.5: expected an integer"),
        ("flip=2", "flip=2: expected true or false"),
        ("rates.decay=step", "rates.decay=step: expected one of constant, cosine"),
        ("rates.learning_rate=-1", "rates.learning_rate=-1.0: expected a number above 0"),
        ("net.interval=0,1,2", "net.interval=0,1,2: expected a list"),
        ("rates.learning_rate=1" + 400 * "0", "expected a number"),
        ("net=UNet", "net is a Net: set one of net.channels"),
        ("net.heads.x=1", "heads is a plain value"),
        ("net.levels.0.heads=1", "net.levels.0.heads: 0 is a plain value (None)"),
        ("net.levels.1.head=1", "net.levels.1.head is not a field of Level: the nearest is net.levels.1.heads"),
        ("net.levels.2=none", "net.levels.2: expected one of its 2 elements, 0 to 1, not 2"),
        ("net.levels.x.heads=1", "net.levels.x.heads: expected one of its 2 elements, 0 to 1, not x"),
        ("net.levels.1=4", "net.levels.1 is a Level: set one of net.levels.1.heads"),
        ("net.multipliers.0=many", "net.multipliers.0=many: expected an integer"),
        ("net.parent=1", "net.parent is not a field of Net"),
        ("steps", "expected KEY=VALUE"),
        ("rates.learning_rate=1e999", "rates.learning_rate=1e999: expected a finite number"),
    ],
)
def test_override_refuses_in_one_line(assignment, message):
    with pytest.raises(ValueError, match=r"^[^\n]*$") as caught:
        configs.override(Config(), [assignment])
    assert message in str(caught.value)


@dataclass(frozen=True)
class Sized:
    image_size: int = 32


@dataclass(frozen=True)
class Players:
    data: Sized = Sized(0)
    one: Sized = Sized()
    two: Sized = Sized()


def test_size_sets_every_image_size():
    assert configs.override(Players(), ["size=64"]) == Players(Sized(64), Sized(64), Sized(64))
    with pytest.raises(ValueError, match=r"size=64: one.image_size=32 and two.image_size=8 differ, set each of them"):
        configs.override(Players(two=Sized(8)), ["size=64"])
    with pytest.raises(ValueError, match="size=64: Config has no image_size"):
        configs.override(Config(), ["size=64"])
    with pytest.raises(ValueError, match=r"data.image_size=large: expected"):
        configs.override(Players(), ["size=large"])


def test_json_round_trip():
    config = Config(steps=3, rates=Rates(learning_rate=0.1, decay="cosine"), net=Net(multipliers=(1,), heads=2))
    assert configs.decode(json.loads(json.dumps(configs.encode(config, KNOWN))), KNOWN) == config


def test_decode_fills_missing_fields_with_defaults():
    assert configs.decode({"type": "Config", "steps": 3}, KNOWN) == Config(steps=3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"type": "os.system"}, "'os.system' is not known"),
        ({"type": "Config", "steps": "3"}, "Config.steps='3': expected an integer"),
        ({"type": "Config", "stepz": 3}, "stepz is not a field of Config: the nearest is steps"),
        ({"type": "Config", "net": {"type": "Rates"}}, "expected Net"),
        ({"type": "Disc", "diameter": "6"}, "config type Disc has fields that no version wrote"),
        ({"type": "Disc", "circumference": 6}, "circumference is not a field of Disc"),
        ({"type": "Named"}, "config type Named lacks the field name"),
    ],
)
def test_decode_refuses_in_one_line(data, message):
    with pytest.raises(ValueError, match=r"^[^\n]*$") as caught:
        configs.decode(data, KNOWN)
    assert message in str(caught.value)


@pytest.mark.parametrize(("fields", "radius"), [({"diameter": 6}, 3), ({"radius": 5}, 5), ({}, 8)])
def test_a_type_reads_what_older_versions_wrote(fields, radius):
    assert configs.decode({"type": "Disc"} | fields, KNOWN) == Disc(radius)
    assert configs.encode(Disc(radius), KNOWN) == {"type": "Disc", "radius": radius}


def test_encode_refuses_what_is_not_data():
    with pytest.raises(TypeError, match="plain values"):
        configs.encode({"a": print}, KNOWN)


@dataclass(frozen=True)
class Pair:
    low: int = 0
    high: int = 1

    def __post_init__(self):
        if self.low >= self.high:
            raise ValueError(f"low={self.low}: expected less than high={self.high}")


def test_several_elements_are_set_at_once_but_not_beside_the_whole():
    changed = configs.override(Config(), ["net.multipliers.0=3", "net.multipliers.1=4", "net.levels.1.heads=2"])
    assert changed.net == Net(multipliers=(3, 4), levels=(None, Level(2)))
    with pytest.raises(ValueError, match=r"net.multipliers.0: multipliers is set as a whole too"):
        configs.override(Config(), ["net.multipliers=1,2", "net.multipliers.0=3"])


def test_overrides_are_checked_together_not_one_by_one():
    assert configs.override(Pair(), ["low=5", "high=9"]) == Pair(5, 9)
    with pytest.raises(ValueError, match="low=5: expected less than high=1"):
        configs.override(Pair(), ["low=5"])


def test_a_fingerprint_tells_what_matters_apart():
    one = configs.fingerprint(Config())
    assert configs.fingerprint(Config(rates=Rates(decay="cosine"))) != one
    assert configs.fingerprint(Config(net=Net(multipliers=(1, 2, 2)))) != one
    assert configs.fingerprint(Config(path="b"), {"path"}) == configs.fingerprint(Config(), {"path"})
    assert configs.fingerprint(Config(rates=Rates(learning_rate=1.0)), {"rates.learning_rate"}) == one
    assert configs.fingerprint(Config(rates=Rates(learning_rate=1.0)), {"rates"}) == one
    assert configs.fingerprint(Config(rates=Rates(learning_rate=1.0)), {"learning_rate"}) != one, "a path is whole"


def test_a_fingerprint_knows_a_class_default_from_the_default_of_a_field():
    @dataclass(frozen=True)
    class Outer:
        rates: Rates = Rates(learning_rate=0.5)

    prints = {configs.fingerprint(Outer(rates)) for rates in (Rates(), Rates(learning_rate=0.5), Rates(0.25))}
    assert len(prints) == 3


def test_a_fingerprint_is_that_of_a_later_version_with_more_fields():
    @dataclass(frozen=True)
    class Later(Config):
        sharpness: float = 0.0

    Later.__name__ = "Config"
    assert configs.fingerprint(Later(steps=3)) == configs.fingerprint(Config(steps=3))
    assert configs.fingerprint(Later(steps=3, sharpness=1.0)) != configs.fingerprint(Config(steps=3))


@dataclass(frozen=True)
class Sharper(Config):
    """A later `Config`, whose new field has another default than what was done before it."""

    resize: str = field(default="bicubic", metadata={configs.ABSENT: "box"})


Sharper.__name__ = "Config"


def test_a_config_without_a_later_field_means_what_was_done_then():
    known = KNOWN | {"Config": Sharper}
    written = configs.encode(Config(steps=3), KNOWN)
    old = configs.decode(written, known)
    assert old.resize == "box"
    assert configs.fingerprint(old) == configs.fingerprint(Config(steps=3))
    new = Sharper(steps=3)
    assert configs.fingerprint(new) != configs.fingerprint(old)
    assert configs.decode(configs.encode(new, known), known) == new


def test_what_was_begun_otherwise_goes_on_so():
    assert configs.keep_former(Sharper(steps=5), Sharper(steps=3, resize="box")) == Sharper(steps=5, resize="box")
    for config, saved in [
        (Sharper(resize="lanczos"), Sharper(resize="box")),
        (Sharper(), Sharper(resize="lanczos")),
        (Sharper(), Sharper(steps=3)),
    ]:
        assert configs.keep_former(config, saved) is config
