"""What causal convolutions read, by enumeration, and their numbers beside sums written out."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.nets import causal

F32 = {"name": "conv", "dtype": jnp.float32}
HEIGHT, WIDTH = 5, 6


def reads(layer, shaken, channels=1, *size):
    """True at [output row, column, channel; input row, column, channel] where the second moves the first."""
    x = jax.random.normal(jax.random.key(0), (1, HEIGHT, WIDTH, channels))
    params = shaken(layer, x, *size)
    moved = jax.jit(jax.jacobian(lambda x: layer.apply({"params": params}, x[None], *size)[0]))(x[0])
    return np.asarray(moved) != 0


def offsets(found, stride=1):
    """Of an output in the middle: which (rows, columns) away it reads."""
    row, column = found.shape[0] // 2, found.shape[1] // 2
    read = np.argwhere(found[row, column, 0, :, :, 0]) - [stride * row, stride * column]
    return {tuple(pair) for pair in read.tolist()}


def box(rows, columns):
    return set(itertools.product(rows, columns))


@pytest.mark.parametrize(
    ("make", "size", "expected"),
    [
        (causal.down_conv, (2, 3), box((-1, 0), (-1, 0, 1))),
        (causal.down_conv, (1, 3), box((0,), (-1, 0, 1))),
        (causal.down_conv, (3, 5), box((-2, -1, 0), (-2, -1, 0, 1, 2))),
        (causal.right_conv, (2, 2), box((-1, 0), (-1, 0))),
        (causal.right_conv, (2, 1), box((-1, 0), (0,))),
        (causal.right_conv, (1, 1), box((0,), (0,))),
    ],
)
def test_convolutions_read_what_lies_above_and_to_the_left(make, size, expected, shaken):
    assert offsets(reads(make(1, size, **F32), shaken)) == expected


def test_with_a_stride_places_read_nothing_behind_the_first_that_they_stand_for(shaken):
    assert offsets(reads(causal.down_conv(1, (2, 3), stride=2, **F32), shaken), 2) == box((-1, 0), (-1, 0, 1))
    assert offsets(reads(causal.right_conv(1, (2, 2), stride=2, **F32), shaken), 2) == box((-1, 0), (-1, 0))


@pytest.mark.parametrize("columns", [2, 3])
def test_enlarged_places_read_those_that_stand_for_them(columns, shaken):
    """Row r reads row r // 2; column c reads c // 2, and by centred kernels of 3 every second one reads the next."""
    found = reads(causal.Enlarge(1, (2, columns)), shaken, 1, 2 * HEIGHT - 1, 2 * WIDTH - 1)[:, :, 0, :, :, 0]
    assert found.shape == (9, 11, 5, 6)
    for row, column in itertools.product(range(9), range(11)):
        read = {column // 2} if columns == 2 or column % 2 == 0 else {column // 2, column // 2 + 1}
        expected = {(row // 2, c) for c in read if c < WIDTH}
        assert {tuple(pair) for pair in np.argwhere(found[row, column]).tolist()} == expected


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(("runs", "halves"), [(1, 1), (1, 2), (3, 1), (3, 2)])
def test_masks_are_those_of_the_paper(runs, halves, strict, shaken):
    """Channel i of a pixel's R, G, B reads all of the places to its left, and of its own place those before i (mask A)
    or up to i (mask B); so do the channels of a second half."""
    inputs, features = 2 * runs, 2 * runs * halves
    layer = causal.row_conv(features, 3, inputs, strict=strict, runs=runs, halves=halves, **F32)
    found = reads(layer, shaken, inputs)
    for o, i in itertools.product(range(features), range(inputs)):
        reader, read = o % (2 * runs) // 2, i // 2
        own = read < reader if strict else read <= reader
        assert offsets(found[:, :, o : o + 1, :, :, i : i + 1]) == box((0,), (-2, -1, 0) if own else (-2, -1))


def test_shifts_bring_in_zeros():
    x = jnp.arange(1.0, 7.0).reshape(1, 2, 3, 1)
    assert causal.shift_down(x)[0, ..., 0].tolist() == [[0, 0, 0], [1, 2, 3]]
    assert causal.shift_right(x)[0, ..., 0].tolist() == [[0, 1, 2], [0, 4, 5]]


def test_a_sum_written_out(shaken):
    """Every output is the bias and the kernel's products with what lies above and to the left."""
    x = np.random.default_rng(0).normal(size=(1, HEIGHT, WIDTH, 2)).astype(np.float32)
    for make, size, left in ((causal.down_conv, (2, 3), 1), (causal.right_conv, (2, 2), 1)):
        layer = make(3, size, **F32)
        params = shaken(layer, x)
        found = jax.jit(lambda x: layer.apply({"params": params}, x))(x)[0]  # noqa: B023
        for row, column in itertools.product(range(HEIGHT), range(WIDTH)):
            total = np.array(params["bias"], np.float64)
            for i, j in box(range(size[0]), range(size[1])):
                r, c = row - size[0] + 1 + i, column - left + j
                if r >= 0 and 0 <= c < WIDTH:
                    total += x[0, r, c] @ params["kernel"][i, j]
            np.testing.assert_allclose(found[row, column], total, atol=1e-5)


def test_levels_are_read_as_numbers_beside_a_channel_of_ones():
    read = causal.read_levels(jnp.arange(5).reshape(1, 1, 5, 1), 5)
    assert read[0, 0].tolist() == [[-1, 1], [-0.5, 1], [0, 1], [0.5, 1], [1, 1]]
