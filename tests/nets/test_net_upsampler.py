"""The UNet as an upsampler: a low-resolution picture of any size, and how much noise is on it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from flaxgen.nets.layers import Conditioning, sinusoidal
from flaxgen.nets.unet import UNet, resize_to

NET = UNet(
    image_size=32,
    channels=8,
    multipliers=(1, 2),
    depth=1,
    attention=(),
    middle="resblocks",
    norm_groups=4,
    resample="resnet",
    low_res=True,
    noise_level=True,
    patch=2,
)


def given(height=8, width=12):
    key, low_key = jax.random.split(jax.random.key(1))
    x = jax.random.normal(key, (2, height, width, 3))
    low_res = jax.random.normal(low_key, (2, height // 4, width // 4, 3))
    return (x, jnp.array([3.0, 871.0])), {"low_res": low_res, "level": jnp.array([0.0, 1.0])}


@pytest.fixture(scope="module")
def params(shaken):
    inputs, conditions = given()
    return shaken(NET, *inputs, **conditions)


def test_low_res_and_its_level_matter_and_only_to_their_example(params, run):
    inputs, conditions = given()
    before = run(NET, params, *inputs, **conditions)
    assert before.shape == inputs[0].shape
    for name, value in conditions.items():
        out = run(NET, params, *inputs, **conditions | {name: value.at[0].add(0.5)})
        assert list(np.abs(out - before).max(axis=(1, 2, 3)) > 1e-4) == [True, False], name


def test_low_res_may_come_at_any_size(params, run):
    """At the size of x it is read as it is: resized before or inside is the same."""
    inputs, conditions = given()
    before = run(NET, params, *inputs, **conditions)
    resized = conditions | {"low_res": resize_to(conditions["low_res"], inputs[0])}
    np.testing.assert_allclose(run(NET, params, *inputs, **resized), before, atol=1e-5)


@pytest.mark.parametrize("patch", [1, 2])
def test_any_size_that_the_levels_divide(patch):
    """Trained on crops, used on the whole: the parameters know no size."""
    net = NET.clone(patch=patch)
    shapes = []
    for height, width in ((4 * patch, 4 * patch), (12 * patch, 8 * patch)):
        inputs, conditions = given(height, width)
        out, variables = jax.eval_shape(
            lambda inputs=inputs, conditions=conditions: net.init_with_output(jax.random.key(0), *inputs, **conditions)
        )
        assert out.shape == inputs[0].shape
        shapes.append(jax.tree.map(lambda leaf: leaf.shape, variables))
    assert shapes[0] == shapes[1]


def test_the_level_is_embedded_as_a_time_of_a_thousand_steps(shaken):
    """With the time's frequencies, through an MLP of its own, and added."""
    net = Conditioning(8, 16, time_order="cos_sin", noise_level=True, added=True)
    time, level, added = jnp.array([5.0, 7.0]), jnp.array([0.25, 1.0]), jnp.linspace(-1, 1, 32).reshape(2, 16)
    params = shaken(net, time, level=level, added=added)

    def mlp(name, value):
        one, two = params[f"{name}_1"], params[f"{name}_2"]
        h = nn.silu(sinusoidal(value, 8, "cos_sin") @ one["kernel"] + one["bias"][None])
        return h @ two["kernel"] + two["bias"][None]

    expected = mlp("time", time) + mlp("level", 1000 * level) + added
    np.testing.assert_allclose(net.apply({"params": params}, time, level=level, added=added), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "dropped", "message"),
    [
        ({}, "level", "noise_level=True and needs the condition 'level'"),
        ({"noise_level": False}, None, "takes no condition 'level'"),
        ({"low_res": False}, "low_res", "set low_res=True too"),
        ({"added": True}, None, "needs the condition 'added'"),
    ],
)
def test_what_does_not_fit_is_named(changes, dropped, message):
    inputs, conditions = given()
    conditions.pop(dropped, None)
    with pytest.raises(ValueError, match=message):
        NET.clone(**changes).init(jax.random.key(0), *inputs, **conditions)


def test_an_added_vector_of_another_width_is_refused():
    net, (inputs, _) = NET.clone(low_res=False, noise_level=False, added=True), given()
    with pytest.raises(ValueError, match="'added' is 31 wide, the time embedding=32"):
        net.init(jax.random.key(0), *inputs, added=jnp.zeros((2, 31)))
