import io
import json
import os
import re
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


def flip(path, offset: int):
    """One bit of a file."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 4
    path.write_bytes(data)


def header_of(path, name: str) -> int:
    with tarfile.open(path) as tar:
        return tar.getmember(name).offset


def labels_of(source) -> dict[int, int]:
    """Of the examples that are read, level and label."""
    for i in range(len(source)):
        source[i]
    whole = [source[i] for i in range(len(source)) if i not in source.broken]
    return {int(example["image"][0, 0, 0]): int(example["label"]) for example in whole}


@pytest.mark.parametrize("layout", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("name", ["000041.png", "000041.cls", "000099.png", "000099.cls"])
def test_one_flipped_bit_in_a_header_loses_one_example(tmp_path, caplog, layout, name):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=layout) as tar:
        for member, data in numbered(0, 100).items():
            info = tarfile.TarInfo(member)
            info.size, info.mtime = len(data), 1.5  # a fraction, which only pax has, in a header before the header
            tar.addfile(info, io.BytesIO(data))
    place = header_of(path, name)
    flip(path, (place if layout == tarfile.USTAR_FORMAT else place + 1024) + 3)
    source = opened(path)
    assert f"{path}:byte {place}" in caplog.text
    lost = int(name[:6])
    assert labels_of(source) == {i: i % 10 for i in range(100) if i != lost}
    assert list(source.broken) == [99]
    assert len(source) == 100


def test_what_is_lost_counts_as_broken(tmp_path):
    path = tmp_path / "a.tar"
    write_shard(path, numbered(0, 100))
    data = bytearray(path.read_bytes())
    first, last = header_of(path, "000040.png"), header_of(path, "000080.png")
    data[first:last] = b"?" * (last - first)
    path.write_bytes(data)
    source = opened(path, max_broken=0.5)
    assert labels_of(source).keys() == {*range(40), *range(80, 100)}
    assert 30 <= len(source.broken) <= 40  # the largest sample says how many there were at least
    with pytest.raises(DataError, match=rf"are broken .* the first is {path}:byte {first}"):
        labels_of(opened(path, max_broken=0.25))


def test_a_cut_is_refused_wherever_it_is(tmp_path):
    path = tmp_path / "a.tar"
    write_shard(path, numbered(0, 100))
    whole, header = path.read_bytes(), header_of(path, "000040.png")
    for cut in (header, header + 100, header + 512, header + 540):
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError, match=rf"{path} is cut short.* byte \d+: .*fetch it again"):
            opened(path)
    path.write_bytes(whole[:header])
    with pytest.raises(DataError, match=f"at byte {header}: the zeros at its end are missing"):
        opened(path)


def test_nothing_but_zeros_may_follow_the_end(tmp_path, caplog):
    write_shard(tmp_path / "a.tar", numbered(0, 10))
    write_shard(tmp_path / "b.tar", numbered(10, 10))
    joined = tmp_path / "joined.tar"
    joined.write_bytes((tmp_path / "a.tar").read_bytes() + (tmp_path / "b.tar").read_bytes())
    source = opened(joined)
    assert labels_of(source).keys() == set(range(20))
    assert f"{joined}:byte " in caplog.text
    joined.write_bytes((tmp_path / "a.tar").read_bytes() + b"<html>")
    with pytest.raises(DataError, match="cut short"):
        opened(joined)


def test_a_name_that_is_not_utf8(tmp_path):
    write_shard(
        tmp_path / "a.tar", {"k\udce4uz.png": picture(7), "k\udce4uz.txt": b"K\xe4uzchen"}, errors="surrogateescape"
    )
    source = opened(tmp_path)
    with pytest.raises(DataError, match=r"a\.tar:k\\xe4uz: its \.cls or \.txt cannot be read"):
        source[0]


def test_a_pattern_of_ten_million_shards_is_refused_at_once(tmp_path):
    for pattern in ("a-{0..9999999}.tar", "a-{000..999}-{0..99999}.tar", "{0..999999999999999999}.tar"):
        with pytest.raises(DataError, match=r"stands for \d+ shards, expected at most 1048576"):
            opened(tmp_path / pattern)


def test_a_shard_that_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "a.tar")
    with pytest.raises(DataError, match=r"a\.tar is not a regular file"):
        opened(tmp_path)


def test_texts_beyond_bounds_are_broken(tmp_path):
    members = {f"{i}.png": picture(i) for i in range(4)}
    members |= {"0.json": b"[" * 10**6, "1.json": b'{"n": ' + b"1" * 10**5 + b"}", "2.txt": b"a" * (2**20 + 1)}
    write_shard(tmp_path / "a.tar", members)
    source = opened(tmp_path, max_broken=1.0)
    assert [int(source[i]["image"][0, 0, 0]) for i in range(4)] == [3] * 4
    reasons = [source.broken[i] for i in range(3)]
    for reason, said in zip(reasons, ("nested deeper", "100000 digits", "1048577 bytes"), strict=True):
        assert said in reason


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"0.json": b'{"caption": null}'}, "its caption in the .json is null, expected text"),
        ({"0.json": b'{"text": ["a", 3]}'}, 'its caption in the .json is ["a", 3], expected text'),
        ({"0.cls": b"1" + b"0" * 30}, "its label 1000000000000000000000000000000 is out of range: expected 0 to"),
        ({"0.json": b'{"label": 1' + b"0" * 30 + b"}"}, "its label 1000000000000000000000000000000 is out of range"),
        ({"0.txt": b"K\xe4uzchen"}, "its .cls or .txt cannot be read: 'utf-8' codec"),
    ],
)
def test_a_caption_that_is_none_and_a_label_that_is_too_large_are_broken(tmp_path, members, said):
    write_shard(tmp_path / "a.tar", {"0.png": picture(0), **members})
    source = opened(tmp_path)
    with pytest.raises(DataError, match=re.escape(f"a.tar:0: {said}")):
        source[0]


def test_a_caption_beside_overrules_one_that_is_none(tmp_path):
    members = {"0.png": picture(0), "0.json": b'{"caption": null, "label": true}', "0.txt": b"an owl"}
    write_shard(tmp_path / "a.tar", members)
    example = opened(tmp_path)[0]
    assert example["text"] == "an owl"
    assert "label" not in example
