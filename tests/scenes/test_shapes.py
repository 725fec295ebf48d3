"""The shapes, against their areas and outlines by numerical integration."""

import numpy as np
import pytest

from flaxgen.scenes.shapes import COLOURS, LARGE, SHAPES, SMALL, distance, rasterise

FINE = (np.arange(1500) + 0.5) / 600 - 1.25
INSIDE = {name: distance(name, FINE[None, :], FINE[:, None]) < 0 for name in SHAPES}


@pytest.mark.parametrize("name", SHAPES)
def test_the_numbers_are_those_of_the_outline(name):
    """Area, centroid and bounding box, by counting points of a fine grid."""
    inside, shape = INSIDE[name], SHAPES[name]
    assert inside.sum() / 600**2 == pytest.approx(shape.area, rel=2e-3)
    rows, columns = np.nonzero(inside)
    assert FINE[columns].mean() == pytest.approx(0, abs=1e-3)
    assert FINE[rows].mean() == pytest.approx(shape.centroid, abs=1e-3)
    for half, places in ((shape.half_width, columns), (shape.half_height, rows)):
        assert FINE[places].min() == pytest.approx(-half, abs=3e-3)
        assert FINE[places].max() == pytest.approx(half, abs=3e-3)


@pytest.mark.parametrize("name", SHAPES)
def test_distance_near_the_outline(name):
    """A shape grown by d gains d times its outline in area: the circle and the ring exactly, those with corners to
    first order."""
    outline = {
        "circle": 2 * np.pi,
        "ring": 3 * np.pi,
        "square": 8 * SHAPES["square"].half_width,
        "triangle": 6 * SHAPES["triangle"].half_width,
        "cross": 8.0,
    }[name]
    depth = distance(name, FINE[None, :], FINE[:, None])
    shell = ((depth > -0.02) & (depth < 0.02)).sum() / 600**2
    assert shell == pytest.approx(0.04 * outline, rel=0.03)


@pytest.mark.parametrize("size", [16, 32, 64, 128, 500])
@pytest.mark.parametrize("name", SHAPES)
def test_coverage_adds_up_to_the_area(name, size):
    """Antialiasing moves no area: the mean over places comes within 2 % of it, at every resolution."""
    radius, rng = 0.15, np.random.default_rng(0)
    areas = [rasterise(name, *rng.uniform(0.3, 0.7, 2), radius, size).coverage.sum() / size**2 for _ in range(40)]
    assert np.mean(areas) == pytest.approx(SHAPES[name].area * radius**2, rel=0.02 if size > 16 else 0.06)


@pytest.mark.parametrize("name", SHAPES)
def test_the_patch_has_all_of_the_shape(name):
    """Its rim is empty, unless the picture ends there; past the edge of the picture it is cut."""
    top, left, coverage = rasterise(name, 0.41, 0.57, 0.2, 64)
    for rim in (coverage[0], coverage[-1], coverage[:, 0], coverage[:, -1]):
        assert rim.max() <= 0.5
    assert coverage.max() == 1
    height, width = coverage.shape
    assert (left + width / 2) / 64 == pytest.approx(0.41, abs=1 / 64)
    assert (top + height / 2) / 64 == pytest.approx(0.57, abs=1 / 64)
    top, left, coverage = rasterise(name, 0.05, 0.97, 0.2, 64)
    assert (top + coverage.shape[0], left) == (64, 0)


def test_a_drawing_is_the_average_of_a_finer_one():
    for name in SHAPES:
        fine, coarse = np.zeros((512, 512)), np.zeros((32, 32))
        for picture in (fine, coarse):
            top, left, coverage = rasterise(name, 0.46, 0.52, 0.2, len(picture))
            picture[top : top + coverage.shape[0], left : left + coverage.shape[1]] = coverage
        error = np.abs(fine.reshape(32, 16, 32, 16).mean(axis=(1, 3)) - coarse)
        assert error.max() < 0.35  # of corners; elsewhere it is a few hundredths
        assert error.sum() < 0.03 * coarse.sum()


def test_sizes_and_colours_are_far_apart():
    assert SMALL[0] < SMALL[1] < 0.8 * LARGE[0] < LARGE[1]
    rgb = np.array(list(COLOURS.values()), float)
    between = np.linalg.norm(rgb[:, None] - rgb[None], axis=2) + 1000 * np.eye(len(rgb))
    assert between.min() > 100
