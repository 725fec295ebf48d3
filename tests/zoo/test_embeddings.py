"""Embeddings on disk: what is in them, when they are made again, and who may use them."""

import dataclasses
import json

import numpy as np
import pytest
import unclip_toy

from flaxgen import parallel, verbs
from flaxgen.data import open_source
from flaxgen.family import companions
from flaxgen.nets.clip import TextTower
from flaxgen.zoo import clip

DATA = dataclasses.replace(unclip_toy.DATA, size=40)


@pytest.fixture(autouse=True)
def _short_shards(monkeypatch):
    monkeypatch.setattr(companions, "SHARD", 16)


def load_clip(path):
    return companions.load_companion(clip.FAMILY, str(path))


def check_clip(files, fingerprint):
    return companions.check_companion(files, "CLIP", fingerprint)


@pytest.fixture
def open_cache(toy, tmp_path):
    """Opens the embeddings of DATA, or of other data, in a folder of their own."""

    def open_(data=DATA):
        return load_clip(toy.runs["clip"]).cached(data, str(tmp_path))

    return open_


def shards(tmp_path):
    """The shards of the one cache that is there, with the times at which they were written."""
    (cache,) = tmp_path.iterdir()
    return cache, {path.name: path.stat().st_mtime_ns for path in sorted(cache.iterdir()) if path.is_dir()}


def test_every_example_has_the_embeddings_that_clip_gives_it(toy, open_cache):
    cached, source, model = open_cache(), open_source(DATA), load_clip(toy.runs["clip"])
    assert len(cached) == len(source) == 40
    for i in (0, 17, 39):
        direct = model.text_fields([source[i]["text"]])
        for field in clip.TEXT:
            np.testing.assert_allclose(
                cached[i][field], direct[field][0], atol=1e-5 if field != "text_hidden" else 2e-3
            )
        image = model.encode_image(source[i]["image"][None])[0]
        np.testing.assert_allclose(cached[i]["image_embedding"], image, atol=1e-5)
    np.testing.assert_array_equal(cached.first("image_embedding", 20)[17], cached[17]["image_embedding"])
    assert cached.empty["text_mask"].sum() == 2


def test_only_what_is_missing_is_made(open_cache, tmp_path):
    open_cache()
    cache, before = shards(tmp_path)
    assert list(before) == ["000000", "000001", "000002"]
    for file in (cache / "000001").iterdir():
        file.unlink()
    (cache / "000002" / "image_embedding.npy").unlink()
    np.save(cache / "000002" / "image_embedding.npy", np.zeros((3, 8), np.float32))  # of when there were fewer examples
    assert len(open_cache()) == 40
    _, after = shards(tmp_path)
    assert {name for name in before if before[name] != after[name]} == {"000001", "000002"}
    assert after.keys() == before.keys()


def test_other_data_and_another_clip_have_caches_of_their_own(open_cache, tmp_path, monkeypatch, toy):
    open_cache()
    open_cache(dataclasses.replace(DATA, threads=2, prefetch=3))
    assert len(list(tmp_path.iterdir())) == 1
    open_cache(dataclasses.replace(DATA, seed=1))
    assert len(list(tmp_path.iterdir())) == 2
    model = load_clip(toy.runs["clip"])
    monkeypatch.setitem(model.__dict__, "fingerprint", "another")
    open_cache()
    assert len(list(tmp_path.iterdir())) == 3


def test_processes_share_the_work_whenever_they_begin(open_cache, tmp_path, monkeypatch):
    """Process 1 begins when process 0 has written a shard already; with all shards there, both read the same."""
    written = []
    write = companions._write
    monkeypatch.setattr(
        companions, "_write", lambda folder, *fields: (written.append(folder.name), write(folder, *fields))
    )
    monkeypatch.setattr(parallel, "process_count", lambda: 2)
    with pytest.raises(ValueError, match="lacks 1 of 3 shards: put it where all processes can read it"):
        open_cache()
    assert written == ["000000", "000002"]
    monkeypatch.setattr(parallel, "process_index", lambda: 1)
    assert len(open_cache()) == 40
    assert written == ["000000", "000002", "000001"]


def test_two_runs_may_write_one_shard(tmp_path):
    fields = {name: np.ones((4, 2), np.float32) for name in clip.FIELDS}
    companions._write(tmp_path / "000000", clip.FIELDS, fields)
    first = (tmp_path / "000000").stat().st_ino
    companions._write(tmp_path / "000000", clip.FIELDS, fields)
    assert [path.name for path in tmp_path.iterdir()] == ["000000"]
    assert (tmp_path / "000000").stat().st_ino == first


def test_data_without_captions(open_cache, tmp_path_factory):
    with pytest.raises(ValueError, match=r"data\.source=folder has no captions: set data\.caption_field"):
        open_cache(unclip_toy.without_captions(tmp_path_factory.mktemp("pictures")))


def test_a_stage_knows_its_clip():
    named = check_clip({}, "abc")
    assert check_clip(named, "abc") == named
    with pytest.raises(ValueError, match="was trained with the CLIP abc, this one is def"):
        check_clip(named, "def")


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"{}", json.dumps({"fingerprint": 3}).encode()])
def test_a_damaged_name_of_a_clip(content):
    with pytest.raises(ValueError, match=r"clip\.json is damaged"):
        check_clip({"clip.json": content}, "abc")


def test_no_clip():
    with pytest.raises(ValueError, match="clip is not set: train a clip first and name its run with --set clip=DIR"):
        load_clip("")
    with pytest.raises(ValueError, match="nowhere is no run or model directory"):
        load_clip("nowhere")


def test_what_is_no_clip(toy):
    with pytest.raises(ValueError, match="is of type Upsampler: expected a run or model directory of type Clip"):
        load_clip(toy.runs["upsampler_1"])
    with pytest.raises(ValueError, match="model is no run or model directory"):
        load_clip(toy.model)


@pytest.mark.parametrize(
    ("context", "change", "message"),
    [
        (16, {"embedding_dim": 4}, r"net\.embedding_dim=4 does not fit this CLIP, expected 8"),
        (16, {"text_dim": 4}, r"net\.text_dim=4 does not fit this CLIP, expected 16"),
        (9, {}, "context=9 does not fit this CLIP, expected 16"),
    ],
)
def test_a_net_of_other_widths(open_cache, context, change, message):
    net = dataclasses.replace(unclip_toy.DECODER_CONFIG.net, **change)
    with pytest.raises(ValueError, match=message):
        open_cache().check_widths(net, context)


def test_a_text_tower_of_its_own_may_be_of_any_width(open_cache):
    net = unclip_toy.DECODER_CONFIG.net
    wider = dataclasses.replace(net, text_dim=4, text=TextTower(vocab_size=384, context=16, width=4, depth=1, heads=1))
    open_cache().check_widths(wider, 16)


def test_sources_side_by_side():
    joined = companions.Joined(([{"a": 1}, {"a": 2}], dict), ([{"b": 3}, {"b": 4}], lambda e: {"c": e["b"] + 1}))
    assert len(joined) == 2
    assert joined[1] == {"a": 2, "c": 5}


def test_stages_of_two_clips_are_refused(toy, tmp_path):
    other = unclip_toy.with_another_clip(toy, tmp_path / "clip")
    with pytest.raises(ValueError, match="do not belong together: prior: this stage was trained with the CLIP"):
        verbs.compose(tmp_path / "model", {"clip": other, "prior": toy.runs["prior"]})
    assert not (tmp_path / "model").exists()
