"""Nets start with zeros where the papers say so; what a net computes shows only away from there."""

import jax
import numpy as np
import pytest


@pytest.fixture(scope="session")
def shaken():
    """`shaken(net, *inputs, **inputs)`: random parameters for a net, none of them where it would start."""

    def make(net, *inputs, **conditions):
        shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), *inputs, **conditions))["params"]
        rng = np.random.default_rng(0)

        def draw(path, leaf):
            return rng.normal(1.0 if path[-1].key == "scale" else 0.0, 0.2, leaf.shape).astype(np.float32)

        return jax.tree_util.tree_map_with_path(draw, shapes)

    return make


@pytest.fixture(scope="session")
def run():
    """`run(net, params, *inputs, **inputs)`: a net's output, compiled as a whole because op by op takes longer."""
    return jax.jit(
        lambda net, params, *inputs, **given: net.apply({"params": params}, *inputs, **given), static_argnums=0
    )
