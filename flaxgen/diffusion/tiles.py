"""Pictures too large for one call of a net: overlapping tiles, blended by smooth windows, one tile in memory at a time.

A tile is read like a crop: a net trained on crops, as upsamplers are, sees what it knows.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from flaxgen.types import Bind, Condition, Denoiser

Pictures = Mapping[str, Float[Array, "B _ _ _"]]
"""Pictures by name that go with another one, each of its size or a whole number of times smaller."""
OnTile = Callable[[Float[Array, "B t u C"], Pictures], PyTree]
"""(a tile of x, the same tile of each picture that goes with it) -> pictures [B t u _] of the tile's size."""


class Cover(NamedTuple):
    """How tiles of one length lie along one side: where each starts, and what each of its pixels counts.

    Over all tiles, what the pixels count for one place sums to 1.
    """

    starts: np.ndarray
    weights: np.ndarray


def cover(size: int, tile: int, overlap: int) -> Cover:
    """Tiles of length min(tile, size), `tile - overlap` apart, the last one shifted back to end at `size`.

    Next to another tile, the outer quarter of the overlap counts nothing, and weights cross as sin^2 and cos^2 over
    the half in between. So what a net makes of a tile's border is dropped: where each pixel depends on those at most
    overlap // 4 away, tiles change nothing.
    """
    if size <= tile:
        return Cover(np.zeros(1, np.int32), np.ones((1, size)))
    stride, margin = tile - overlap, overlap // 4
    starts = np.minimum(np.arange(0, size - tile + stride, stride), size - tile).astype(np.int32)
    rise = np.ones(tile)
    rise[:overlap] = (np.arange(overlap) + 0.5 - margin) / max(overlap - 2 * margin, 1)
    rise = np.sin(np.pi / 2 * np.clip(rise, 0, 1)) ** 2
    weights = np.tile(rise * rise[::-1], (len(starts), 1))
    weights[0], weights[-1] = rise[::-1], rise
    total = np.zeros(size)
    for start, weight in zip(starts, weights, strict=True):
        total[start : start + tile] += weight
    return Cover(starts, np.stack([w / total[s : s + tile] for s, w in zip(starts, weights, strict=True)]))


def tiled(function: OnTile, *, tile: int, overlap: int) -> OnTile:
    """`function` of any whole picture, computed on tiles of at most `tile` x `tile` pixels and blended.

    The result takes x [B H W C] and the pictures that go with it, and gives what `function` gives, at the size of x.
    A picture k times smaller than x, such as the low-resolution condition of an upsampler, is cut where x is, in its
    own pixels. A picture no larger than a tile is one call.

    Raises:
        ValueError: if the overlap is negative or more than half a tile; when called, if a picture's size does not
            divide that of x, or pixels of it would be cut.
    """
    if not 0 <= 2 * overlap <= tile or tile < 1:
        raise ValueError(f"overlap={overlap} must be 0 to {tile // 2}, half of tile={tile}")

    def whole(x, pictures):
        rows, columns = (cover(size, tile, overlap) for size in x.shape[1:3])
        factors = {name: _factor(name, picture, x, (rows, columns)) for name, picture in pictures.items()}
        if len(rows.starts) == len(columns.starts) == 1:
            return function(x, pictures)
        row_weights, column_weights = (jnp.asarray(side.weights, jnp.float32) for side in (rows, columns))
        size = (row_weights.shape[1], column_weights.shape[1])

        def on_tile(corner):
            crops = {name: _crop(picture, corner, size, factors[name]) for name, picture in pictures.items()}
            return function(_crop(x, corner, size, 1), crops)

        def add(canvases, place):
            corner = jnp.asarray(rows.starts)[place[0]], jnp.asarray(columns.starts)[place[1]]
            window = row_weights[place[0]][:, None] * column_weights[place[1]][None]
            made = on_tile(corner)
            return jax.tree.map(lambda canvas, part: _add(canvas, part, window, corner), canvases, made), None

        made = jax.eval_shape(on_tile, (0, 0))
        canvases = jax.tree.map(lambda part: jnp.zeros((*_checked(part, x, size), part.shape[-1])), made)
        places = np.stack(np.meshgrid(*(np.arange(len(side.starts)) for side in (rows, columns)), indexing="ij"), -1)
        canvases, _ = jax.lax.scan(add, canvases, jnp.asarray(places.reshape(-1, 2)))
        return jax.tree.map(lambda canvas, part: canvas.astype(part.dtype), canvases, made)

    return whole


def tiled_between(
    function: Callable[[Float[Array, "B t u C"]], Float[Array, "B _ _ _"]],
    *,
    tile: int,
    overlap: int,
    reads: int = 1,
    makes: int = 1,
) -> Callable[[Float[Array, "B H W C"]], Float[Array, "B _ _ _"]]:
    """`function` of any whole picture where its result is of another size, such as an encoder or a decoder, computed on
    tiles and blended as in `tiled`.

    Sides are counted in cells, each of `reads` pixels of what is read and `makes` of the result; a tile has at most
    `tile` x `tile` cells, and neighbours share `overlap`.

    Raises:
        ValueError: if the overlap is negative or more than half a tile; when called, if x is not of whole cells.
    """
    if not 0 <= 2 * overlap <= tile or tile < 1:
        raise ValueError(f"overlap={overlap} must be 0 to {tile // 2}, half of tile={tile}")

    def whole(x):
        if x.shape[1] % reads or x.shape[2] % reads:
            raise ValueError(f"x of {x.shape[1]}x{x.shape[2]} is not cut into cells of {reads} pixels")
        cells = [size // reads for size in x.shape[1:3]]
        rows, columns = (jnp.asarray(cover(size, tile, overlap).starts) for size in cells)
        if len(rows) == len(columns) == 1:
            return function(x)
        windows = [cover(size * makes, tile * makes, overlap * makes).weights for size in cells]
        row_weights, column_weights = (jnp.asarray(window, jnp.float32) for window in windows)
        size = tuple(min(tile, side) * reads for side in cells)

        def on_tile(cell):
            return function(_crop(x, [place * reads for place in cell], (size[0], size[1]), 1))

        def add(canvas, place):
            cell = rows[place[0]], columns[place[1]]
            window = row_weights[place[0]][:, None] * column_weights[place[1]][None]
            return _add(canvas, on_tile(cell), window, [start * makes for start in cell]), None

        made = jax.eval_shape(on_tile, (0, 0))
        canvas = jnp.zeros((made.shape[0], *(side * makes for side in cells), made.shape[-1]))
        places = np.stack(np.meshgrid(np.arange(len(rows)), np.arange(len(columns)), indexing="ij"), -1)
        canvas, _ = jax.lax.scan(add, canvas, jnp.asarray(places.reshape(-1, 2)))
        return canvas.astype(made.dtype)

    return whole


def tiled_bind(bind: Bind, *, tile: int, overlap: int, pictures: Sequence[str] = ("low_res",)) -> Bind:
    """Denoisers that predict x0 tile by tile and blend the predictions at every step.

    [BarTal23] blends what a step makes of the tiles: the same, where a step is affine in x0. `pictures` names what of
    the condition is cut with x; the rest goes to every tile as it is. As a `Bind` it takes guidance, samplers and edits
    like any other.

    Raises:
        ValueError: as `tiled` does, or if the condition lacks one of `pictures`.
    """

    def bind_tiles(condition: Condition) -> Denoiser:
        missing = [name for name in pictures if name not in condition]
        if missing:
            raise ValueError(f"tiles are to cut {missing[0]!r}, but the condition has only {sorted(condition)}")
        cut = {name: condition[name] for name in pictures}
        rest = {name: value for name, value in condition.items() if name not in cut}

        def denoise(x, t):
            on_tiles = tiled(lambda x, crops: bind({**rest, **crops})(x, t), tile=tile, overlap=overlap)
            return on_tiles(x, cut)

        return denoise

    return bind_tiles


def _factor(name: str, picture, x, covers: tuple[Cover, Cover]) -> int:
    """How many times smaller than x a picture is."""
    factor = x.shape[1] // picture.shape[1]
    if any(small * factor != large for small, large in zip(picture.shape[1:3], x.shape[1:3], strict=True)):
        raise ValueError(
            f"{name!r} of {picture.shape[1]}x{picture.shape[2]} must be a whole number of times smaller than "
            f"x of {x.shape[1]}x{x.shape[2]}"
        )
    for starts, weights in covers:
        if (starts % factor).any() or weights.shape[1] % factor:
            raise ValueError(f"{name!r} is {factor} times smaller than x: make tile and overlap multiples of {factor}")
    return factor


def _crop(picture, corner, size: tuple[int, int], factor: int):
    """The tile at `corner` of x, of a picture that is `factor` times smaller."""
    batch, _, _, channels = picture.shape
    start = (0, corner[0] // factor, corner[1] // factor, 0)
    return jax.lax.dynamic_slice(picture, start, (batch, size[0] // factor, size[1] // factor, channels))


def _add(canvas, part, window, corner):
    start = (0, *corner, 0)
    weighed = window[None, :, :, None] * part.astype(canvas.dtype)
    there = jax.lax.dynamic_slice(canvas, start, part.shape)
    return jax.lax.dynamic_update_slice(canvas, there + weighed, start)


def _checked(part, x, size: tuple[int, int]) -> tuple[int, ...]:
    """The shape of the whole, less channels, of a part that has to have the shape of a tile."""
    if part.ndim != 4 or part.shape[1:3] != size:
        raise ValueError(
            f"on tiles of {size[0]}x{size[1]} a function must give pictures of that size, got {part.shape}"
        )
    return (part.shape[0], *x.shape[1:3])
