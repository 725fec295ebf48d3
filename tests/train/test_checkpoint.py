"""What was saved loads bit for bit, and what was damaged since is refused by name."""

import hashlib
import json
import os
import pathlib
import resource
import shutil
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import flaxgen
from flaxgen import parallel
from flaxgen.train.checkpoint import Checkpoints, newest_good, read, steps_in
from flaxgen.train.manifest import find_fault, read_manifest
from flaxgen.train.state import init_state

FILES = (
    "manifest.json",
    "_CHECKPOINT_METADATA",
    "state/_METADATA",
    "state/_sharding",
    "state/manifest.ocdbt",
    "state/array_metadatas/process_0",
    "state/d/*",
    "state/ocdbt.process_0/manifest.ocdbt",
    "state/ocdbt.process_0/d/*",
)


class Odd(NamedTuple):
    """A state that is nobody's TrainState."""

    step: jax.Array
    nets: dict
    optimizers: tuple


def odd_state(seed):
    params = {"a": jax.random.normal(jax.random.key(seed), (5, 3)), "b": {"c": jnp.full(3, seed, jnp.bfloat16)}}
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.masked(optax.adam(1e-3), {"a": True, "b": False}))
    counters = {"seen": jnp.arange(4, dtype=jnp.int32), "flag": jnp.array(True), "p": jnp.float16(0.5)}
    return Odd(jnp.int32(seed), {"g": params, "ada": counters}, (tx.init(params), optax.sgd(0.1).init(params)))


def abstract_of(state):
    return parallel.jit_plan().abstract(state)


def assert_bit_equal(tree, expected):
    assert jax.tree.structure(tree) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.fixture(scope="module")
def two_saved(tmp_path_factory):
    directory = tmp_path_factory.mktemp("saved") / "checkpoints"
    with Checkpoints(directory, keep=5) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, odd_state(step))
    return directory


@pytest.fixture
def two_steps(two_saved, tmp_path):
    """A copy of a directory with good steps 1 and 2, to be damaged."""
    return shutil.copytree(two_saved, tmp_path / "checkpoints")


def test_any_tree_of_arrays_comes_back_bit_for_bit(two_saved):
    restored = Checkpoints(two_saved, keep=5).restore(abstract_of(odd_state(0)))
    assert restored is not None
    assert restored[0] == 2
    assert_bit_equal(restored[1], odd_state(2))


def test_a_sharded_state_is_restored_into_its_shardings_and_into_others(tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "MIN_SHARDED", 8)
    mesh, other = parallel.mesh_plan(data=4, fsdp=2), parallel.mesh_plan(data=1, fsdp=8)
    state = init_state({"w": jnp.arange(64.0).reshape(8, 8)}, optax.adam(1e-3))
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(3, mesh.place_state(state))
    for plan in (mesh, other, parallel.jit_plan()):
        restored = Checkpoints(tmp_path, keep=1).restore(plan.abstract(state))
        assert restored is not None
        assert_bit_equal(restored[1], state)
        for x, wanted in zip(*map(jax.tree.leaves, (restored[1], plan.abstract(state))), strict=True):
            assert x.sharding == wanted.sharding


def test_a_state_may_be_donated_while_it_is_written(tmp_path):
    add_one = jax.jit(lambda x: x + 1, donate_argnums=0)
    x = jnp.zeros((512, 512))
    with Checkpoints(tmp_path, keep=9) as checkpoints:
        for step in range(5):
            checkpoints.save(step, {"x": x})
            x = add_one(add_one(x))
    for step in range(5):
        assert find_fault(tmp_path / str(step)) is None
        shutil.copytree(tmp_path / str(step), tmp_path / f"only{step}" / str(step))
        assert (read(tmp_path / f"only{step}", ("x",))[1]["x"] == 2 * step).all()


@pytest.mark.parametrize("keep", [1, 3])
def test_the_newest_stay(tmp_path, keep):
    with Checkpoints(tmp_path, keep=keep) as checkpoints:
        for step in (5, 10, 15, 20):
            checkpoints.save(step, {"x": jnp.float32(step)})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(map(str, (5, 10, 15, 20)[-keep:]))


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 8
    path.write_bytes(content)


DAMAGES = {
    "flipped": flip_a_bit,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "missing": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("pattern", FILES)
def test_a_damaged_file_is_named_and_the_step_before_is_taken(two_steps, pattern, damage, capfd):
    (path,) = (two_steps / "2").glob(pattern)
    DAMAGES[damage](path)
    with Checkpoints(two_steps, keep=5) as checkpoints:
        restored = checkpoints.restore(abstract_of(odd_state(0)))
        assert restored is not None
        assert restored[0] == 1
        assert_bit_equal(restored[1], odd_state(1))
        told = capfd.readouterr().err.splitlines()
        assert len(told) == 1
        assert str(two_steps / "2") in told[0]
        assert path.relative_to(two_steps / "2").as_posix() in told[0]
        assert (two_steps / "2.damaged").is_dir(), "what is damaged is put aside, not thrown away"
        checkpoints.save(2, odd_state(7))
    assert newest_good(two_steps) == 2


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


def test_every_file_that_holds_something_is_in_the_manifest_and_in_this_test(two_saved):
    files = [path for path in (two_saved / "2").rglob("*") if path.is_file() and path.stat().st_size]
    tested = {path for pattern in FILES for path in (two_saved / "2").glob(pattern)}
    left = {path.name for path in files if path not in tested}
    assert left <= {"orbax.checkpoint", "commit_success.txt"}, "only markers are left"


@pytest.mark.parametrize(
    ("make", "reason"),
    [(lambda path: path.mkdir(), "an empty directory"), (lambda path: path.write_text("x"), "not a directory")],
)
def test_what_only_looks_like_a_step_is_passed_over(two_steps, make, reason, capfd):
    make(two_steps / "9")
    assert newest_good(two_steps) == 2
    assert capfd.readouterr().err == f"flaxgen: checkpoint {two_steps / '9'} is skipped: {reason}\n"


def test_strays_are_not_steps(two_steps, capfd):
    for name in ("notes", "saving-9", "saving-9.orbax-checkpoint-tmp", "007", "3.damaged", "-4"):
        (two_steps / name).mkdir()
    (two_steps / "README.txt").write_text("mine")
    (two_steps / "2" / ".DS_Store").write_text("stray")
    assert steps_in(two_steps) == [1, 2]
    assert newest_good(two_steps) == 2
    assert capfd.readouterr().err == ""
    Checkpoints(two_steps, keep=5)
    assert not list(two_steps.glob("saving-*")), "what was cut off is cleaned up"
    assert (two_steps / "notes").is_dir()


def test_nothing_saved_is_a_fresh_start(tmp_path):
    assert Checkpoints(tmp_path / "new", keep=1).restore(abstract_of(odd_state(0))) is None


def test_nothing_good_is_an_error_and_loses_nothing(two_steps, capfd):
    (two_steps / "1" / "manifest.json").unlink()
    shutil.rmtree(two_steps / "2" / "state")
    before = sorted(two_steps.rglob("*"))
    with pytest.raises(ValueError, match="no checkpoint can be loaded"):
        Checkpoints(two_steps, keep=5).restore(abstract_of(odd_state(0)))
    assert sorted(two_steps.rglob("*")) == before
    assert len(capfd.readouterr().err.splitlines()) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s._replace(step=jnp.float32(0)), r"step is int32\[\], the experiment has float32\[\]"),
        (lambda s: jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x, s), "nets/g/b/c"),
        (lambda s: s._replace(nets={**s.nets, "g": {**s.nets["g"], "a": jnp.zeros((5, 4))}}), r"nets/g/a .*\[5,3\]"),
        (lambda s: s._replace(nets={"g": s.nets["g"]}), "nets/ada/flag is bool.*no such array"),
        (lambda s: s._replace(nets={**s.nets, "z": jnp.zeros(1)}), "nets/z is no such array"),
    ],
    ids=["dtype", "bfloat16", "shape", "extra", "missing"],
)
def test_another_shape_or_dtype_is_refused_by_name(two_saved, change, message):
    with pytest.raises(ValueError, match=message) as error:
        Checkpoints(two_saved, keep=5).restore(abstract_of(change(odd_state(2))))
    assert "\n" not in str(error.value)


def test_a_state_is_read_by_field_without_its_optimizer(two_saved):
    step, fields = read(two_saved, ("nets",))
    assert step == 2
    assert_bit_equal(fields, {"nets": odd_state(2).nets})


def test_reading_says_what_is_not_there(two_saved, tmp_path):
    with pytest.raises(ValueError, match=r"'params'; it has .*nets, .*optimizers"):
        read(two_saved, ("params",))
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError, match="no checkpoint"):
            read(path, ("params",))


def test_a_failed_write_is_one_line_and_the_step_before_stays(tmp_path, capfd):
    """A limit on the size of files fails a write as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    big = {"x": jax.random.normal(jax.random.key(0), (256, 256))}
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(1, big)
    checkpoints.wait()
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
        checkpoints.save(2, big)
        with pytest.raises(OSError, match=r"step 2 could not be saved \(File too large\); step 1 is the new") as error:
            checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert error.value.filename == str(tmp_path / "2")
    assert capfd.readouterr().err == ""
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
    assert newest_good(tmp_path) == 1


def test_a_failure_while_leaving_does_not_hide_what_went_wrong_first(tmp_path, capfd):
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "in the way").touch()

    def train():
        with Checkpoints(tmp_path, keep=1) as checkpoints:
            checkpoints.save(1, {"x": jnp.zeros(3)})
            raise FloatingPointError("loss is nan")

    with pytest.raises(FloatingPointError):
        train()
    assert "step 1 could not be saved" in capfd.readouterr().err
