"""Nets over a map of codes that are given another: causal in their own, and read all of that."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from flaxgen.nets.code_condition import CodeMap
from flaxgen.nets.pixelcnn import PixelCNN
from flaxgen.nets.pixelsnail import PixelSNAIL

TOP = CodeMap(height=2, width=3, codes=5, channels=4, depth=2)
GRID = {"height": 4, "width": 6, "codes": 4, "condition": TOP}
NETS = {
    "code_0": PixelCNN(**GRID, channels=8, depth=4, first_size=5, out_channels=32),
    "code": PixelSNAIL(**GRID, channels=6, blocks=1, depth=1, key_channels=2, value_channels=4),
}
"""By what their tables of codes are called."""
each_net = pytest.mark.parametrize("net", NETS.values(), ids=["gated", "snail"])
CODES = jax.random.randint(jax.random.key(0), (4, 4, 6), 0, 4)
GIVEN = jax.random.randint(jax.random.key(1), (4, 2, 3), 0, 5)


def moved(table, move):
    """An interceptor that adds move [B h w], times 1, 2, 3 ... along the features, to what a table of codes gives."""

    def intercept(call, args, kwargs, context):
        out = call(*args, **kwargs)
        if context.module.name != table or context.method_name != "__call__":
            return out
        return out + jnp.multiply.outer(move, jnp.arange(1.0, 1 + out.shape[-1]))

    return nn.intercept_methods(intercept)


def jacobian(net, params, table, shape):
    """|d output / d what is read| [place, place] summed over logits and four pictures."""

    @jax.jit
    def derivatives(moves):
        def apply(move):
            with moved(table, move[None]):
                return net.apply({"params": params}, CODES, condition=GIVEN)

        return jax.vmap(lambda move: jax.jvp(apply, (jnp.zeros(shape),), (move,))[1])(moves)

    places = shape[0] * shape[1]
    found = derivatives(jnp.eye(places).reshape(places, *shape))
    return np.abs(found).sum((1, -1)).reshape(places, -1).T


@pytest.mark.parametrize(("table", "net"), NETS.items(), ids=["gated", "snail"])
def test_a_place_reads_every_earlier_code_no_other_and_all_of_what_is_given(table, net, shaken):
    params = shaken(net, CODES, condition=GIVEN)
    own, places = jacobian(net, params, table, (4, 6)), np.arange(24)
    before = places[None] < places[:, None]
    np.testing.assert_array_equal(own != 0, before)
    assert own[before].min() > 1e-9
    given = jacobian(net, params, "table", (2, 3))
    assert given.shape == (24, 6)
    assert given.min() > 1e-9, "every place reads every code of the top"


@each_net
def test_what_is_given_has_to_be_there_and_to_fit(net):
    init = lambda net, *inputs: jax.eval_shape(net.init, jax.random.key(0), CODES, *inputs)  # noqa: E731
    with pytest.raises(ValueError, match="needs the condition 'condition'"):
        init(net)
    with pytest.raises(ValueError, match="takes no condition 'condition'"):
        init(net.clone(condition=None), None, GIVEN)
    with pytest.raises(ValueError, match="a grid of 3x2, but this net is for grids of 2x3"):
        init(net, None, GIVEN.transpose(0, 2, 1))
    with pytest.raises(ValueError, match="a map of 3x2, expected one whose sides divide 4x6"):
        init(net.clone(condition=CodeMap(height=3, width=2, codes=5)), None, GIVEN.transpose(0, 2, 1))


@each_net
def test_without_a_condition_a_net_has_no_parameters_of_one(net):
    made = jax.eval_shape(net.clone(condition=None).init, jax.random.key(0), CODES)["params"]
    assert "condition_map" not in made
