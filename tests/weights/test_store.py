"""The safetensors reader and writer beside the reference implementation, and what they refuse."""

import gc
import json
import tracemalloc
from functools import partial

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file, save_file

from flaxgen.weights import store
from flaxgen.weights.lazy import Lazy
from flaxgen.weights.rules import LINEAR, Rule, from_params, to_params

DTYPES = [np.float64, np.float32, np.float16, np.int64, np.int32, np.int16, np.int8, np.uint8, np.bool_]
SHAPES = hnp.array_shapes(min_dims=0, min_side=0)


def raw(header, data=b""):
    """The bytes of a safetensors file with this header: a value for JSON, or the text itself."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize("dtype", DTYPES)
def test_agrees_with_the_reference_both_ways(dtype, tmp_path):
    tensors = {
        "a.b": np.arange(6).reshape(2, 3).astype(dtype),
        "scalar": np.array(1, dtype),
        "none": np.zeros((0, 4), dtype),
    }
    save_file(tensors, tmp_path / "theirs.safetensors")
    store.write_file(tmp_path / "ours.safetensors", tensors)
    for found in (store.read_file(tmp_path / "theirs.safetensors"), load_file(tmp_path / "ours.safetensors")):
        assert found.keys() == tensors.keys()
        for name, value in tensors.items():
            assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape)
            np.testing.assert_array_equal(found[name], value)


@settings(max_examples=50, deadline=None)
@given(value=hnp.arrays(np.float32, SHAPES, elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_round_trip_is_bit_exact(value, tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "x.safetensors"
    store.write_file(path, {"x": value, "half": np.asarray(jnp.asarray(value, jnp.bfloat16))})
    found = store.read_file(path)
    assert found["x"].shape == value.shape
    assert found["x"].tobytes() == value.tobytes()
    assert found["half"].dtype == ml_dtypes.bfloat16
    assert found["half"].tobytes() == value.astype(ml_dtypes.bfloat16).tobytes()


def test_strided_arrays_are_written_as_they_read(tmp_path):
    value = np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1)
    store.write_file(tmp_path / "x.safetensors", {"x": value})
    np.testing.assert_array_equal(load_file(tmp_path / "x.safetensors")["x"], value)


BAD = {
    "empty": (b"", "not a safetensors file"),
    "short": (b"\x01\x02", "not a safetensors file"),
    "pickle": (b"\x80\x04\x95" + b"a" * 40, "not a safetensors file"),
    "longer_than_file": ((10**6).to_bytes(8, "little") + b"{}", "header of 1000000 bytes"),
    "not_json": (raw("{nope"), "not JSON"),
    "not_utf8": ((2).to_bytes(8, "little") + b"\xff\xfe", "not JSON"),
    "list": (raw([1]), "not a JSON object"),
    "nested": (raw("[" * 100_000), "not JSON"),
    "twice": (raw('{"a": %s, "a": %s}' % ((json.dumps(entry()),) * 2), bytes(8)), "'a' stands twice"),
    "dtype": (raw({"a": entry("F8_E4M3", (8,))}, bytes(8)), "dtype 'F8_E4M3'"),
    "dtype_list": (raw({"a": {**entry(), "dtype": ["F32"]}}, bytes(8)), "known are"),
    "no_shape": (raw({"a": {"dtype": "F32", "data_offsets": [0, 8]}}, bytes(8)), "no proper shape"),
    "negative_shape": (raw({"a": entry(shape=(-1, -2))}, bytes(8)), "no proper shape"),
    "bool_shape": (raw({"a": entry(shape=(True, 2))}, bytes(8)), "no proper shape"),
    "three_offsets": (raw({"a": entry(offsets=(0, 4, 8))}, bytes(8)), "no proper shape"),
    "backward": (raw({"a": entry(offsets=(8, 0))}, bytes(8)), "has -8 bytes"),
    "size": (raw({"a": entry(shape=(3,))}, bytes(8)), "has 8 bytes"),
    "huge_shape": (raw({"a": entry(shape=(2**62, 2**62))}, bytes(8)), "has 8 bytes"),
    "overlap": (raw({"a": entry(), "b": entry(offsets=(4, 12))}, bytes(12)), "'b' starts at byte"),
    "gap": (raw({"a": entry(), "b": entry(offsets=(12, 20))}, bytes(20)), "'b' starts at byte"),
    "truncated": (raw({"a": entry()}, bytes(7)), "truncated"),
    "appended": (raw({"a": entry()}, bytes(9)), "truncated"),
    "nan": (raw({"a": entry()}, np.array([1, np.nan], np.float32).tobytes()), "'a' holds NaN"),
    "infinite": (raw({"a": entry("BF16", (4,))}, np.full(4, np.inf, ml_dtypes.bfloat16).tobytes()), "'a' holds NaN"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_by_name(name, tmp_path):
    content, message = BAD[name]
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        store.read_file(path)
    assert "\n" not in str(caught.value)
    assert "bad.safetensors" in str(caught.value)


def test_what_a_header_says_beside_its_tensors(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"a": np.ones(2, np.float32)}, path, {"trained": "by hand"})
    assert store.read_metadata(path) == {"trained": "by hand"}
    for metadata in ([], {"steps": 3}):
        path.write_bytes(raw({"a": entry(), "__metadata__": metadata}, bytes(8)))
        with pytest.raises(ValueError, match="__metadata__ is not an object of strings"):
            store.read_metadata(path)
    path.write_bytes(raw({"a": entry()}, bytes(8)))
    assert store.read_metadata(path) == {}


def test_header_size_is_capped(tmp_path):
    path = tmp_path / "bad.safetensors"
    with path.open("wb") as file:
        file.write((80 * 2**20).to_bytes(8, "little"))
        file.truncate(100 * 2**20)
    with pytest.raises(ValueError, match="header of 83886080 bytes"):
        store.read_header(path)


@settings(max_examples=200, deadline=None)
@given(place=st.integers(0, 200), byte=st.integers(0, 255))
def test_a_changed_byte_is_an_error_or_a_value(place, byte, tmp_path_factory):
    """Never another exception than ValueError, and never another set of bytes than the file's."""
    path = tmp_path_factory.mktemp("store") / "x.safetensors"
    store.write_file(path, {"a": np.ones(3, np.float32), "b": np.ones((2, 2), np.int8)})
    content = bytearray(path.read_bytes())
    content[place % len(content)] = byte
    path.write_bytes(content)
    try:
        found = store.read_file(path)
    except ValueError:
        return
    assert sum(value.nbytes for value in found.values()) == 16


def test_write_refuses_what_it_could_not_read(tmp_path):
    path = tmp_path / "x.safetensors"
    store.write_file(path, {"x": np.ones(2, np.float32)})
    before = path.read_bytes()
    with pytest.raises(ValueError, match="'x' has dtype complex64"):
        store.write_file(path, {"x": np.ones(2, np.complex64)})
    with pytest.raises(ValueError, match="'x' holds NaN"):
        store.write_file(path, {"x": np.array([np.nan], np.float32)})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"
    store.write_file(path, {"x": np.ones(2, np.float32)})
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        store.write_file(path, {"x": np.zeros(2, np.float32)})
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def write_shards(folder, shards, weight_map):
    for name, tensors in shards.items():
        store.write_file(folder / name, tensors)
    (folder / "m.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


ONE = np.ones(1, np.float32)


def test_shards(tmp_path):
    write_shards(
        tmp_path,
        {"1.safetensors": {"a": ONE}, "2.safetensors": {"b": 2 * ONE}},
        {"a": "1.safetensors", "b": "2.safetensors"},
    )
    assert {name: float(value[0]) for name, value in store.read_folder(tmp_path, "m").items()} == {"a": 1.0, "b": 2.0}


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"a": "1.safetensors", "c": "1.safetensors"}, "'c' is missing"),
        ({"a": "1.safetensors"}, "'b' is not part"),
        ({"a": "../1.safetensors"}, "expected the name of a .safetensors file"),
        ({"a": "1.bin"}, "expected the name of a .safetensors file"),
        ({"a": 3}, "expected the name of a .safetensors file"),
        ({}, "no weight_map"),
        ([], "no weight_map"),
    ],
)
def test_shards_and_index_have_to_agree(weight_map, message, tmp_path):
    write_shards(tmp_path, {"1.safetensors": {"a": ONE, "b": ONE}}, weight_map)
    with pytest.raises(ValueError, match=message):
        store.read_folder(tmp_path, "m")


def test_a_missing_shard_is_named(tmp_path):
    write_shards(tmp_path, {}, {"a": "1.safetensors"})
    with pytest.raises(FileNotFoundError, match=r"1\.safetensors"):
        store.read_folder(tmp_path, "m")


def test_pickles_are_never_read(tmp_path):
    (tmp_path / "m.bin").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"m\.bin is a pickle"):
        store.read_folder(tmp_path, "m")


PARAMS = {"conv": {"kernel": np.ones((3, 2), np.float32), "bias": np.zeros(2, np.float32)}, "scale": np.float32(2)}


def test_params_come_back(tmp_path):
    path = tmp_path / "params.safetensors"
    store.save_params(path, jax.tree.map(jnp.asarray, PARAMS))
    assert set(load_file(path)) == {"conv/kernel", "conv/bias", "scale"}
    found = store.load_params(path, jax.eval_shape(lambda: jax.tree.map(jnp.asarray, PARAMS)))
    jax.tree.map(np.testing.assert_array_equal, found, PARAMS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv/bias": None}, r"'conv/bias' is missing \(1 missing in all\)"),
        ({"more": ONE}, r"'more' is not part of the model \(1 extra in all\)"),
        ({"conv/bias": np.zeros((2, 1), np.float32)}, r"'conv/bias' has shape \(2, 1\), expected \(2,\)"),
        ({"conv/bias": np.zeros(2, np.float64)}, "'conv/bias' is float64, which does not fit into float32"),
        ({"conv/bias": np.zeros(2, np.int32)}, "'conv/bias' is int32, which does not fit into float32"),
    ],
)
def test_load_params_names_what_is_wrong(change, message, tmp_path):
    path = tmp_path / "params.safetensors"
    flat = {**store.flatten(PARAMS), **change}
    store.write_file(path, {name: value for name, value in flat.items() if value is not None})
    with pytest.raises(ValueError, match=message):
        store.load_params(path, PARAMS)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_widened(dtype, tmp_path):
    store.write_file(tmp_path / "x.safetensors", {"x": np.array([1.5, -0.1], dtype)})
    found = store.load_params(tmp_path / "x.safetensors", {"x": np.zeros(2, np.float32)})["x"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.array([1.5, -0.1], dtype).astype(np.float32))


def test_names_that_are_no_tree():
    with pytest.raises(ValueError, match="'a/b' lies below"):
        store.unflatten({"a": ONE, "a/b": ONE})
    with pytest.raises(ValueError, match="'a' lies above"):
        store.unflatten({"a/b": ONE, "a": ONE})
    with pytest.raises(ValueError, match="nested dicts"):
        store.flatten({"a": [ONE]})
    with pytest.raises(ValueError, match="without '/'"):
        store.flatten({"a/b": ONE})


def test_read_json(tmp_path):
    path = tmp_path / "config.json"
    with pytest.raises(FileNotFoundError, match="there is no"):
        store.read_json(path)
    for content, message in (
        ("{", "is not JSON"),
        ("[]", "not a JSON object"),
        ('{"a": 1, "a": 2}', "'a' stands twice"),
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=message):
            store.read_json(path)


MEGABYTE = 2**20


def peak_of(work):
    """The most bytes that `work()` holds at once beyond those of before."""
    gc.collect()
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A file of 16 tensors of a megabyte each, half of them in 16 bits."""
    path = tmp_path_factory.mktemp("large") / "m.safetensors"
    half = {f"h{i}": np.full(MEGABYTE // 2, i, ml_dtypes.bfloat16) for i in range(8)}
    store.write_file(path, half | {f"w{i}": np.full((512, 512), i, np.float32) for i in range(8)})
    return path


def test_a_file_is_read_in_the_memory_of_one_tensor(large):
    def read():
        tensors = store.open_file(large)
        assert all(tensors[name].nbytes == MEGABYTE for name in tensors)

    assert MEGABYTE < peak_of(read) < 2 * MEGABYTE


def test_a_file_is_copied_in_the_memory_of_one_tensor(large):
    """Read, renamed, turned round and written, which gives the same tensors."""
    rules = (Rule("w{i}", "w_{i}/kernel", LINEAR), Rule("h{i}", "h_{i}/bias"))
    copy = large.with_name("copy.safetensors")
    peak = peak_of(
        lambda: store.write_file(copy, from_params(rules, to_params(rules, store.open_folder(large.parent, "m"))))
    )
    assert peak < 3.5 * MEGABYTE
    assert copy.read_bytes() == large.read_bytes()


def test_parameters_are_read_beside_one_tensor(large):
    """Widening 16 bits to 32 takes 8 MB more than the file's 16, and does not hold the narrow ones beside."""
    like = {name: np.zeros(entry.shape, np.float32) for name, entry in store.read_header(large).items()}
    assert peak_of(lambda: store.load_params(large, like)) < (24 + 2.5) * MEGABYTE


def test_a_file_that_is_changed_after_it_was_opened_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    store.write_file(path, {"a": ONE, "b": ONE})
    opened = store.open_file(path)
    assert opened["a"] == ONE
    store.write_file(path, {"a": 2 * ONE, "b": 2 * ONE})
    with pytest.raises(ValueError, match="has been changed while tensor 'b' was read"):
        opened["b"]


@pytest.mark.parametrize("dtype", [*DTYPES, ml_dtypes.bfloat16])
def test_files_are_those_of_the_reference_to_the_byte(dtype, tmp_path):
    """As diffusers and transformers save them, so that what was imported is exported as the same file."""
    tensors = {"z": np.ones(3, dtype), "a": np.ones((2, 2), np.float32), "ü": np.ones(1, np.int8)}
    save_file(tensors, tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    store.write_file(tmp_path / "ours.safetensors", store.open_file(tmp_path / "theirs.safetensors"))
    assert (tmp_path / "ours.safetensors").read_bytes() == (tmp_path / "theirs.safetensors").read_bytes()


@pytest.mark.parametrize("dtype", [np.int8, np.bool_, np.uint8, np.int16])
def test_other_kinds_of_number_are_no_parameters(dtype, tmp_path):
    """They would fit into float32, and be quantised weights without their scale."""
    store.write_file(tmp_path / "x.safetensors", {"x": np.ones(2, dtype)})
    with pytest.raises(ValueError, match=f"'x' is {np.dtype(dtype)}, which does not fit into float32"):
        store.load_params(tmp_path / "x.safetensors", {"x": np.zeros(2, np.float32)})
    kept = store.load_params(tmp_path / "x.safetensors", {"x": np.zeros(2, dtype)})["x"]
    assert kept.dtype == dtype


def test_dtypes_are_kept_where_they_are_asked_for():
    half = {"x": np.ones(2, ml_dtypes.bfloat16)}
    like = {"x": np.zeros(2, np.float32)}
    assert store.fit(half, like, "here")["x"].dtype == np.float32
    assert store.fit(half, like, "here", keep_dtype=True)["x"].dtype == ml_dtypes.bfloat16
    with pytest.raises(ValueError, match="'x' is int8"):
        store.fit({"x": np.ones(2, np.int8)}, like, "here", keep_dtype=True)


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_saving_rounds_every_kind_of_fraction(dtype, tmp_path):
    store.save_params(tmp_path / "x.safetensors", {"x": np.ones(2, dtype), "n": np.ones(1, np.int32)}, "float16")
    found = store.read_file(tmp_path / "x.safetensors")
    assert (found["x"].dtype, found["n"].dtype) == (np.float16, np.int32)


def test_variants_are_read_where_they_are_asked_for(tmp_path):
    store.write_file(tmp_path / "m.fp16.safetensors", {"a": ONE.astype(np.float16)})
    assert store.read_folder(tmp_path, "m", "fp16")["a"].dtype == np.float16
    (tmp_path / "m.bin").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"no m\.safetensors; there are variants: .* variant='fp16'$"):
        store.read_folder(tmp_path, "m")
    store.write_file(tmp_path / "m.safetensors", {"a": ONE})
    assert store.read_folder(tmp_path, "m")["a"].dtype == np.float32
    with pytest.raises(FileNotFoundError, match=r"no m\.ema\.safetensors; .* variant=None or 'fp16'$"):
        store.read_folder(tmp_path, "m", "ema")


def test_shards_of_a_variant(tmp_path):
    store.write_file(tmp_path / "m.fp16-1.safetensors", {"a": ONE})
    (tmp_path / "m.safetensors.index.fp16.json").write_text(json.dumps({"weight_map": {"a": "m.fp16-1.safetensors"}}))
    assert store.read_folder(tmp_path, "m", "fp16").keys() == {"a"}
    with pytest.raises(FileNotFoundError, match=r"variant='fp16'$"):
        store.read_folder(tmp_path, "m")


def test_arrays_are_made_when_they_are_asked_for():
    made = []

    def make(name):
        made.append(name)
        return ONE

    lazy = Lazy({name: partial(make, name) for name in ("a.x", "b.x", "c")})
    other = lazy.without(["c"]).renamed(lambda name: name.removesuffix(".x"))
    assert (list(other), len(other), "a" in other, made) == (["a", "b"], 2, True, [])
    assert other["b"] is ONE
    assert made == ["b.x"]
    with pytest.raises(ValueError, match=r"tensor 'b\.x' and another one are both 'x'"):
        lazy.renamed(lambda name: name[-1])
