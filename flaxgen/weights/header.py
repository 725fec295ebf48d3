"""The header of a safetensors file, which is untrusted: every byte of it is checked before any is believed.

The file is 8 bytes of header length (little endian), a JSON header that gives every tensor's dtype, shape and place,
and the bytes of the tensors one after the other.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import ml_dtypes
import numpy as np

from flaxgen import bounded_json

MAX_HEADER = 32 * 2**20
"""Bytes; a header has about 100 a tensor."""
DTYPES = {
    "I64": np.dtype(np.int64),
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "I32": np.dtype(np.int32),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F16": np.dtype(np.float16),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
"""By their names in the format, in the order in which the reference implementation writes them."""
PICKLES = (".ckpt", ".pt", ".pth", ".bin")
NAMES = {dtype: name for name, dtype in DTYPES.items()}


class Entry(NamedTuple):
    """Where a tensor lies: bytes [start, end) of the file."""

    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    end: int


def parse(raw: bytes, path: Path, size: int) -> dict[str, Entry]:
    """The tensors by name that the header `raw` of the file at `path`, of `size` bytes, describes.

    Raises:
        ValueError: if it is no header, has a name twice, or does not fit the file.
    """
    try:
        header = bounded_json.loads(raw, unique)
    except ValueError as error:
        raise ValueError(f"{path} is not a safetensors file: its header is not JSON ({error})") from error
    if not isinstance(header, dict):
        raise ValueError(f"{path} is not a safetensors file: its header is not a JSON object")
    header.pop("__metadata__", None)
    base = 8 + len(raw)
    entries = {name: _entry(path, name, value, base) for name, value in header.items()}
    _check_places(path, entries, base, size)
    return entries


def metadata_of(raw: bytes, path: Path) -> dict[str, str]:
    """What the header `raw` of the file at `path`, which `parse` has read, says beside the tensors.

    Raises:
        ValueError: if that is not an object of strings.
    """
    metadata = bounded_json.loads(raw, unique).get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError(f"{path}: the header's __metadata__ is not an object of strings")
    return metadata


def check_file(path: Path) -> None:
    """Raises ValueError if the file is a pickle by its name, and FileNotFoundError if there is none."""
    if path.suffix in PICKLES:
        raise ValueError(
            f"{path} is a pickle, which is never read: save its tensors as safetensors first, of a checkpoint its "
            "'state_dict', with torch.load(..., weights_only=True) elsewhere"
        )
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}")


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The pairs of a JSON object as a dict; ValueError naming a key that stands there twice."""
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name in fields:
            raise ValueError(f"{name!r} stands twice in an object")
        fields[name] = value
    return fields


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
