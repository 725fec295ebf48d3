import json
import shutil

import pytest
from PIL import Image
from test_webdataset import numbered, write_shard

from flaxgen.data import Data, identity


@pytest.fixture
def folder(tmp_path):
    """Twenty pictures of two classes."""
    for i in range(20):
        path = tmp_path / "pictures" / "ab"[i % 2] / f"{i}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), i).save(path)
    return tmp_path / "pictures"


def differing(data, change) -> set[str]:
    before = identity(data)
    change()
    after = identity(data)
    assert before.keys() == after.keys() == {"count", "names", "content"}
    return {part for part in before if before[part] != after[part]}


def test_the_same_data_elsewhere_are_the_same(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "notes.txt").write_text("no picture")
    found = identity(Data("folder", path=str(folder)))
    assert found["count"] == 20
    assert identity(Data("folder", path=str(tmp_path / "copy"))) == found


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda folder: Image.new("L", (4, 4)).save(folder / "a" / "new.bmp"), {"count", "names", "content"}),
        (lambda folder: (folder / "a" / "6.bmp").unlink(), {"count", "names", "content"}),
        (lambda folder: (folder / "a" / "6.bmp").rename(folder / "a" / "61.bmp"), {"names"}),
        (lambda folder: Image.new("L", (4, 5), 6).save(folder / "a" / "6.bmp"), {"names", "content"}),
        (lambda folder: Image.new("L", (4, 4), 7).save(folder / "a" / "6.bmp"), {"content"}),
        (lambda folder: (folder / "b" / "7.bmp").rename(folder / "a" / "7.bmp"), {"names", "content"}),
    ],
)
def test_files_that_are_added_deleted_or_replaced(folder, change, parts):
    assert differing(Data("folder", path=str(folder)), lambda: change(folder)) == parts


@pytest.mark.parametrize("field", ["text", "label"])
def test_captions_and_labels(folder, field):
    rows = [{"file_name": f"{'ab'[i % 2]}/{i}.bmp", "text": f"no {i}", "label": i} for i in range(20)]

    def write():
        (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def change():
        rows[7][field] = rows[3][field]
        write()

    write()
    assert differing(Data("folder", path=str(folder)), change) == {"names", "content"}


def test_shards(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_shard(tmp_path / "a.tar", numbered(0, 10))
    data, members = Data("webdataset", path=str(tmp_path)), numbered(0, 10)
    members["000003.cls"] = b"7"
    assert differing(data, lambda: write_shard(tmp_path / "a.tar", members)) == {"content"}
    assert differing(data, lambda: write_shard(tmp_path / "b.tar", numbered(10, 5))) == {"count", "names", "content"}


def test_what_is_not_in_files_has_none():
    pytest.importorskip("sklearn")
    for data in (Data("moons"), Data("scenes", image_size=16), Data("digits")):
        assert identity(data) == {}


def test_what_cannot_be_read_is_part_of_the_data(folder):
    (folder / "a" / "6.bmp").unlink()
    (folder / "a" / "6.bmp").symlink_to(folder / "nowhere")
    data = Data("folder", path=str(folder))
    assert identity(data)["count"] == 20
    assert "content" in differing(data, lambda: _mend(folder / "a" / "6.bmp"))


def _mend(path):
    path.unlink()
    Image.new("L", (4, 4), 6).save(path)
