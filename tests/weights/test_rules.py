"""Rule tables are bijections, and say so when they are not."""

import numpy as np
import pytest

from flaxgen.weights import store
from flaxgen.weights.generate import generate_rules, module_namer
from flaxgen.weights.layouts import (
    CONV,
    CONV_1D,
    CONV_OF_LINEAR,
    LINEAR,
    POINTWISE,
    POINTWISE_1D,
    SAME,
    interleaved,
    squeeze,
    stacked,
    swapped,
)
from flaxgen.weights.rules import Rule, from_params, tensor_name, to_params, under

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


def test_halves_are_swapped():
    """On the side of the outputs, which lie first there and last here."""
    value = numbers(4, 3)
    there = swapped(LINEAR).to_flax(value)
    np.testing.assert_array_equal(there, value[[2, 3, 0, 1]].T)
    np.testing.assert_array_equal(swapped(LINEAR).from_flax(there), value)
    with pytest.raises(ValueError, match=r"'x' has shape \(3,\): expected two halves at dimension 0"):
        dict(to_params([Rule("x", "y", swapped(SAME))], {"x": numbers(3)}))


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
        dict(to_params(RULES, {"fc.weight": numbers(2, 2, 1)}))


def check_there_and_back(rules, tensors, paths):
    """The tensors become exactly these paths, and bit for bit themselves again, from params in another order too."""
    params = to_params(rules, tensors)
    assert sorted(params) == sorted(paths)
    back = from_params(rules, dict(sorted(params.items(), reverse=True)))
    assert back.keys() == tensors.keys()
    for name, value in tensors.items():
        assert back[name].shape == value.shape
        assert back[name].tobytes() == value.tobytes()
    return params


QKV = ("attention_{i}/query", "attention_{i}/key", "attention_{i}/value")
FUSED = (
    Rule("attn.{i}.in_proj_weight", tuple(f"{path}/kernel" for path in QKV), LINEAR),
    Rule("attn.{i}.in_proj_bias", tuple(f"{path}/bias" for path in QKV)),
)


def test_a_tensor_is_split_and_joined():
    """PyTorch's MultiheadAttention: query, key and value one below the other."""
    tensors = {"attn.7.in_proj_weight": numbers(6, 3), "attn.7.in_proj_bias": numbers(6)}
    paths = [f"attention_7/{part}/{leaf}" for part in ("query", "key", "value") for leaf in ("kernel", "bias")]
    params = check_there_and_back(FUSED, tensors, paths)
    np.testing.assert_array_equal(params["attention_7/key/kernel"], tensors["attn.7.in_proj_weight"][2:4].T)
    np.testing.assert_array_equal(params["attention_7/value/bias"], [4, 5])
    assert tensor_name(FUSED, "attention_7/key/kernel") == "attn.7.in_proj_weight"


def test_tensors_are_joined_and_split():
    """The other way about: three linear layers there are one here."""
    rules = (Rule(("q.weight", "k.weight", "v.weight"), "qkv/kernel", LINEAR, stacked(2, 1, 1)),)
    tensors = {"v.weight": numbers(2, 3), "q.weight": -numbers(4, 3), "k.weight": 10 + numbers(2, 3)}
    kernel = check_there_and_back(rules, tensors, ["qkv/kernel"])["qkv/kernel"]
    expected = np.concatenate([tensors["q.weight"], tensors["k.weight"], tensors["v.weight"]]).T
    np.testing.assert_array_equal(kernel, expected)
    assert tensor_name(rules, "qkv/kernel") == "q.weight + k.weight + v.weight"


def test_heads_are_interleaved():
    """GLIDE and guided-diffusion: the rows of head 0 for query, key and value, then those of head 1."""
    rules = (Rule("qkv.weight", ("q/kernel", "k/kernel", "v/kernel"), POINTWISE_1D, interleaved(2)),)
    tensors = {"qkv.weight": numbers(12, 4, 1)}
    params = check_there_and_back(rules, tensors, ["q/kernel", "k/kernel", "v/kernel"])
    np.testing.assert_array_equal(params["k/kernel"], tensors["qkv.weight"][[2, 3, 8, 9], :, 0].T)


@pytest.mark.parametrize(
    ("layout", "shape", "here"),
    [
        (POINTWISE, (5, 3, 1, 1), (3, 5)),
        (POINTWISE_1D, (5, 3, 1), (3, 5)),
        (CONV_OF_LINEAR, (5, 3), (1, 1, 3, 5)),
        (CONV_1D, (5, 3, 2), (2, 3, 5)),
        (squeeze((0, 1), ndim=4), (1, 1, 2, 3), (2, 3)),
    ],
)
def test_ones_are_squeezed(layout, shape, here):
    tensors = {"x": numbers(*shape)}
    assert check_there_and_back((Rule("x", "y", layout),), tensors, ["y"])["y"].shape == here


@pytest.mark.parametrize(
    ("rules", "tensors", "message"),
    [
        (FUSED, {"attn.0.in_proj_bias": numbers(7)}, r"'attn\.0\.in_proj_bias' has shape \(7,\): .* a multiple of 3"),
        (FUSED, {"attn.0.in_proj_weight": numbers(6)}, r"has shape \(6,\), expected 2 dimensions"),
        ([Rule("x", "y", POINTWISE)], {"x": numbers(2, 2, 1, 3)}, r"\(2, 2, 1, 3\): expected 1 at dimension 3"),
        ([Rule("x", ("a", "b"), SAME, interleaved(4))], {"x": numbers(6)}, "multiple of 2 parts of 4 a head"),
        ([Rule(("a", "b"), "x")], {"a": numbers(2)}, "tensor 'b' is missing: with 'a' it makes x"),
        ([Rule(("a", "b"), "x")], {"b": numbers(2)}, "tensor 'a' is missing: with 'b' it makes x"),
        ([Rule(("a", "b"), "x")], {"a": numbers(2), "b": numbers(4)}, r"shapes \(2,\), \(4,\), which are not parts"),
        ([Rule(("a", "b"), "x")], {"a": numbers(2), "b": numbers(2) > 0}, "dtypes float32, bool, expected one"),
    ],
)
def test_what_is_no_whole_is_named(rules, tensors, message):
    with pytest.raises(ValueError, match=message):
        dict(to_params(rules, tensors))


def test_a_parameter_that_is_missing_beside_its_part_is_named():
    params = dict(to_params(FUSED, {"attn.1.in_proj_bias": numbers(6)}))
    del params["attention_1/key/bias"]
    with pytest.raises(
        ValueError, match=r"parameter 'attention_1/key/bias' is missing: .* makes attn\.1\.in_proj_bias"
    ):
        from_params(FUSED, params)
    params["attention_1/key/bias"] = numbers(3)
    with pytest.raises(ValueError, match=r"parameter 'attention_1/query/bias' has shape \(2,\): its parts"):
        dict(from_params(FUSED, params))


def test_blocks_of_parts_stand_at_places():
    rules = under([("layers.{j}", "block_{j}")], [Rule("qk", ("q", "k"))])
    assert rules == (Rule("layers.{j}.qk", ("block_{j}/q", "block_{j}/k")),)


NET = {
    "transformer": {
        f"block_{i}": {
            "attention": {name: {"kernel": numbers(4, 4), "bias": numbers(4)} for name in ("query", "key", "value")},
            "norm_1": {"scale": numbers(4), "bias": numbers(4)},
        }
        for i in range(2)
    },
    "conv": {"kernel": numbers(3, 3, 2, 4)},
    "text": {"embedding": numbers(9, 4)},
    "positions": numbers(5, 4),
}
NAMES = {"transformer/block_{i}": "encoder.layers.{i}", "norm_{i}": "layer_norm{i}", "attention": "self_attn"}
POSITIONS = Rule("position_embedding", "positions", squeeze((0,), ndim=3))


def test_a_table_is_made_from_a_net():
    """Its names are those of the patterns, and it reads in both directions as one that is written by hand."""
    rules = generate_rules(NET, module_namer(NAMES), odd=[POSITIONS])
    tensors = from_params(rules, store.flatten(NET))
    assert set(tensors) == {
        *(f"encoder.layers.{i}.self_attn.{n}.{leaf}" for i in (0, 1) for n in ("query", "key", "value")
          for leaf in ("weight", "bias")),
        *(f"encoder.layers.{i}.layer_norm1.{leaf}" for i in (0, 1) for leaf in ("weight", "bias")),
        "conv.weight",
        "text.weight",
        "position_embedding",
    }  # fmt: skip
    assert tensors["conv.weight"].shape == (4, 2, 3, 3)
    assert tensors["position_embedding"].shape == (1, 5, 4)
    again = to_params(rules, tensors)
    assert {path: value.tobytes() for path, value in again.items()} == {
        path: value.tobytes() for path, value in store.flatten(NET).items()
    }


def test_what_the_pattern_does_not_say_is_said_by_rules():
    """OpenCLIP fuses what is three layers here."""
    fused = Rule(
        "encoder.layers.{i}.self_attn.in_proj_weight",
        tuple(f"transformer/block_{{i}}/attention/{name}/kernel" for name in ("query", "key", "value")),
        LINEAR,
    )
    rules = generate_rules(NET, module_namer(NAMES), odd=[POSITIONS, fused])
    tensors = from_params(rules, store.flatten(NET))
    assert tensors["encoder.layers.1.self_attn.in_proj_weight"].shape == (12, 4)
    assert "encoder.layers.1.self_attn.query.weight" not in tensors
    assert "encoder.layers.1.self_attn.query.bias" in tensors
    assert to_params(rules, tensors).keys() == store.flatten(NET).keys()


def test_a_table_that_cannot_be_made_says_why():
    with pytest.raises(ValueError, match=r"'positions', expected one of kernel, .*: give it a rule"):
        generate_rules(NET, module_namer(NAMES))
    with pytest.raises(ValueError, match=r"'a/scale' and 'b/scale' are both 'c\.weight'"):
        generate_rules({"a": {"scale": numbers(1)}, "b": {"scale": numbers(1)}}, lambda _: "c")
