import json

import pytest
from test_loop import run, toy

from flaxgen.train import loop, same_data

ONE = {"count": 10, "names": "aa", "content": "bb"}


def test_data_that_stay_the_same_are_kept_once(tmp_path):
    for step in (0, 5, 9):
        assert same_data.keep(tmp_path, step, ONE, accept=False) == ""
    assert json.loads((tmp_path / same_data.FILE).read_text()) == {"data": [{"from_step": 0, **ONE}]}


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({**ONE, "count": 12, "names": "cc"}, "10 examples then and 12 now"),
        ({**ONE, "names": "cc"}, "names or sizes of its files, or its labels or captions"),
        ({**ONE, "content": "cc"}, "its files hold something else"),
    ],
)
def test_other_data_are_refused_or_accepted_by_name(tmp_path, other, said):
    same_data.keep(tmp_path, 0, ONE, accept=False)
    with pytest.raises(
        ValueError, match=f"trained on other data up to step 5: .*{said}.*; .*--accept-new-data"
    ) as error:
        same_data.keep(tmp_path, 5, other, accept=False)
    assert "\n" not in str(error.value)
    assert same_data.keep(tmp_path, 5, ONE, accept=False) == "", "a refusal changes nothing"
    assert said in same_data.keep(tmp_path, 5, other, accept=True)
    assert same_data.keep(tmp_path, 7, other, accept=False) == ""
    known = json.loads((tmp_path / same_data.FILE).read_text())["data"]
    assert known == [{"from_step": 0, **ONE}, {"from_step": 5, **other}]
    with pytest.raises(ValueError, match="other data"):
        same_data.keep(tmp_path, 7, ONE, accept=False)


def test_before_the_first_step_any_data_are_the_runs_own(tmp_path):
    same_data.keep(tmp_path, 0, ONE, accept=False)
    other = {**ONE, "count": 11}
    assert same_data.keep(tmp_path, 0, other, accept=False) == ""
    assert same_data.keep(tmp_path, 1, other, accept=False) == ""


def test_a_run_of_an_older_version_takes_what_it_finds(tmp_path):
    assert same_data.keep(tmp_path, 5, ONE, accept=False) == ""
    with pytest.raises(ValueError, match="other data"):
        same_data.keep(tmp_path, 6, {**ONE, "count": 1}, accept=False)


def test_data_without_an_identity_leave_no_file(tmp_path):
    assert same_data.keep(tmp_path, 5, {}, accept=False) == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "[]", '{"data": 1}', '{"data": [{}]}', '{"data": []'])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / same_data.FILE).write_text(content)
    with pytest.raises(ValueError, match=r"data\.json is damaged: delete it"):
        same_data.keep(tmp_path, 5, ONE, accept=False)


def test_a_run_stops_at_other_data_and_goes_on_when_told(tmp_path, capfd):
    run(toy(2), tmp_path, extras=loop.Extras(data=ONE))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    other = {**ONE, "count": 11}
    with pytest.raises(ValueError, match="10 examples then and 11 now"):
        run(toy(4), tmp_path, extras=loop.Extras(data=other))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    run(toy(4), tmp_path, extras=loop.Extras(data=other, accept_new_data=True))
    assert "new data from step 2 on: 10 examples then and 11 now" in capfd.readouterr().err
