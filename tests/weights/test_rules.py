"""Rule tables are bijections, and say so when they are not."""

import numpy as np
import pytest

from flaxgen.weights.rules import CONV, LINEAR, SAME, Rule, from_params, to_params, under

RULES = (
    *under(
        [("down.{i}.block.{j}", "down_{i}_block_{j}"), ("mid", "middle")], [Rule("conv.weight", "conv/kernel", CONV)]
    ),
    Rule("fc.weight", "fc/kernel", LINEAR),
    Rule("fc.bias", "fc/bias"),
)


def numbers(*shape):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def test_names_and_layouts():
    tensors = {"down.3.block.12.conv.weight": numbers(2, 3, 4, 5), "fc.weight": numbers(2, 3), "fc.bias": numbers(2)}
    params = to_params(RULES, tensors)
    assert set(params) == {"down_3_block_12/conv/kernel", "fc/kernel", "fc/bias"}
    kernel = params["down_3_block_12/conv/kernel"]
    assert kernel.shape == (4, 5, 3, 2)
    assert kernel[3, 1, 2, 0] == tensors["down.3.block.12.conv.weight"][0, 2, 3, 1]
    assert params["fc/kernel"][2, 1] == tensors["fc.weight"][1, 2]


def test_export_is_the_inverse():
    tensors = {
        "mid.conv.weight": numbers(2, 3, 4, 5),
        "down.0.block.1.conv.weight": numbers(3, 1, 1, 2),
        "fc.weight": numbers(4, 3),
    }
    back = from_params(RULES, to_params(RULES, tensors))
    assert back.keys() == tensors.keys()
    for name, value in tensors.items():
        assert back[name].flags.c_contiguous
        assert back[name].tobytes() == value.tobytes()


@pytest.mark.parametrize(("layout", "shape"), [(SAME, ()), (SAME, (3,)), (LINEAR, (2, 3)), (CONV, (2, 3, 4, 5))])
def test_layouts_are_their_own_way_back(layout, shape):
    value = numbers(*shape)
    there = layout.to_flax(value)
    np.testing.assert_array_equal(layout.from_flax(there), value)
    np.testing.assert_array_equal(layout.to_flax(layout.from_flax(there)), there)


@pytest.mark.parametrize(
    "name",
    ["fc.scale", "xfc.weight", "fc.weight.x", "fcxweight", "down.03.block.1.conv.weight", "down.x.block.1.conv.weight"],
)
def test_an_unknown_tensor_is_named(name):
    with pytest.raises(ValueError, match=f"no rule matches '{name}'"):
        to_params(RULES, {name: numbers(2, 2)})


def test_an_unknown_parameter_is_named():
    with pytest.raises(ValueError, match="no rule matches 'fc/scale'"):
        from_params(RULES, {"fc/scale": numbers(2)})


def test_ambiguity_and_collisions_are_errors():
    with pytest.raises(ValueError, match=r"2 rules match 'fc\.bias'"):
        to_params((*RULES, Rule("fc.bias", "other")), {"fc.bias": numbers(2)})
    with pytest.raises(ValueError, match="another tensor gave already"):
        to_params((Rule("a", "x"), Rule("b", "x")), {"a": numbers(2), "b": numbers(2)})
    with pytest.raises(ValueError, match="another parameter gave already"):
        from_params((Rule("x", "a"), Rule("x", "b")), {"a": numbers(2), "b": numbers(2)})


def test_dimensions_are_checked():
    with pytest.raises(ValueError, match=r"'fc\.weight' has shape \(2, 2, 1\), expected 2 dimensions"):
        to_params(RULES, {"fc.weight": numbers(2, 2, 1)})
