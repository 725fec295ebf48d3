"""A saved step is what its manifest says, on disk before it has its number, and under no other number."""

import hashlib
import json
import os
import pathlib
import shutil

import pytest
from saved import abstract_of, assert_bit_equal, odd_state

import flaxgen
from flaxgen.train.checkpoint import Checkpoints, newest_good
from flaxgen.train.manifest import read_manifest


@pytest.fixture
def two_steps(tmp_path):
    """A directory with good steps 1 and 2, to be damaged."""
    with Checkpoints(tmp_path, keep=5) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, odd_state(step))
    return tmp_path


def rename(directory, *pairs):
    """(old, new) names, all at once."""
    for old, _ in pairs:
        (directory / old).rename(directory / f"moving-{old}")
    for old, new in pairs:
        (directory / f"moving-{old}").rename(directory / new)


@pytest.mark.parametrize(
    ("renamed", "aside"), [([("3", "13")], {"13": 3}), ([("2", "3"), ("3", "2")], {"3": 2})], ids=["renamed", "swapped"]
)
def test_a_step_under_the_number_of_another_is_found_out(tmp_path, renamed, aside, capfd):
    """It is named and moved aside; of what is left the newest good step is taken."""
    with Checkpoints(tmp_path, keep=5) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, odd_state(step))
    good = 1 if len(renamed) == 2 else 2
    rename(tmp_path, *renamed)
    restored = Checkpoints(tmp_path, keep=5).restore(abstract_of(odd_state(0)))
    assert restored is not None
    assert restored[0] == good
    assert_bit_equal(restored[1], odd_state(good))
    said = capfd.readouterr().err
    for name, step in aside.items():
        line = f"checkpoint {tmp_path / name} is skipped: it holds step {step}: the directory was renamed"
        assert line in said
        assert (tmp_path / f"{name}.damaged").is_dir()


def test_a_step_of_another_run_is_not_taken(tmp_path, capfd):
    for name, step, config in (("ours", 1, "aaaa"), ("theirs", 2, "bbbb")):
        with Checkpoints(tmp_path / name, keep=5, config=config) as checkpoints:
            checkpoints.save(step, odd_state(step))
    shutil.copytree(tmp_path / "theirs" / "2", tmp_path / "ours" / "2")
    assert newest_good(tmp_path / "ours") == 2, "whose config is not known takes what is there"
    restored = Checkpoints(tmp_path / "ours", keep=5, config="aaaa").restore(abstract_of(odd_state(0)))
    assert restored is not None
    assert restored[0] == 1
    assert "2 is skipped: it was saved by a run of another config" in capfd.readouterr().err


def test_a_manifest_says_step_config_and_version(tmp_path):
    with Checkpoints(tmp_path, keep=5, config="aaaa") as checkpoints:
        checkpoints.save(3, odd_state(3))
    content = read_manifest(tmp_path / "3")
    assert (content.step, content.config, content.flaxgen) == (3, "aaaa", flaxgen.__version__)


def rewrite_manifest(path, change):
    """With sums that fit, as an older version or a stranger would write it."""
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["content"] = change(manifest["content"])
    text = json.dumps(manifest["content"], sort_keys=True)
    manifest["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    (path / "manifest.json").write_text(json.dumps(manifest))


def test_checkpoints_of_version_0_1_0_are_loaded(two_steps):
    """Their manifests know files and arrays only."""
    for step in ("1", "2"):
        rewrite_manifest(two_steps / step, lambda content: {name: content[name] for name in ("files", "leaves")})
    restored = Checkpoints(two_steps, keep=5, config="aaaa").restore(abstract_of(odd_state(0)))
    assert restored is not None
    assert restored[0] == 2
    assert_bit_equal(restored[1], odd_state(2))


@pytest.mark.parametrize(
    "change",
    [
        lambda content: [],
        lambda content: {**content, "files": []},
        lambda content: {**content, "files": {"state/_METADATA": 3}},
        lambda content: {**content, "files": {"state/_METADATA": ["3", None]}},
        lambda content: {**content, "leaves": "all"},
        lambda content: {**content, "step": [2]},
        lambda content: None,
    ],
)
def test_a_manifest_of_wrong_types_is_damaged(two_steps, change, capfd):
    rewrite_manifest(two_steps / "2", change)
    assert newest_good(two_steps) == 1
    assert "2 is skipped: " in capfd.readouterr().err


def test_a_step_that_may_not_be_read_is_passed_over(two_steps, monkeypatch, capfd):
    """Root may read everything, so the refusal is made up."""
    iterate = pathlib.Path.iterdir

    def refuse(path):
        if path.name == "2":
            raise PermissionError(13, "Permission denied", str(path))
        return iterate(path)

    monkeypatch.setattr(pathlib.Path, "iterdir", refuse)
    assert newest_good(two_steps) == 1
    assert "it cannot be read (Permission denied)" in capfd.readouterr().err


def test_a_step_has_its_number_when_all_of_it_is_on_disk(tmp_path, monkeypatch):
    """Every file and directory is synced before the rename, and the directory of the number after it."""
    order, synced = [], set()
    fsync, rename = os.fsync, os.rename

    def note_sync(descriptor):
        fsync(descriptor)
        about = os.fstat(descriptor)
        synced.add((about.st_ino, about.st_size))
        order.append(about.st_ino)

    def note_rename(source, target):
        if pathlib.Path(source).name.startswith("saving-3") and pathlib.Path(target).name == "3":
            written = [entry.stat() for entry in [*pathlib.Path(source).rglob("*"), pathlib.Path(source)]]
            left = [about for about in written if (about.st_ino, about.st_size) not in synced]
            order.append("renamed" if not left else "renamed too early")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "rename", note_rename)
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(3, odd_state(3))
    assert "renamed" in order
    assert tmp_path.stat().st_ino in order[order.index("renamed") :]
