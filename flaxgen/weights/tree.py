"""Parameters as a tree of nested dicts <-> as one dict by path."""

from typing import Any

import jax
import numpy as np

from flaxgen.types import Params
from flaxgen.weights.lazy import Tensors


def flatten(params: Params) -> dict[str, np.ndarray]:
    """A tree of nested dicts as one dict, the keys on the way joined by "/"."""
    return {path: np.asarray(leaf) for path, leaf in leaves_of(params).items()}


def leaves_of(params: Params) -> dict[str, Any]:
    """As `flatten`, with the leaves as they are (arrays or ShapeDtypeStructs)."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {"/".join(_key(entry) for entry in path): leaf for path, leaf in leaves}


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
