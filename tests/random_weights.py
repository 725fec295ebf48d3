"""Weights without training and without compiling where it would start."""

from typing import Any

import jax
import numpy as np


def draw_like(shapes: Any) -> Any:
    """Weights of these shapes that keep the size of what they are given, none of them where training would start."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        mean = float(path[-1].key == "scale")
        std = 0.1 if len(leaf.shape) < 2 else np.prod(leaf.shape[:-1]) ** -0.5
        return rng.normal(mean, std, leaf.shape).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)
