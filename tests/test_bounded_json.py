import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flaxgen import bounded_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(deadline=None, max_examples=20)
@given(JSON)
def test_what_json_writes_is_read(value):
    for text in (json.dumps(value), json.dumps(value).encode()):
        assert bounded_json.loads(text) == value


def test_strings_may_be_full_of_brackets_and_quotes():
    value = {"[" * 1000: ["{" * 1000, '"[' * 500, "\\" * 99 + "[" * 200]}
    assert bounded_json.loads(json.dumps(value)) == value
    wide = [[[]] for _ in range(1000)]
    assert bounded_json.loads(json.dumps(wide)) == wide


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 10**6 + "]" * 10**6, "nested deeper than 100, at character 100"),
        ('{"a":' * 10**6 + "1" + "}" * 10**6, "nested deeper than 100"),
        ('["' + '\\"' * 10**6 + "[" * 200, "Unterminated string"),
        ("[" * 200 + '"\\', "nested deeper"),
        ("1" * 10**6, "an integer has 1000000 digits, more than 100"),
        ('{"a": -' + "1" * 101 + "}", "more than 100"),
        ("1." + "0" * 10**6, "a number has 1000002 digits, more than 1100"),
        ("{", "Expecting property name"),
        ("", "Expecting value"),
        (b"{\xff}", "byte 1 is not UTF-8"),
        (b" " * (bounded_json.MAX_BYTES + 1), "more than the 67108864"),
    ],
    ids=lambda text: str(text[:20]),
)
def test_what_is_beyond_bounds_is_one_line_at_once(text, said):
    began = time.process_time()
    with pytest.raises(ValueError, match=said) as error:
        bounded_json.loads(text)
    assert time.process_time() - began < 1
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 200


def test_up_to_the_bounds_all_is_read():
    deep = "[" * bounded_json.MAX_DEPTH + "]" * bounded_json.MAX_DEPTH
    assert json.dumps(bounded_json.loads(deep)) == deep
    assert bounded_json.loads("1" * 100) == int("1" * 100)
    smallest = f"{5e-324:.1074f}"
    assert bounded_json.loads(smallest) == 5e-324


def test_pairs_go_through_the_hook():
    assert bounded_json.loads('{"a": 1, "a": 2}', list) == [("a", 1), ("a", 2)]
