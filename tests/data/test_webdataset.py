import io
import json
import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from flaxgen.data import Data, DataError, open_source, webdataset


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "flaxgen" / "shards"


def picture(level: int, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("L", (4, 4), level).save(file, kind)
    return file.getvalue()


def write_shard(path, members: dict[str, bytes], **options):
    with tarfile.open(path, "w", **options) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def numbered(first: int, count: int) -> dict[str, bytes]:
    members = {}
    for i in range(first, first + count):
        members |= {f"{i:06d}.png": picture(i), f"{i:06d}.cls": str(i % 10).encode()}
    return members


def opened(path, **fields):
    return open_source(Data("webdataset", path=str(path), channels=1, **fields))


@pytest.fixture
def shards(tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    for k in range(3):
        write_shard(folder / f"part-{k}.tar", numbered(20 * k, 20))
    return folder


@pytest.mark.parametrize("pattern", ["", "*.tar", "part-[0-2].tar", "part-{0..2}.tar"])
def test_elements_of_all_shards_in_order(shards, pattern):
    source = opened(shards / pattern)
    assert [int(source[i]["image"][0, 0, 0]) for i in range(len(source))] == list(range(60))
    assert [int(source[i]["label"]) for i in range(60)] == [i % 10 for i in range(60)]


def test_kinds_of_members(tmp_path):
    members = {
        "a/1.jpg": picture(0, "JPEG"),
        "a/1.txt": "ein Käuzchen\n".encode(),
        "a/1.json": json.dumps({"label": 4, "caption": "overruled by the txt"}).encode(),
        "a/2.PNG": picture(20),
        "a/2.json": json.dumps({"label": 5, "caption": "an owl"}).encode(),
        "b/2.webp": picture(30, "WEBP"),
        "b/2.cls": b"6\n",
        "b/3.txt": b"no picture",
        "b/4.tar.gz": b"other",
        "x" * 150 + "/" + "y" * 150 + ".png": picture(40),
    }
    write_shard(tmp_path / "all.tar", members)
    source = opened(tmp_path / "all.tar")
    examples = [source[i] for i in range(len(source))]
    assert [e.get("text") for e in examples] == ["ein Käuzchen", "an owl", None, None]
    assert [int(e["label"]) if "label" in e else None for e in examples] == [4, 5, 6, None]


def test_threads_read_what_one_reads(shards):
    source = opened(shards)
    indices = np.random.default_rng(0).integers(0, 60, 600).tolist()
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda i: int(source[i]["image"][0, 0, 0]), indices))
    np.testing.assert_array_equal(read, indices)


def test_the_index_is_kept_and_noticed_to_be_old(shards, cache, monkeypatch):
    opened(shards)
    assert len(list(cache.iterdir())) == 3
    monkeypatch.setattr(webdataset, "_scan", None)  # calling it would raise TypeError
    assert len(opened(shards)) == 60
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parent.parent))
    write_shard(shards / "part-1.tar", numbered(100, 5))
    source = opened(shards)
    assert len(source) == 45
    assert int(source[22]["image"][0, 0, 0]) == 102


def test_a_damaged_cache_is_made_anew(shards, cache):
    opened(shards)
    for file, data in zip(sorted(cache.iterdir()), (b"", b"PK\x03\x04 cut short", b"\x80\x04pickle"), strict=True):
        file.write_bytes(data)
    assert len(opened(shards)) == 60


def test_an_unwritable_cache_is_no_hindrance(shards, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(opened(shards)) == 60


def test_a_broken_member_is_skipped_and_named(tmp_path):
    members = numbered(0, 20)
    members["000003.png"] = members["000003.png"][:30]
    members["000004.cls"] = b"four"
    members |= {"000005.json": b"{"}
    write_shard(tmp_path / "a.tar", members)
    source = opened(tmp_path)
    for i in range(20):
        assert i in (3, 4, 5) or int(source[i]["label"]) == i % 10
    assert set(source.broken) <= {3, 4, 5}
    for i in (3, 4, 5):
        source[i]
    assert set(source.broken) == {3, 4, 5}
    assert webdataset.Shards(str(tmp_path)).name(3).endswith("a.tar:000003")


def test_truncated_shards_and_what_is_no_tar(tmp_path):
    write_shard(tmp_path / "a.tar", numbered(0, 20))
    whole = (tmp_path / "a.tar").read_bytes()
    for damaged in (whole[:5000], b"<html>not found</html>" * 50, b""):
        (tmp_path / "a.tar").write_bytes(damaged)
        with pytest.raises(DataError, match=r"a\.tar") as error:
            opened(tmp_path / "a.tar")
        assert "\n" not in str(error.value)


def test_no_shards_and_no_images(tmp_path):
    with pytest.raises(DataError, match=r"names no \.tar shard"):
        opened(tmp_path)
    write_shard(tmp_path / "a.tar.gz", {"a.png": picture(0)})
    with pytest.raises(DataError, match="unpack them"):
        opened(tmp_path / "a.tar.gz")
    write_shard(tmp_path / "b.tar", {"a.txt": b"x"})
    with pytest.raises(DataError, match="holds no image"):
        opened(tmp_path / "b.tar")


@pytest.mark.parametrize("layout", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tar_dialects(tmp_path, layout):
    write_shard(tmp_path / "a.tar", {"d" * 90 + "/" + "k" * 80 + ".png": picture(7)}, format=layout)
    assert opened(tmp_path)[0]["image"][0, 0, 0] == 7
