"""What DiT and MMDiT promise beside their numbers, which tests/parity compares with diffusers'."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.nets.dit import DiT
from flaxgen.nets.mmdit import MMDiT
from flaxgen.nets.patched import patch_places
from flaxgen.train.config import decode, encode

DIT = DiT(image_size=4, in_channels=2, out_channels=2, width=8, depth=1, heads=2)
MM = MMDiT(image_size=4, in_channels=2, out_channels=2, width=8, depth=2, heads=2, token_dim=6, vector_dim=7,
           max_places=6, qk_norm=True, dual_blocks=(0,))  # fmt: skip
TOLD = {
    "dit": DIT.clone(num_classes=3, token_dim=6, vector_dim=7, learned_variance=True),
    "mmdit": MM.clone(num_classes=3, learned_variance=True),
}


def noisy(batch, *size):
    return jax.random.normal(jax.random.key(1), (batch, *(size or (4, 4)), 2)), jnp.linspace(0.0, 999.0, batch)


def conditions(batch):
    tokens_key, vector_key = jax.random.split(jax.random.key(3))
    return {
        "label": jnp.arange(batch) % 3,
        "tokens": jax.random.normal(tokens_key, (batch, 4, 6)),
        "token_mask": jnp.arange(batch * 4).reshape(batch, 4) % 3 > 0,
        "vector": jax.random.normal(vector_key, (batch, 7)),
    }


def needed(net):
    """The conditions without which a net does nothing, for one example."""
    given = conditions(1)
    return {"tokens": given["tokens"], "vector": given["vector"]} if isinstance(net, MMDiT) else {}


def abstract(net, batch=1, **given):
    return jax.eval_shape(lambda: net.init(jax.random.key(0), *noisy(batch), **given))["params"]


@pytest.mark.parametrize(
    ("width", "depth", "heads", "expected"),
    [(1152, 28, 16, 675_129_632), (768, 12, 12, pytest.approx(130e6, rel=0.01))],
)
def test_parameters_of_the_paper(width, depth, heads, expected):
    """DiT-XL/2's authors count 675,129,632, their table of 256 places among them; B/2 has 130M [Peebles23, table 4]."""
    net = DiT(width=width, depth=depth, heads=heads, num_classes=1001, learned_variance=True)
    x, time, label = jnp.zeros((1, 2, 2, 4)), jnp.zeros(1), jnp.zeros(1, int)
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), x, time, label))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) + 256 * width == expected


@pytest.fixture(scope="module", params=TOLD)
def apply(request, shaken):
    """(time, conditions) -> output of three examples, of a net that has every condition."""
    net, (x, time) = TOLD[request.param], noisy(3)
    params = shaken(net, x, time, **conditions(3))
    return jax.jit(lambda time, given: net.apply({"params": params}, x, time, **given))


@pytest.mark.parametrize("name", TOLD)
def test_every_block_starts_as_the_identity(name):
    """Gates are zero [Peebles23, sec. 3.2], and so is the way to the tokens; as is the way out, the prediction too."""
    x, time = noisy(1)

    def init():
        params = TOLD[name].init(jax.random.key(0), x, time, **conditions(1))["params"]
        block = params["block_0"]
        ways = [block[part]["linear"] for part in ("modulation", "token_modulation") if part in block]
        return params["head"], ways, [block["cross_attention"]["out"]] if "cross_attention" in block else []

    head, ways, cross = jax.jit(init)()
    assert (len(ways), len(cross)) == {"dit": (1, 1), "mmdit": (2, 0)}[name]
    assert not any(leaf.any() for leaf in jax.tree.leaves((head, ways, cross)))


def test_a_batch_is_its_examples(apply):
    """Every condition reaches its own example and no other."""
    time, given, order = noisy(3)[1], conditions(3), np.array([0, 2, 1])
    out = apply(time, given)
    assert out.shape == (3, 4, 4, 4)
    changes = {key: (time, given | {key: given[key][order]}) for key in given} | {"time": (time[order], given)}
    for key, inputs in changes.items():
        changed = apply(*inputs)
        np.testing.assert_allclose(changed[0], out[0], atol=1e-4)
        assert np.abs(changed[1] - out[1]).max() > 1e-3, key


def test_hidden_tokens_are_not_read(apply):
    time, given = noisy(3)[1], conditions(3)
    shown = given["token_mask"][..., None]
    out, hidden = apply(time, given), apply(time, given | {"tokens": jnp.where(shown, given["tokens"], 9.0)})
    np.testing.assert_array_equal(out, hidden)


def test_places_are_columns_then_rows():
    """A grid of 2 rows and 4 columns over 4 x 4 places, 8 channels: sin and cos of two frequencies, column first."""
    places = np.asarray(patch_places(2, 4, 8, 4))

    def waves(place):
        return [math.sin(place), math.sin(place / 100), math.cos(place), math.cos(place / 100)]

    for row in range(2):
        for column in range(4):
            np.testing.assert_allclose(places[row, column], waves(column) + waves(2 * row), atol=1e-6)


def test_places_of_mmdit_come_from_the_middle_of_a_table_that_is_not_trained(shaken):
    net = MM.clone(depth=1)
    (x, time), given = noisy(1, 8, 4), needed(net)
    params = shaken(net, x, time, **given)

    @jax.jit
    def run(table):
        def loss(params):
            out = net.apply({"params": params}, x, time, **given)
            return jnp.mean(out**2), out

        gradient, out = jax.grad(loss, has_aux=True)({**params, "place_table": table})
        return out, gradient["place_table"], gradient["patches"]["kernel"]

    table = params["place_table"]
    assert table.shape == (6, 6, 8)
    inside = np.zeros((6, 6, 1), bool)
    inside[1:5, 2:4] = True
    out, of_table, of_patches = run(table)
    np.testing.assert_array_equal(run(np.where(inside, table, np.float32(9)))[0], out)
    assert np.abs(run(table[::-1].copy())[0] - out).max() > 1e-3
    assert not of_table.any()
    assert of_patches.any()


def test_a_table_starts_with_waves():
    """Its 6 x 6 places span 2, those of a picture of 4 pixels: 192 span 64 in SD3."""
    x, time = noisy(1)
    table = jax.jit(lambda: MM.init(jax.random.key(0), x, time, **needed(MM))["params"]["place_table"])()
    np.testing.assert_allclose(table, patch_places(6, 6, 8, 2), atol=1e-6)
    assert table[0, 3, 0] == pytest.approx(math.sin(1.0))


def test_bfloat16_computes_and_float32_keeps(shaken, run):
    net = MM.clone(depth=1)
    (x, time), given = noisy(1), needed(net)
    half = net.clone(dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(abstract(half, **given))} == {jnp.dtype("float32")}
    params = shaken(net, x, time, **given)
    exact, found = (run(each, params, x, time, **given) for each in (net, half))
    assert found.dtype == jnp.float32
    assert 1e-4 < float(jnp.sqrt(jnp.mean((found - exact) ** 2) / jnp.mean(exact**2))) < 0.05


def test_remat_changes_memory_only(shaken):
    x, time = noisy(1)
    params = shaken(DIT, x, time)

    def gradient(net):
        return jax.jit(jax.grad(lambda params: jnp.mean(net.apply({"params": params}, x, time) ** 2)))

    plain, again = gradient(DIT), gradient(DIT.clone(remat=True))
    assert "remat" in str(again.trace(params).jaxpr)
    assert "remat" not in str(plain.trace(params).jaxpr)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-3), plain(params), again(params))


def test_fields_are_plain_values():
    known = {kind.__name__: kind for kind in (DiT, MMDiT)}
    for net in TOLD.values():
        assert decode(json.loads(json.dumps(encode(net, known))), known) == net


@pytest.mark.parametrize(
    ("net", "fields", "given", "message"),
    [
        (DIT, {"patch": 3}, {}, "image size 4x4 .* patch=3 need a multiple of 3"),
        (DIT, {"patch": 0}, {}, "patch=0: expected 1 or more"),
        (DIT, {"heads": 3}, {}, "heads=3 does not divide the 8 channels"),
        (DIT, {"width": 6}, {}, "width=6: expected a multiple of 4"),
        (DIT, {"dtype": "float16"}, {}, "dtype='float16' is not one of float32, bfloat16"),
        (DIT, {"in_channels": 1}, {}, "x has 2 channels, in_channels=1"),
        (DIT, {"num_classes": 4}, {}, "num_classes=4 and needs the condition 'label'"),
        (DIT, {}, {"label": jnp.zeros(1, int)}, "num_classes=0 and takes no condition 'label'"),
        (DIT, {"token_dim": 6}, {}, "token_dim=6 and needs the condition 'tokens'"),
        (DIT, {"token_dim": 6}, {"tokens": jnp.ones((1, 2, 5))}, "'tokens' is 5 wide, token_dim=6 expects 6"),
        (DIT, {}, {"token_mask": jnp.ones((1, 2), bool)}, "'token_mask' is given without 'tokens'"),
        (DIT, {"vector_dim": 6}, {}, "vector_dim=6 and needs the condition 'vector'"),
        (MM, {"token_dim": 0}, {"vector": jnp.ones((1, 7))}, "token_dim=0: expected 1 or more"),
        (MM, {"max_places": 1}, needed(MM), "a picture of 2x2 patches, but max_places=1"),
        (MM, {"dual_blocks": (0, 2)}, needed(MM), "dual_blocks has 2, but depth=2 has blocks 0 to 1"),
    ],
)
def test_what_is_wrong_is_named(net, fields, given, message):
    with pytest.raises(ValueError, match=message) as caught:
        abstract(net.clone(**fields), **given)
    assert "\n" not in str(caught.value)
