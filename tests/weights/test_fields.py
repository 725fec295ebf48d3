"""Tables of configs read and write: a line is its own inverse, and what it does not say is refused by name."""

import pytest

from flaxgen.weights.fields import (
    COUNT,
    FLAG,
    NUMBER,
    POSITIVE,
    TEXT,
    Field,
    Table,
    check_supported,
    choice,
    only,
    optional,
    several,
)

NET = Table(
    "Net",
    (
        Field("layers", 2, COUNT, "depth"),
        Field("eps", 1e-5, POSITIVE, "norm_eps"),
        Field("shift", 0, NUMBER, "time_shift"),
        Field("flip", True, choice({True: "cos_sin", False: "sin_cos"}), "time_order"),
        Field("act", "silu", choice({"silu": "silu", "swish": "silu"}), "activation"),
        Field("heads", None, optional(COUNT, 0), "head_channels"),
        Field("widths", [4, 8], several(COUNT), "widths"),
        Field("padding", 1, choice({0: (0, 1), 1: (1, 1)}), "padding"),
        Field("tied", False, FLAG, "tied"),
        Field("kind", "plain", TEXT, "kind"),
        Field("scale", 1, only(1)),
        Field("old", None, only(None, {}), written=False),
    ),
    ignored=frozenset({"version"}),
)
OURS = {
    "depth": 2,
    "norm_eps": 1e-5,
    "time_shift": 0.0,
    "time_order": "cos_sin",
    "activation": "silu",
    "head_channels": 0,
    "widths": (4, 8),
    "padding": (1, 1),
    "tied": False,
    "kind": "plain",
}
THEIRS = {
    "_class_name": "Net",
    "layers": 2,
    "eps": 1e-5,
    "shift": 0.0,
    "flip": True,
    "act": "silu",
    "heads": None,
    "widths": [4, 8],
    "padding": 1,
    "tied": False,
    "kind": "plain",
    "scale": 1,
}


def test_what_is_left_out_has_its_default():
    assert NET.read({}) == OURS
    assert NET.read({"_class_name": "Net", "_name_or_path": "x", "version": [], "old": {}, "act": "swish"}) == OURS
    assert NET.write({}) == NET.write(OURS) == THEIRS


CHANGES = [
    ("layers", 7, "depth", 7),
    ("eps", 0.5, "norm_eps", 0.5),
    ("shift", -1.5, "time_shift", -1.5),
    ("flip", False, "time_order", "sin_cos"),
    ("heads", 8, "head_channels", 8),
    ("widths", [3], "widths", (3,)),
    ("padding", 0, "padding", (0, 1)),
    ("tied", True, "tied", True),
    ("kind", "odd", "kind", "odd"),
]


@pytest.mark.parametrize(("key", "theirs", "field", "ours"), CHANGES, ids=[change[0] for change in CHANGES])
def test_a_line_reads_in_both_directions(key, theirs, field, ours):
    assert NET.read({key: theirs}) == {**OURS, field: ours}
    assert NET.write({**OURS, field: ours}) == {**THEIRS, key: theirs}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"_class_name": "Other"}, "here is of a Other, expected a Net"),
        ({"more": 1}, r"here: a Net has no 'unet\.more'"),
        ({"layers": 0}, r"here: unet\.layers=0 is not supported, only a whole number from 1 to 2147483647"),
        ({"layers": True}, r"unet\.layers=True"),
        ({"layers": 2.0}, r"unet\.layers=2\.0"),
        ({"layers": None}, r"unet\.layers=None"),
        ({"layers": 2**31}, r"unet\.layers=2147483648"),
        ({"shift": 10**400}, r"unet\.shift=1000"),
        ({"eps": 0}, "only a number above 0"),
        ({"eps": float("nan")}, r"unet\.eps=nan"),
        ({"shift": "0"}, "only a number$"),
        ({"flip": 1}, "flip=1 is not supported, only True or False"),
        ({"act": "relu"}, "act='relu' is not supported, only 'silu' or 'swish'"),
        ({"act": ["silu"]}, r"act=\['silu'\]"),
        ({"heads": 0}, "heads=0 is not supported, only a whole number from 1 to 2147483647 or null"),
        ({"widths": []}, "only a list of one or more, each a whole number from 1 to"),
        ({"widths": [4, "8"]}, "widths="),
        ({"widths": 4}, "widths=4"),
        ({"padding": False}, "padding=False is not supported, only 0 or 1"),
        ({"tied": 0}, "only true or false"),
        ({"kind": None}, "only a string"),
        ({"scale": True}, "scale=True is not supported, only 1"),
        ({"old": {"0": [1]}}, r"old=\{'0': \[1\]\} is not supported, only None or \{\}"),
    ],
)
def test_what_is_not_supported_is_named(config, message):
    with pytest.raises(ValueError, match=message) as caught:
        NET.read(config, "here", "unet.")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("depth", 0, "depth=0 is no layers of a Net: not exported"),
        ("activation", "gelu", "activation='gelu' is no act of a Net"),
        ("padding", (2, 2), r"padding=\(2, 2\) is no padding"),
        ("head_channels", -1, "head_channels=-1"),
        ("widths", (4, 0), r"widths=\(4, 0\)"),
        ("dropout", 0.1, "a Net has no counterpart of 'dropout'"),
    ],
)
def test_what_has_no_counterpart_is_not_written(field, value, message):
    with pytest.raises(ValueError, match=message):
        NET.write({**OURS, field: value})


def test_a_default_that_is_not_supported_is_refused_too():
    table = Table("Net", (Field("size", None, COUNT, "size"),))
    with pytest.raises(ValueError, match="size=None is not supported, only a whole number"):
        table.read({})
    assert table.read({"size": 3}) == {"size": 3}


def test_open_tables_without_a_class():
    table = Table("Net", (Field("size", 1, COUNT, "size"),), class_key="", open=True)
    assert table.read({"_class_name": "Other", "more": 1}) == {"size": 1}
    assert table.write({}) == {"size": 1}


def test_values_that_depend_on_others():
    check_supported("width", 8, (None, 8))
    with pytest.raises(ValueError, match=r"config\.json: width=4 is not supported, only None or 8"):
        check_supported("width", 4, (None, 8))
