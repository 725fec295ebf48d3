"""What was saved loads bit for bit, and what was damaged since is refused by name."""

import resource
import shutil

import jax
import jax.numpy as jnp
import optax
import pytest
from saved import DAMAGES, abstract_of, assert_bit_equal, odd_state

from flaxgen import parallel
from flaxgen.train.checkpoint import Checkpoints, newest_good, read, steps_in
from flaxgen.train.manifest import find_fault
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
