"""Safetensors files <-> arrays, and parameters in flaxgen's own layout: nothing is dropped, guessed or unpickled.

A safetensors file is 8 bytes of header length (little endian), a JSON header that gives every tensor's dtype, shape and
place, and the bytes of the tensors one after the other. The header is untrusted and checked in full before use.
"""

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import jax
import ml_dtypes
import numpy as np

from flaxgen.types import Params

MAX_HEADER = 32 * 2**20
"""Bytes; a header has about 100 a tensor."""
DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
Tensors = Mapping[str, np.ndarray]


class Entry(NamedTuple):
    """Where a tensor lies: bytes [start, end) of the file."""

    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    end: int


def read_header(path: Path) -> dict[str, Entry]:
    """The tensors of a safetensors file by name.

    Raises:
        ValueError: if the header is not one, is larger than MAX_HEADER, has a name twice, or does not fit the file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, MAX_HEADER):
            raise ValueError(f"{path} is not a safetensors file: header of {length} bytes in a file of {size}")
        raw = file.read(length)
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=lambda pairs: _unique(pairs, path))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not a safetensors file: its header is not JSON") from error
    if not isinstance(header, dict):
        raise ValueError(f"{path} is not a safetensors file: its header is not a JSON object")
    header.pop("__metadata__", None)
    entries = {name: _entry(path, name, value, 8 + length) for name, value in header.items()}
    _check_places(path, entries, 8 + length, size)
    return entries


def _unique(pairs: list[tuple[str, Any]], path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{path}: {name!r} stands twice in the header")
        found[name] = value
    return found


def _entry(path: Path, name: str, value: Any, base: int) -> Entry:
    fields = value if isinstance(value, dict) else {}
    dtype, shape, place = (fields.get(field) for field in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"{path}: tensor {name!r} has dtype {dtype!r}, known are {', '.join(DTYPES)}")
    if not _is_counts(shape) or not _is_counts(place) or len(place) != 2:
        raise ValueError(f"{path}: the header gives tensor {name!r} no proper shape and data_offsets")
    entry = Entry(DTYPES[dtype], tuple(shape), base + place[0], base + place[1])
    if entry.end - entry.start != math.prod(entry.shape) * entry.dtype.itemsize:
        raise ValueError(f"{path}: tensor {name!r} of shape {entry.shape} {dtype} has {entry.end - entry.start} bytes")
    return entry


def _is_counts(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 2**63 for n in value)


def _check_places(path: Path, entries: Mapping[str, Entry], base: int, size: int) -> None:
    """The tensors have to fill the file without gap or overlap."""
    end = base
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)):
        if entry.start != end:
            raise ValueError(f"{path}: tensor {name!r} starts at byte {entry.start}, expected {end}")
        end = entry.end
    if end != size:
        raise ValueError(f"{path} has {size} bytes, its header says {end}: the file is truncated or has been changed")


def read_file(path: Path) -> dict[str, np.ndarray]:
    """All tensors of one safetensors file.

    Raises:
        ValueError: as `read_header`, or if a tensor holds a NaN or an infinity.
    """
    entries = read_header(path)
    tensors = {}
    with path.open("rb") as file:
        for name, entry in entries.items():
            file.seek(entry.start)
            data = np.fromfile(file, entry.dtype, math.prod(entry.shape))
            if data.size != math.prod(entry.shape):
                raise ValueError(f"{path} ended inside tensor {name!r}: the file has been changed while it was read")
            check_finite(f"{path}: tensor {name!r}", data)
            tensors[name] = data.reshape(entry.shape)
    return tensors


def check_finite(what: str, value: np.ndarray) -> None:
    """Raises ValueError if a number in `value` is NaN or infinite."""
    if value.dtype.kind not in "iub" and not np.isfinite(value).all():
        raise ValueError(f"{what} holds NaN or infinite numbers")


def read_folder(folder: Path, stem: str) -> dict[str, np.ndarray]:
    """The tensors of `stem`.safetensors, or of the shards that `stem`.safetensors.index.json lists.

    Raises:
        ValueError: if a shard and the index disagree, or a file is bad.
        FileNotFoundError: if there is neither.
    """
    single, index = folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
    if single.is_file():
        return read_file(single)
    if not index.is_file():
        pickles = sorted(p.name for suffix in ("bin", "pt", "pth", "ckpt") for p in folder.glob(f"*.{suffix}"))
        note = f"; {pickles[0]} is a pickle, which is never read: save it as safetensors first" if pickles else ""
        raise FileNotFoundError(f"{folder} has no {single.name}{note}")
    places = _read_index(index)
    tensors: dict[str, np.ndarray] = {}
    for shard in sorted(set(places.values())):
        found, listed = read_file(folder / shard), {name for name, file in places.items() if file == shard}
        check_names(set(found), listed, f"{folder / shard} (as {index.name} lists it)")
        tensors.update(found)
    return tensors


def _read_index(index: Path) -> dict[str, str]:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ValueError(f"{index} has no weight_map")
    for name, shard in places.items():
        if not isinstance(shard, str) or not re.fullmatch(r"\w[\w.-]*\.safetensors", shard):
            raise ValueError(f"{index}: {name!r} is in {shard!r}, expected the name of a .safetensors file beside it")
    return places


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        ValueError: if it holds none, or a key twice.
        FileNotFoundError: if there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}")
    if path.stat().st_size > MAX_HEADER:
        raise ValueError(f"{path} is larger than {MAX_HEADER} bytes")
    try:
        value = json.loads(path.read_text("utf-8"), object_pairs_hook=lambda pairs: _unique(pairs, path))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} is not a JSON object")
    return value


def write_file(path: Path, tensors: Tensors) -> None:
    """Writes one safetensors file; a failure leaves what was there before.

    Raises:
        ValueError: if a dtype is not known to the format, or a number is NaN or infinite.
    """
    arrays = {name: np.asarray(value, order="C") for name, value in sorted(tensors.items())}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, value in arrays.items():
        if value.dtype not in NAMES:
            raise ValueError(f"tensor {name!r} has dtype {value.dtype}, safetensors knows {', '.join(DTYPES)}")
        check_finite(f"tensor {name!r}", value)
        place = [end, end := end + value.nbytes]
        header[name] = {"dtype": NAMES[value.dtype], "shape": list(value.shape), "data_offsets": place}
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(len(raw).to_bytes(8, "little") + raw)
            for value in arrays.values():
                file.write(value.reshape(-1).view(np.uint8).data)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def flatten(params: Params) -> dict[str, np.ndarray]:
    """A tree of nested dicts as one dict, the keys on the way joined by "/"."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {"/".join(_key(entry) for entry in path): np.asarray(leaf) for path, leaf in leaves}


def _key(entry: Any) -> str:
    key = getattr(entry, "key", None)
    if not isinstance(key, str) or "/" in key:
        raise ValueError(f"parameters have to be nested dicts with names without '/', found {entry}")
    return key


def unflatten(flat: Tensors) -> dict[str, Any]:
    """The inverse of `flatten`.

    Raises:
        ValueError: if a name is both a leaf and the way to another.
    """
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *way, last = name.split("/")
        node = tree
        for key in way:
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                raise ValueError(f"tensor {name!r} lies below another tensor")
        if last in node:
            raise ValueError(f"tensor {name!r} lies above another tensor")
        node[last] = value
    return tree


def check_names(found: Iterable[str], expected: Iterable[str], where: str) -> None:
    """Raises ValueError naming the first tensor that is missing, or that nothing asks for."""
    found, expected = set(found), set(expected)
    if missing := sorted(expected - found):
        raise ValueError(f"{where}: tensor {missing[0]!r} is missing ({len(missing)} missing in all)")
    if extra := sorted(found - expected):
        raise ValueError(f"{where}: tensor {extra[0]!r} is not part of the model ({len(extra)} extra in all)")


def fit(tensors: Tensors, like: Params, where: str, called: Callable[[str], str] = str) -> dict[str, Any]:
    """The tensors as a tree of the structure, shapes and dtypes of `like` (arrays or ShapeDtypeStructs).

    `where` they come from and how each is `called` there is for the errors.

    Raises:
        ValueError: naming a tensor that is missing, extra, of another shape, or of a dtype that would lose digits.
    """
    leaves = jax.tree_util.tree_leaves_with_path(like)
    expected = {"/".join(_key(entry) for entry in path): leaf for path, leaf in leaves}
    check_names(map(called, tensors), map(called, expected), where)
    for name, leaf in expected.items():
        value, shape = tensors[name], tuple(leaf.shape)
        if value.shape != shape:
            raise ValueError(f"{where}: tensor {called(name)!r} has shape {value.shape}, expected {shape}")
        if not np.can_cast(value.dtype, leaf.dtype):
            raise ValueError(f"{where}: tensor {called(name)!r} is {value.dtype}, which does not fit into {leaf.dtype}")
    return unflatten({name: np.asarray(tensors[name], leaf.dtype) for name, leaf in expected.items()})


def save_params(path: str | Path, params: Params, dtype: str | None = None) -> None:
    """Writes parameters in flaxgen's layout: one safetensors file, names joined by "/".

    With a `dtype` such as "float16" floating-point numbers are rounded to it.
    """
    flat = flatten(params)
    if dtype is not None:
        flat = {name: value.astype(dtype) if value.dtype.kind == "f" else value for name, value in flat.items()}
    write_file(Path(path), flat)


def load_params(path: str | Path, like: Params) -> dict[str, Any]:
    """Reads what `save_params` wrote, as numpy arrays in the tree of `like` (arrays or ShapeDtypeStructs).

    Raises:
        ValueError: as `read_file` and `fit`.
    """
    return fit(read_file(Path(path)), like, str(path))
