"""Parameters that stay in their file until they are drawn with, so that one part of a model is in memory at a time."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import PyTree

from flaxgen.types import Params


class Unread:
    """The parameters of a model directory, which `read()` reads anew each time. Nothing of them is kept here: they are
    in memory for as long as whoever has read them holds them."""

    def __init__(self, read: Callable[[], Params]):
        self.read = read


def in_memory(tree: PyTree) -> Any:
    """The tree with what is unread in it read."""
    return jax.tree.map(lambda leaf: leaf.read() if isinstance(leaf, Unread) else leaf, tree)


def changed(params: Params, change: Callable[[Params], Params]) -> Params:
    """The parameters with a change; in those that are unread it is made whenever they are read."""
    return Unread(lambda: change(params.read())) if isinstance(params, Unread) else change(params)
