"""Files of Flax's msgpack <-> arrays by path: a format of numbers and names alone, in which nothing can be run.

A file is in memory as a whole while it is read or written, so that its size is bounded before it is opened.
"""

import os
from pathlib import Path

import numpy as np
from flax import serialization

from flaxgen.weights import store
from flaxgen.weights.lazy import Tensors
from flaxgen.weights.tree import flatten, unflatten


def read_msgpack(path: Path, most_bytes: int) -> dict[str, np.ndarray]:
    """The tensors of a file, named by the keys on the way joined by "/", in the dtypes that they have there.

    Raises:
        ValueError: if the file is larger than `most_bytes`, is no msgpack of nested dicts of arrays, or a number in it
            is NaN or infinite.
        FileNotFoundError: if there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}")
    with path.open("rb") as file:
        if (size := os.fstat(file.fileno()).st_size) > most_bytes:
            raise ValueError(f"{path} has {size} bytes, a file of this model has at most {most_bytes}")
        data = file.read(size)  # to its end could be more by now
    try:
        tree = serialization.msgpack_restore(data)
        tensors = flatten(tree) if isinstance(tree, dict) else {}
    except Exception as error:  # msgpack, NumPy and the library each raise what they like for bytes that are none
        raise ValueError(f"{path} is not a file of Flax parameters: {str(error).partition(chr(10))[0]}") from error
    if not tensors:
        raise ValueError(f"{path} is not a file of Flax parameters: it holds no nested dicts of arrays")
    for name, value in tensors.items():
        if not store.is_float(value.dtype):
            raise ValueError(f"{path}: tensor {name!r} is {value.dtype}, expected floating-point numbers")
        store.check_finite(f"{path}: tensor {name!r}", value)
    return tensors


def write_msgpack(path: Path, tensors: Tensors) -> None:
    """Writes a file that `flax.serialization.msgpack_restore` reads, names in alphabetical order as in a tree of JAX.
    A failure leaves what was there before.

    Raises:
        ValueError: if a number is NaN or infinite.
    """
    values = {name: tensors[name] for name in sorted(tensors, key=lambda name: name.split("/"))}
    for name, value in values.items():
        store.check_finite(f"tensor {name!r}", value)
    unfinished = path.with_name(f"{path.name}.partial")
    try:
        unfinished.write_bytes(serialization.msgpack_serialize(unflatten(values), in_place=True))
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
