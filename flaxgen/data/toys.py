"""Distributions on the line and in the plane, for experiments of seconds. Coordinates lie about in [-1, 1]."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from flaxgen.data.decode import DataError

SPLITS = ("train", "test")
CURVE_STD = 0.02
"""Standard deviation of the noise around the curves."""
CLUSTER_STD = 0.1
MEAN, STD = 0.25, 0.25
"""Of the Gaussian on the line."""
POINTS = 7003
"""The last word of the seed, so that no other stream of the same seed is equal."""


class Drawn(NamedTuple):
    """Points and, where the distribution has parts, the part of each."""

    point: Float[np.ndarray, "N D"]
    label: Int[np.ndarray, " N"] | None = None


def gaussian1d(u: Float[np.ndarray, "N 2"], noise: Float[np.ndarray, "N 2"]) -> Drawn:
    """Numbers with mean 0.25 and std 0.25, as one-dimensional points: the data of [Goodfellow14, fig. 1]."""
    return Drawn(MEAN + STD * noise[:, :1])


def s_curve(u: Float[np.ndarray, "N 2"], noise: Float[np.ndarray, "N 2"]) -> Drawn:
    """Two three-quarter arcs joined at the origin, x = sin t, y = sign(t) (cos t - 1) / 2, t uniform in
    +-3 pi / 2; std 0.71 and 0.69."""
    t = 3 * np.pi * (u[:, 0] - 0.5)
    return Drawn(np.stack([np.sin(t), np.sign(t) * (np.cos(t) - 1) / 2], axis=1) + CURVE_STD * noise)


def swiss_roll(u: Float[np.ndarray, "N 2"], noise: Float[np.ndarray, "N 2"]) -> Drawn:
    """A spiral of radius t / (4.5 pi), t uniform in 1.5 pi .. 4.5 pi."""
    t = 1.5 * np.pi * (1 + 2 * u[:, 0])
    return Drawn(np.stack([t * np.cos(t), t * np.sin(t)], axis=1) / (4.5 * np.pi) + CURVE_STD * noise)


def eight_gaussians(u: Float[np.ndarray, "N 2"], noise: Float[np.ndarray, "N 2"]) -> Drawn:
    """Eight clusters on the unit circle, std 0.1 each, 0.71 in all; the label is the cluster, from angle 0 on."""
    label = np.minimum((8 * u[:, 0]).astype(np.int32), 7)
    angle = label * (np.pi / 4)
    return Drawn(np.stack([np.cos(angle), np.sin(angle)], axis=1) + CLUSTER_STD * noise, label)


def moons(u: Float[np.ndarray, "N 2"], noise: Float[np.ndarray, "N 2"]) -> Drawn:
    """Two interlocked half circles of radius 2/3 about the origin, within [-1, 1] x [-0.5, 0.5]; the label is the
    half circle."""
    angle, label = np.pi * u[:, 0], (u[:, 1] < 0.5).astype(np.int32)
    outer = np.stack([np.cos(angle) - 0.5, np.sin(angle) - 0.25], axis=1)
    return Drawn(np.where(label[:, None] == 0, outer, -outer) / 1.5 + CURVE_STD * noise, label)


TOYS: Mapping[str, Callable[..., Drawn]] = {
    "gaussian1d": gaussian1d,
    "s_curve": s_curve,
    "swiss_roll": swiss_roll,
    "eight_gaussians": eight_gaussians,
    "moons": moons,
}
PARTS = {"eight_gaussians": 8, "moons": 2}


class Toy:
    """`size` points of a distribution: `point` float32 [2], on the line [1], and of those with parts `label` int32 [].

    Element i depends on (name, split, seed, i) and not on the size. The splits are independent draws.

    Raises:
        DataError: if the name or the split is not known.
    """

    class_names = None
    broken: Mapping[int, str] = MappingProxyType({})

    def __init__(self, name: str, split: str, seed: int, size: int):
        if name not in TOYS:
            raise DataError(f"toy {name!r} is not known: use one of {', '.join(TOYS)}")
        if split not in SPLITS:
            raise DataError(f"data.split={split!r} of {name} is not known: use train or test")
        u = np.random.default_rng((seed, SPLITS.index(split), POINTS)).random((size, 4))
        # Box-Muller takes as many numbers for every element, so that element i does not depend on those before it
        radius, angle = np.sqrt(-2 * np.log1p(-u[:, 2])), 2 * np.pi * u[:, 3]
        noise = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        drawn = TOYS[name](u[:, :2], noise)
        self._fields = {"point": drawn.point.astype(np.float32)}
        if drawn.label is not None:
            self._fields["label"] = drawn.label
        self.num_classes = PARTS.get(name)

    def __len__(self) -> int:
        return len(self._fields["point"])

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return {field: values[index] for field, values in self._fields.items()}
