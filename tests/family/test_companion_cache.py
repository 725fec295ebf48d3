"""A companion's cache on disk, with an encoder that needs no net: what changes its name, and what is made again."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from flaxgen.data import Data
from flaxgen.family import companions, content

COUNT = 10


@pytest.fixture(autouse=True)
def _few(monkeypatch):
    monkeypatch.setattr(companions, "SHARD", 4)
    monkeypatch.setattr(content, "LOOKED_AT", 1)  # what is told apart is told by all files, not by a look at some


@pytest.fixture
def pictures(tmp_path):
    """A folder of pictures, all files of one size, with captions."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(COUNT):
        paint(folder / f"{i:02d}.bmp", 20 * i)
    describe(folder, {f"{i:02d}.bmp": f"caption {i}" for i in range(COUNT)})
    return folder


def paint(path, level):
    Image.new("RGB", (4, 4), (level, level, level)).save(path)


def describe(folder, captions):
    lines = [json.dumps({"file_name": name, "text": text}) for name, text in captions.items()]
    (folder / "metadata.jsonl").write_text("\n".join(lines))


def encode(examples):
    """Embeddings by which every picture and every caption is known again."""
    levels = [float(example["image"].mean()) for example in examples]
    words = [[float(ord(letter)) for letter in example["text"]] for example in examples]
    return {"image": np.array(levels, np.float32), "text": np.array(words, np.float32)}


ENCODER = companions.Encoder(
    "toy", "abc", ("image", "text"), encode, empty=lambda: {"text": np.full(9, 1.5, np.float32)}
)


def open_cache(folder, tmp_path, encoder=ENCODER):
    data = Data(source="folder", path=str(folder), image_size=4, threads=0)
    return companions.Cached(*companions.open_cache(encoder, data, tmp_path / "cache"))


def check(cached, levels, captions):
    np.testing.assert_array_equal(cached.first("image", COUNT + 1), levels)
    said = ["".join(map(chr, row.astype(int))) for row in cached.first("text", COUNT + 1)]
    assert said == captions


LEVELS = [20.0 * i for i in range(COUNT)]
CAPTIONS = [f"caption {i}" for i in range(COUNT)]


def stamped(path, change):
    """Changes a file of which size and time of change stay the same."""
    before = path.stat()
    change(path)
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_another_picture_under_the_same_name(pictures, tmp_path):
    check(open_cache(pictures, tmp_path), LEVELS, CAPTIONS)
    stamped(pictures / "06.bmp", lambda path: paint(path, 250))
    check(open_cache(pictures, tmp_path), [*LEVELS[:6], 250.0, *LEVELS[7:]], CAPTIONS)


def test_another_caption_of_the_same_picture(pictures, tmp_path):
    open_cache(pictures, tmp_path)
    stamped(pictures / "metadata.jsonl", lambda path: path.write_text(path.read_text().replace("ion 6", "ion X")))
    check(open_cache(pictures, tmp_path), LEVELS, [*CAPTIONS[:6], "caption X", *CAPTIONS[7:]])


def test_one_example_more_in_front(pictures, tmp_path):
    open_cache(pictures, tmp_path)
    paint(pictures / "aa.bmp", 255)
    describe(pictures, {"aa.bmp": "caption -"} | {f"{i:02d}.bmp": f"caption {i}" for i in range(COUNT)})
    check(open_cache(pictures, tmp_path), [255.0, *LEVELS], ["caption -", *CAPTIONS])


def silent():
    return ENCODER._replace(encode=lambda examples: pytest.fail("nothing is missing"))


def test_what_has_not_changed_is_neither_read_nor_encoded_again(pictures, tmp_path, monkeypatch):
    open_cache(pictures, tmp_path)
    monkeypatch.setattr(content, "_sum_of_file", lambda path: pytest.fail(f"{path} has been read before"))
    check(open_cache(pictures, tmp_path, silent()), LEVELS, CAPTIONS)


def test_the_same_data_elsewhere(pictures, tmp_path):
    open_cache(pictures, tmp_path)
    shutil.move(pictures, tmp_path / "moved")
    check(open_cache(tmp_path / "moved", tmp_path, silent()), LEVELS, CAPTIONS)


def test_a_damaged_note_of_sums_is_not_believed(pictures, tmp_path):
    open_cache(pictures, tmp_path)
    (note,) = (tmp_path / "cache" / "sums").iterdir()
    note.write_text("torn")
    check(open_cache(pictures, tmp_path, silent()), LEVELS, CAPTIONS)


def cache_of(tmp_path):
    (cache,) = (path for path in (tmp_path / "cache").iterdir() if path.name != "sums")
    return cache


def flip(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 64
    path.write_bytes(content)


def tear(path):
    path.write_bytes(path.read_bytes()[:-4])


@pytest.mark.parametrize("damage", [flip, tear, lambda path: path.unlink()], ids=["flipped", "torn", "missing"])
def test_a_damaged_shard_is_named_and_made_again(pictures, tmp_path, damage, capsys):
    open_cache(pictures, tmp_path)
    assert capsys.readouterr().err.count("warning") == 0
    damage(cache_of(tmp_path) / "000001" / "text.npy")
    check(open_cache(pictures, tmp_path), LEVELS, CAPTIONS)
    said = capsys.readouterr().err
    assert said.count("warning") == 1
    assert f"{cache_of(tmp_path) / '000001'} are damaged (text.npy" in said
    check(open_cache(pictures, tmp_path, silent()), LEVELS, CAPTIONS)


def blank(path):
    """As after a power cut: as long as it was, and zero from some place on."""
    content = path.read_bytes()
    path.write_bytes(content[:80] + bytes(len(content) - 80))


def overwrite(path):
    """One number of the array is another; the archive around it is whole."""
    path.write_bytes(path.read_bytes().replace(np.float32(1.5).tobytes(), np.float32(2.5).tobytes()))


@pytest.mark.parametrize("damage", [tear, blank, overwrite])
def test_a_damaged_empty_caption_is_made_again(pictures, tmp_path, damage, capsys):
    open_cache(pictures, tmp_path)
    damage(cache_of(tmp_path) / "empty.npz")
    np.testing.assert_array_equal(open_cache(pictures, tmp_path).empty["text"], [1.5] * 9)
    assert "empty.npz are damaged" in capsys.readouterr().err


def test_what_killed_writers_left_goes(pictures, tmp_path):
    open_cache(pictures, tmp_path)
    cache = cache_of(tmp_path)
    old, young, file = (cache / f"00000{i}.{i}.partial" for i in range(3))
    for path in (old, young):
        path.mkdir()
        (path / "text.npy").write_bytes(b"half")
    file.write_bytes(b"half")
    for path in (old, file):
        os.utime(path, (1, 1))
    open_cache(pictures, tmp_path)
    assert [path.name for path in cache.glob("*.partial")] == [young.name]


def test_a_writer_that_fails_leaves_no_shard(pictures, tmp_path):
    with pytest.raises(KeyError):
        open_cache(pictures, tmp_path, ENCODER._replace(encode=lambda examples: {"image": np.zeros(len(examples))}))
    assert not list(cache_of(tmp_path).glob("0*[0-9]"))


def test_any_examples_stand_for_all(pictures, tmp_path):
    """The same ones for every field, of all shards, each once; all where as many are asked for."""
    cached = open_cache(pictures, tmp_path)
    levels, words = cached.drawn("image", 5), cached.drawn("text", 5)
    numbers = [int(level) // 20 for level in levels]
    assert sorted(set(numbers)) == numbers
    assert max(numbers) > 5  # not the first five
    assert ["".join(map(chr, row.astype(int))) for row in words] == [f"caption {i}" for i in numbers]
    np.testing.assert_array_equal(cached.drawn("image", 5), levels)
    np.testing.assert_array_equal(cached.drawn("image", 99), LEVELS)
