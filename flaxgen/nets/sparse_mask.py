"""Who reads whom in DALL-E's transformer [Ramesh21, fig. 11]: text alone in order, a map of codes by rows and columns.

The sequence is `context` places of text and then one place a code, in raster order: the place at which the code is
drawn, and which holds the code before it. Whatever the kind, every code's place reads all of the text.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from flaxgen.nets.layers import check_choice

KINDS = ("row", "column", "convolution", "full")
"""Which places of codes, up to its own, a place reads. "row": the one above it, and all after that. "column": those
above it. "convolution": those that a square kernel around it covers, which goes on in the next row where it ends beyond
the border of a row. "full": all of them."""


def layer_kinds(depth: int) -> tuple[str, ...]:
    """The kind of every layer, as the paper has them: row, column, row, row, again and again, and a convolution last
    [Ramesh21, app. B.1]."""
    kinds = ["column" if (i - 2) % 4 == 0 else "row" for i in range(1, depth)]
    return (*kinds, "convolution") if depth else ()


def sparse_mask(
    kind: str, places: Int[Array, " T"], context: int, rows: int, columns: int, conv_size: int
) -> Bool[Array, "1 1 T S"]:
    """True where the places of the sequence `places` read those of the whole, of a map of `rows` and `columns`.

    `conv_size` is the side of the convolution's kernel, an odd number.

    Raises:
        ValueError: if `kind` is none of KINDS.
    """
    check_choice("kind", kind, KINDS)
    read = jnp.arange(context + rows * columns)[None]
    back = places[:, None] - read
    if kind == "row":
        near = back <= columns
    elif kind == "column":
        near = back % columns == 0
    elif kind == "convolution":
        half = conv_size // 2
        above = jnp.clip((back + columns // 2) // columns, 0, half)  # the row of the kernel whose middle is nearest
        near = jnp.abs(back - above * columns) <= half
    else:
        near = jnp.ones_like(back, bool)
    return ((back >= 0) & (near | (read < context)))[None, None]
