"""DALL-E's masks beside the paper's figure 11 and enumeration by row and column."""

import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.nets.sparse_mask import KINDS, layer_kinds, sparse_mask

FIGURE = {"context": 6, "rows": 4, "columns": 4, "conv_size": 3}


def mask(kind, context, rows, columns, conv_size):
    places = jnp.arange(context + rows * columns)
    return np.asarray(sparse_mask(kind, places, context, rows, columns, conv_size)[0, 0])


def reads(kind, place, other, conv_size, columns):
    """Whether the code at `place` reads the one at `other`, by steps over the map that go on in the next row."""
    if kind == "row":
        return other in range(place - columns, place + 1)
    if kind == "column":
        return other <= place and other % columns == place % columns
    if kind == "full":
        return other <= place
    half = conv_size // 2
    covered = {place + columns * down + right for down in range(-half, half + 1) for right in range(-half, half + 1)}
    return other <= place and other in covered


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "columns", "conv_size"), [(4, 4, 3), (3, 5, 5), (5, 3, 7), (2, 8, 3), (6, 6, 11)])
def test_codes_read_what_enumeration_says(kind, rows, columns, conv_size):
    found = mask(kind, 2, rows, columns, conv_size)[2:, 2:]
    count = rows * columns
    expected = [[reads(kind, n, m, conv_size, columns) for m in range(count)] for n in range(count)]
    np.testing.assert_array_equal(found, expected)


def test_the_papers_figure():
    """Of 4 x 4 codes the one in the third row and column: rows read five, up to the one above; a kernel of 3 x 3 reads
    itself, the one before it and three above; columns read those above."""
    place = 2 * 4 + 2
    expected = {"row": [6, 7, 8, 9, 10], "column": [2, 6, 10], "convolution": [5, 6, 7, 9, 10]}
    for kind, codes in expected.items():
        assert np.flatnonzero(mask(kind, **FIGURE)[6 + place, 6:]).tolist() == codes


def test_kernels_go_on_in_the_next_row():
    """At the beginning of the third row: the one before is the last of the second, and it is above and left too."""
    assert np.flatnonzero(mask("convolution", **FIGURE)[6 + 8, 6:]).tolist() == [3, 4, 5, 7, 8]


@pytest.mark.parametrize("kind", KINDS)
def test_text_is_causal_and_every_code_reads_all_of_it(kind):
    found = mask(kind, **FIGURE)
    np.testing.assert_array_equal(found[:6, :6], np.tri(6, dtype=bool))
    assert not found[:6, 6:].any()
    assert found[6:, :6].all()


@pytest.mark.parametrize("kind", KINDS)
def test_some_places_alone_are_rows_of_the_whole(kind):
    places = jnp.array([3, 6, 17])
    np.testing.assert_array_equal(sparse_mask(kind, places, **FIGURE)[0, 0], mask(kind, **FIGURE)[places])


def test_kinds_are_in_the_papers_order():
    assert layer_kinds(5) == ("row", "column", "row", "row", "convolution")
    kinds = layer_kinds(64)
    assert len(kinds) == 64
    assert [i for i, kind in enumerate(kinds, 1) if kind == "column"] == list(range(2, 64, 4))
    assert kinds.index("convolution") == 63


def test_what_is_wrong_is_named():
    with pytest.raises(ValueError, match="kind='diagonal' is not one of row, column, convolution, full"):
        mask("diagonal", **FIGURE)
