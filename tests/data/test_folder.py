import json
import os

import numpy as np
import pytest
from PIL import Image

from flaxgen.data import Data, DataError, open_source


def save(path, level: int = 0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4), (level, level, level)).save(path)


def write_metadata(folder, rows):
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def opened(folder, **fields):
    return open_source(Data("folder", path=str(folder), **fields))


def levels(source):
    return [int(source[i]["image"][0, 0, 0]) for i in range(len(source))]


def test_subfolders_are_classes_in_sorted_order(tmp_path):
    for level, name in enumerate(["owl/b.png", "cat/z.png", "cat/deep/a.PNG", "owl/a.webp"]):
        save(tmp_path / name, 10 * level)
    (tmp_path / "owl" / "notes.txt").write_text("no picture")
    source = opened(tmp_path)
    assert source.class_names == ("cat", "owl")
    assert source.num_classes == 2
    assert sorted((int(e["label"]), int(e["image"][0, 0, 0])) for e in (source[i] for i in range(4))) == [
        (0, 10), (0, 20), (1, 0), (1, 30),
    ]  # fmt: skip


def test_images_without_subfolders_have_no_label(tmp_path):
    for level in (1, 2):
        save(tmp_path / f"{level}.png", level)
    source = opened(tmp_path)
    assert levels(source) == [1, 2]
    assert set(source[0]) == {"image"}
    assert source.num_classes is None


def test_metadata_gives_captions_and_labels(tmp_path):
    rows = [{"file_name": f"sub/{i}.png", "text": f"no {i}", "label": 2 - i} for i in range(3)]
    for i in range(3):
        save(tmp_path / rows[i]["file_name"], i)
    write_metadata(tmp_path, rows)
    source = opened(tmp_path, channels=1, image_size=4)
    assert [source[i]["text"] for i in range(3)] == ["no 0", "no 1", "no 2"]
    assert [int(source[i]["label"]) for i in range(3)] == [2, 1, 0]
    assert source.num_classes == 3
    assert source[0]["image"].shape == (4, 4, 1)


def test_other_columns_can_be_named_and_label_names_are_numbered(tmp_path):
    rows = [{"file_name": f"{i}.png", "title": f"t{i}", "kind": kind} for i, kind in enumerate(["b", "a", "b"])]
    for row in rows:
        save(tmp_path / row["file_name"])
    write_metadata(tmp_path, rows)
    source = opened(tmp_path, caption_field="title", label_field="kind")
    assert source.class_names == ("a", "b")
    assert [(source[i]["text"], int(source[i]["label"])) for i in range(3)] == [("t0", 1), ("t1", 0), ("t2", 1)]


def test_split_folders(tmp_path):
    save(tmp_path / "train" / "x" / "a.png", 1)
    save(tmp_path / "test" / "x" / "a.png", 2)
    assert levels(opened(tmp_path)) == [1]
    assert levels(opened(tmp_path, split="test")) == [2]
    with pytest.raises(DataError, match="no folder 'validation'"):
        opened(tmp_path, split="validation")


def test_a_file_that_metadata_names_but_is_not_there_is_skipped(tmp_path):
    rows = [{"file_name": f"{i}.png"} for i in range(20)]
    for row in rows[1:]:
        save(tmp_path / row["file_name"], 5)
    write_metadata(tmp_path, rows)
    source = opened(tmp_path)
    np.testing.assert_array_equal(levels(source), np.full(20, 5))
    assert list(source.broken) == [0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"file_name": "a.png"}\n{"file_name": ', "line 2 is not JSON"),
        ('{"image": "a.png"}\n', "line 1 is not an object with a file_name"),
        ('{"file_name": "a.png", "text": "x"}\n{"file_name": "b.png"}\n', "'text' of b.png is None, expected str"),
        (
            '{"file_name": "a.png", "label": 0}\n{"file_name": "b.png", "label": -1}\n',
            "'label' of b.png is -1, expected 0 to",
        ),
        (
            '{"file_name": "a.png", "label": 1' + "0" * 30 + "}",
            "'label' of a.png is 1000000000000000000000000000000, expec",
        ),
        ('{"file_name": "a.png", "caption": null}', "'caption' of a.png is None, expected str"),
        ("[" * 10**5, "line 1 is not JSON: it is nested deeper than 100"),
        ('{"file_name": "a.png", "n": ' + "1" * 10**5 + "}", "line 1 is not JSON: an integer has 100000 digits"),
        ('{"file_name": "' + "a" * 2**20 + '"}', "line 1 has more than 1048576 bytes"),
        ('{"file_name": "../a.png"}', r"metadata\.jsonl names '\.\./a\.png', expected the name of a file in"),
        ('{"file_name": "a/../../a.png"}', r"metadata\.jsonl names 'a/\.\./\.\./a\.png'"),
        ('{"file_name": "/etc/a.png"}', r"metadata\.jsonl names '/etc/a\.png'"),
        ('{"file_name": "a\\u0000.png"}', r"metadata\.jsonl names 'a\\x00\.png'"),
        ('{"file_name": "a.png", "label": 0.5}\n', "'label' of a.png is 0.5, expected int or str"),
        ("", "holds no image"),
    ],
)
def test_bad_metadata_is_one_line(tmp_path, text, message):
    (tmp_path / "metadata.jsonl").write_text(text)
    with pytest.raises(DataError, match=message) as error:
        opened(tmp_path)
    assert "\n" not in str(error.value)


def test_an_unknown_caption_field_lists_the_known(tmp_path):
    write_metadata(tmp_path, [{"file_name": "a.png", "title": "x"}])
    with pytest.raises(DataError, match=r"caption_field='titel' is not in .* which has title"):
        opened(tmp_path, caption_field="titel")


def test_captions_that_are_not_utf8_are_named(tmp_path):
    (tmp_path / "metadata.jsonl").write_bytes(b'{"file_name": "a.png", "text": "K\xe4uzchen"}\n')
    with pytest.raises(DataError, match=r"metadata\.jsonl line 1 is not JSON: byte 33 is not UTF-8"):
        opened(tmp_path)


@pytest.mark.timeout(20)
def test_what_is_no_regular_file_is_skipped_and_not_waited_for(tmp_path):
    for i in range(20):
        save(tmp_path / f"{i}.png", 5)
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "folder.png").symlink_to(tmp_path)
    (tmp_path / "link.png").symlink_to(tmp_path / "0.png")
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(2**40)
    source = opened(tmp_path)
    assert set(levels(source)) == {5}
    names = sorted([*(f"{i}.png" for i in range(20)), "pipe.png", "zero.png", "link.png", "huge.png"])
    assert {names[index]: reason for index, reason in source.broken.items()} == {
        "pipe.png": "not a regular file",
        "zero.png": "not a regular file",
        "huge.png": f"{2**40} bytes, more than the {2**28} allowed",
    }


def test_metadata_that_are_no_file(tmp_path):
    os.mkfifo(tmp_path / "metadata.jsonl")
    with pytest.raises(DataError, match=r"metadata\.jsonl is not a regular file"):
        opened(tmp_path)


def test_labels_that_are_not_read_may_be_anything(tmp_path):
    save(tmp_path / "a.png")
    write_metadata(tmp_path, [{"file_name": "a.png", "label": -1}])
    assert "label" not in opened(tmp_path, label_field="")[0]
