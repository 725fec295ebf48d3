"""Safetensors files <-> arrays, and parameters in flaxgen's own layout: nothing is dropped, guessed or unpickled.

Tensors keep the dtype that their file has. What is opened is read tensor by tensor when it is asked for; what is read
is in memory as a whole.
"""

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from flaxgen import bounded_json
from flaxgen.types import Params
from flaxgen.weights.header import DTYPES, MAX_HEADER, NAMES, Entry, metadata_of, parse, unique
from flaxgen.weights.lazy import Lazy, Tensors
from flaxgen.weights.tree import flatten, leaves_of, unflatten

Stamp = tuple[int, int, int]
"""Inode, size and time of the last change: a file of the same stamp is the one whose header has been read."""


def read_header(path: Path) -> dict[str, Entry]:
    """The tensors of a safetensors file by name.

    Raises:
        ValueError: if the header is not one, is larger than MAX_HEADER, has a name twice, or does not fit the file.
    """
    return _read_header(path)[0]


def read_metadata(path: Path) -> dict[str, str]:
    """What a safetensors file says beside its tensors, such as how it was trained.

    Raises:
        ValueError: as `read_header`, or if that is not an object of strings.
    """
    raw, stamp = _read_raw(path)
    parse(raw, path, stamp[1])
    return metadata_of(raw, path)


def _read_header(path: Path) -> tuple[dict[str, Entry], Stamp]:
    raw, stamp = _read_raw(path)
    return parse(raw, path, stamp[1]), stamp


def _read_raw(path: Path) -> tuple[bytes, Stamp]:
    with path.open("rb") as file:
        stamp = _stamp(file)
        size, length = stamp[1], int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, MAX_HEADER):
            raise ValueError(f"{path} is not a safetensors file: header of {length} bytes in a file of {size}")
        return file.read(length), stamp


def _stamp(file: BinaryIO) -> Stamp:
    status = os.fstat(file.fileno())
    return status.st_ino, status.st_size, status.st_mtime_ns


def open_file(path: Path) -> Lazy:
    """The tensors of one safetensors file, each read when it is asked for.

    Asking raises ValueError if a tensor holds a NaN or an infinity, or the file has been changed since it was opened.

    Raises:
        ValueError: as `read_header`.
    """
    entries, stamp = _read_header(path)
    return Lazy({name: partial(_read_tensor, path, name, entry, stamp) for name, entry in entries.items()})


def _read_tensor(path: Path, name: str, entry: Entry, stamp: Stamp) -> np.ndarray:
    count = math.prod(entry.shape)
    with path.open("rb") as file:
        file.seek(entry.start)
        data = np.fromfile(file, entry.dtype, count)
        if data.size != count or _stamp(file) != stamp:
            raise ValueError(f"{path}: the file has been changed while tensor {name!r} was read: start again")
    check_finite(f"{path}: tensor {name!r}", data)
    return data.reshape(entry.shape)


def read_file(path: Path) -> dict[str, np.ndarray]:
    """All tensors of one safetensors file, in memory.

    Raises:
        ValueError: as `read_header`, or if a tensor holds a NaN or an infinity.
    """
    return dict(open_file(path))


def check_finite(what: str, value: np.ndarray) -> None:
    """Raises ValueError if a number in `value` is NaN or infinite."""
    if value.dtype.kind not in "iub" and not np.isfinite(value).all():
        raise ValueError(f"{what} holds NaN or infinite numbers")


def read_folder(folder: Path, stem: str, variant: str | None = None) -> dict[str, np.ndarray]:
    """As `open_folder`, all in memory."""
    return dict(open_folder(folder, stem, variant))


def open_folder(folder: Path, stem: str, variant: str | None = None) -> Lazy:
    """The tensors of `stem`.safetensors, or of the shards that `stem`.safetensors.index.json lists, read when they are
    asked for. A `variant` such as "fp16" is `stem`.fp16.safetensors or `stem`.safetensors.index.fp16.json.

    Raises:
        ValueError: if a shard and the index disagree, or a file is bad.
        FileNotFoundError: if there is neither, naming the variants that are there.
    """
    path = folder / find_weights((p.name for p in folder.glob("*") if p.is_file()), stem, variant, str(folder))
    if path.suffix != ".json":
        return open_file(path)
    places = read_index(path)
    makers: dict[str, Callable[[], np.ndarray]] = {}
    for shard in sorted(set(places.values())):
        entries, stamp = _read_header(folder / shard)
        listed = {name for name, file in places.items() if file == shard}
        check_names(entries, listed, f"{folder / shard} (as {path.name} lists it)")
        makers |= {name: partial(_read_tensor, folder / shard, name, entries[name], stamp) for name in entries}
    return Lazy(makers)


def find_weights(names: Iterable[str], stem: str, variant: str | None, where: str) -> str:
    """Of the `names` in a folder, the one file of weights, or the index of their shards.

    Raises:
        FileNotFoundError: if there is neither, naming the variants, or the pickle, that are there.
    """
    names, infix = set(names), "" if variant is None else f".{variant}"
    single = f"{stem}{infix}.safetensors"
    for name in (single, f"{stem}.safetensors.index{infix}.json"):
        if name in names:
            return name
    weights = re.compile(
        rf"{re.escape(stem)}(?:\.(\w+))?\.safetensors|{re.escape(stem)}\.safetensors\.index(?:\.(\w+))?\.json"
    )
    others = sorted({match[1] or match[2] or "" for name in names if (match := weights.fullmatch(name))})
    pickles = sorted(name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt")))
    note = ""
    if others:
        named = " or ".join(repr(other or None) for other in others)
        note = f"; there are variants: choose one with --variant NAME, in Python variant={named}"
    elif pickles:
        note = f"; {pickles[0]} is a pickle, which is never read: save it as safetensors first"
    raise FileNotFoundError(f"{where} has no {single}{note}")


def read_index(index: Path) -> dict[str, str]:
    """The shard of every tensor, as an index lists them; ValueError if it lists none, or no file beside it."""
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
        value = bounded_json.loads(path.read_bytes(), unique)
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} is not a JSON object")
    return value


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file as diffusers and transformers do, with sorted keys."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", "utf-8")


def write_file(path: Path, tensors: Tensors) -> None:
    """Writes one safetensors file, tensor by tensor and byte for byte as the reference implementation would: dtypes are
    kept, the widest come first. A failure leaves what was there before.

    Raises:
        ValueError: if a dtype is not known to the format, or a number is NaN or infinite.
    """
    entries = {name: _described(name, tensors[name]) for name in tensors}
    rank = list(DTYPES)
    order = sorted(entries, key=lambda name: (rank.index(entries[name][0]), name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in order:
        dtype, shape = entries[name]
        place = [end, end := end + math.prod(shape) * DTYPES[dtype].itemsize]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": place}
    raw = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    raw += b" " * (-len(raw) % 8)
    unfinished = path.with_name(f"{path.name}.partial")
    try:
        with unfinished.open("wb") as file:
            file.write(len(raw).to_bytes(8, "little") + raw)
            for name in order:
                value = np.asarray(tensors[name], order="C")
                check_finite(f"tensor {name!r}", value)
                file.write(value.reshape(-1).view(np.uint8).data)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _described(name: str, value: np.ndarray) -> tuple[str, tuple[int, ...]]:
    if value.dtype not in NAMES:
        raise ValueError(f"tensor {name!r} has dtype {value.dtype}, safetensors knows {', '.join(DTYPES)}")
    return NAMES[value.dtype], value.shape


def check_names(found: Iterable[str], expected: Iterable[str], where: str) -> None:
    """Raises ValueError naming the first tensor that is missing, or that nothing asks for."""
    found, expected = set(found), set(expected)
    if missing := sorted(expected - found):
        raise ValueError(f"{where}: tensor {missing[0]!r} is missing ({len(missing)} missing in all)")
    if extra := sorted(found - expected):
        raise ValueError(f"{where}: tensor {extra[0]!r} is not part of the model ({len(extra)} extra in all)")


def fit(
    tensors: Tensors,
    like: Params,
    where: str,
    called: Callable[[str], str] = str,
    keep_dtype: bool = False,
    place: Callable[[np.ndarray], Any] = lambda value: value,
) -> dict[str, Any]:
    """The tensors as a tree of the structure and shapes of `like` (arrays or ShapeDtypeStructs), and of its dtypes
    unless `keep_dtype` leaves each as it is.

    `where` they come from and how each is `called` there is for the errors; `place` puts each where it is to be, before
    the next one is read.

    Raises:
        ValueError: naming a tensor that is missing, extra, of another shape, or of a dtype that would lose digits or
            is another kind of number.
    """
    expected = leaves_of(like)
    check_names(map(called, tensors), map(called, expected), where)
    fitted = {}
    for name, leaf in expected.items():
        value = tensors[name]
        _check_tensor(value, leaf, f"{where}: tensor {called(name)!r}")
        fitted[name] = place(np.asarray(value, None if keep_dtype else leaf.dtype))
    return unflatten(fitted)


def check_entries(entries: Mapping[str, Entry], like: Params, where: str) -> None:
    """Raises ValueError unless tensors of which the header says this `fit`, as far as that can be seen of it."""
    expected = leaves_of(like)
    check_names(entries, expected, where)
    for name, leaf in expected.items():
        _check_tensor(entries[name], leaf, f"{where}: tensor {name!r}")


def _check_tensor(found: Any, leaf: Any, what: str) -> None:
    shape = tuple(leaf.shape)
    if found.shape != shape:
        raise ValueError(f"{what} has shape {found.shape}, expected {shape}")
    if not _widens(found.dtype, np.dtype(leaf.dtype)):
        raise ValueError(f"{what} is {found.dtype}, which does not fit into {leaf.dtype}")


def _widens(dtype: np.dtype, into: np.dtype) -> bool:
    """Whether numbers of a dtype are exact in another; int8 and bool, which fit into float32, mean something else."""
    same_kind = dtype.kind == into.kind or (is_float(dtype) and is_float(into))
    return same_kind and np.can_cast(dtype, into)


def is_float(dtype: np.dtype) -> bool:
    """Whether numbers of a dtype have fractions; bfloat16 is of no kind that numpy knows."""
    return dtype.kind == "f" or dtype == ml_dtypes.bfloat16


def save_params(path: str | Path, params: Params, dtype: str | None = None) -> None:
    """Writes parameters in flaxgen's layout: one safetensors file, names joined by "/".

    With a `dtype` such as "float16" floating-point numbers are rounded to it.
    """
    flat = flatten(params)
    write_file(Path(path), Lazy({name: partial(_rounded, value, dtype) for name, value in flat.items()}))


def _rounded(value: np.ndarray, dtype: str | None) -> np.ndarray:
    return value if dtype is None or not is_float(value.dtype) else value.astype(dtype)


def load_params(path: str | Path, like: Params) -> dict[str, Any]:
    """Reads what `save_params` wrote, as numpy arrays in the tree of `like` (arrays or ShapeDtypeStructs).

    Raises:
        ValueError: as `read_file` and `fit`.
    """
    return fit(open_file(Path(path)), like, str(path))
