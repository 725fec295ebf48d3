"""dalle-mini's BART: its numbers beside float64 ones, who reads whom, and that a cache changes no number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from flaxgen.nets.dalle_mini import DalleMini
from flaxgen.tokens.sampling import make_choice, sample_codes

CONTEXT, LENGTH, CODES, HEADS = 4, 6, 5, 2
TINY = DalleMini(
    text_tokens=7, context=CONTEXT, codes=CODES, length=LENGTH, begin=CODES, width=8, depth=2, heads=HEADS, inner=6
)
LENGTHS = jnp.array([4, 2, 1])


@pytest.fixture(scope="module")
def given():
    """The caption, its mask and the codes of three examples; the captions differ in length."""
    keys = jax.random.split(jax.random.key(0))
    return {
        "text": jax.random.randint(keys[0], (3, CONTEXT), 0, 7),
        "text_mask": jnp.arange(CONTEXT)[None] < LENGTHS[:, None],
        "codes": jax.random.randint(keys[1], (3, LENGTH), 0, CODES),
    }


@pytest.fixture(scope="module")
def params(shaken, given):
    return shaken(TINY, **given)


@pytest.fixture(scope="module")
def full(run, params, given):
    return run(TINY, params, **given)


def norm(x, p):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * p.get("scale", 1.0) + p["bias"]


def attend(x, read, p, allowed):
    """One sequence [T W] reads another [S W] where `allowed` [T S]; head by head and place by place."""
    query, key, value = (y @ p[name]["kernel"] for name, y in (("query", x), ("key", read), ("value", read)))
    out = np.zeros_like(x)
    for part in np.split(np.arange(x.shape[1]), HEADS):
        for t in range(len(x)):
            places = np.flatnonzero(allowed[t])
            weights = np.exp(key[places][:, part] @ query[t, part] / np.sqrt(len(part)))
            out[t, part] = weights / weights.sum() @ value[places][:, part]
    return out @ p["out"]["kernel"]


def half(tokens, p, allowed, text=None, readable=None):
    """The encoder, or with a `text` to read the decoder, of one sequence without a batch."""
    x = norm(p["token"]["embedding"][tokens] + p["position"]["embedding"][: len(tokens)], p["norm_in"])
    for i in range(TINY.depth):
        b = p[f"block_{i}"]
        y = norm(x, b["norm_in"])
        x = x + norm(attend(y, y, b["attention"], allowed), b["norm_out"])
        if text is not None:
            read = attend(norm(x, b["cross_norm_in"]), text, b["cross_attention"], readable)
            x = x + norm(read, b["cross_norm_out"])
        m = b["mlp"]
        y = norm(x, m["norm_in"])
        gate = y @ m["gate"]["kernel"]
        h = gate * (1 + erf(gate / np.sqrt(2))) / 2 * (y @ m["value"]["kernel"])
        x = x + norm(h, m["norm_out"]) @ m["out"]["kernel"]
    return norm(x, p["norm_out"])


def by_hand(text, mask, codes, p):
    """The logits of one example, in float64."""
    encoded = half(text, p["encoder"], np.tile(mask, (CONTEXT, 1)))
    before = np.concatenate(([TINY.begin], codes[:-1]))
    h = half(before, p["decoder"], np.tri(LENGTH, dtype=bool), encoded, np.tile(mask, (LENGTH, 1)))
    return h @ p["out"]["kernel"]


def test_the_numbers_are_those_of_the_formulas(params, given, full):
    wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    rows = zip(*(np.asarray(given[name]) for name in ("text", "text_mask", "codes")), strict=True)
    expected = np.stack([by_hand(*row, wide) for row in rows])
    assert full.shape == expected.shape == (3, LENGTH, CODES + 1)
    np.testing.assert_allclose(full, expected, atol=1e-5)


def test_nothing_reads_padding_or_what_is_to_come(run, params, given, full):
    for place in range(CONTEXT):
        other = given | {"text": given["text"].at[:, place].add(1) % 7}
        moved = np.abs(run(TINY, params, **other) - full).max((1, 2)) > 1e-5
        np.testing.assert_array_equal(moved, place < LENGTHS)
    for place in range(LENGTH):
        other = given | {"codes": given["codes"].at[:, place].add(1) % CODES}
        moved = np.abs(run(TINY, params, **other) - full).max((0, 2))
        assert not moved[: place + 1].any()
        assert (moved[place + 1 :] > 1e-5).all()


def cached(net, params, given, known):
    """The logits from the first code on that is not known, drawn with the true codes, in one program."""

    @jax.jit
    def run(params):
        variables, codes = {"params": params}, given["codes"]
        encoded = net.apply(variables, given["text"], given["text_mask"], method="encode")
        first, memory = net.apply(variables, encoded, given["text_mask"], codes[:, :known], method="start")

        def body(memory, place):
            code = jax.lax.dynamic_index_in_dim(codes, place, 1, keepdims=False)
            logits, memory = net.apply(variables, code, place, memory, method="step")
            return memory, logits

        rest = jax.lax.scan(body, memory, jnp.arange(known, LENGTH - 1))[1]
        return jnp.concatenate((first[:, None], jnp.moveaxis(rest, 0, 1)), axis=1)

    return run(params)


@pytest.mark.parametrize("known", [0, 3])
def test_with_a_cache_the_logits_are_the_same(known, params, given, full):
    np.testing.assert_allclose(cached(TINY, params, given, known), full[:, known:], atol=1e-5)


def test_bfloat16_rounds_alike_with_a_cache(run, params, given, full):
    net = TINY.clone(dtype="bfloat16")
    half = run(net, params, **given)
    assert half.dtype == jnp.float32
    assert 0 < np.abs(half - full).max() < 0.1 * np.abs(full).max()
    np.testing.assert_allclose(cached(net, params, given, 0), half, atol=0.1)


def test_codes_drawn_cold_are_the_likeliest_of_the_full_forward(run, params, given):
    @jax.jit
    def draw():
        variables, text = {"params": params}, (given["text"], given["text_mask"])
        start = TINY.apply(variables, TINY.apply(variables, *text, method="encode"), text[1], method="start")

        def step(code, place, memory):
            return TINY.apply(variables, code, place, memory, method="step")

        return sample_codes(start, step, LENGTH, jax.random.split(jax.random.key(3), 3), make_choice(0.0))

    drawn = draw()
    np.testing.assert_array_equal(run(TINY, params, **given | {"codes": drawn}).argmax(-1), drawn)


def test_scaled_embeddings_are_larger_tokens(run, params, given):
    """What the root of the width multiplies can stand in the table instead."""
    table = {name: params[name]["token"]["embedding"] * np.float32(8**0.5) for name in ("encoder", "decoder")}
    larger = {**params, **{name: {**params[name], "token": {"embedding": table[name]}} for name in table}}
    scaled = run(TINY.clone(scale_embedding=True), params, **given)
    np.testing.assert_allclose(scaled, run(TINY, larger, **given), atol=1e-5)


def test_remat_changes_memory_only_and_a_start_knows_nothing(given):
    net = TINY.clone(depth=1, remat=True)
    made = jax.jit(net.init)(jax.random.key(0), **given)
    assert not np.any(jax.jit(net.apply)(made, **given))
    for other in (net, net.clone(remat=False)):
        traced = jax.make_jaxpr(lambda net=other: net.apply(made, **given))()
        assert ("remat" in str(traced)) == other.remat


@pytest.mark.parametrize(
    ("fields", "inputs", "message"),
    [
        ({"dtype": "half"}, {}, "dtype='half' is not one of float32, bfloat16"),
        ({"activation": "relu"}, {}, "activation='relu' is not one of silu"),
        ({"begin": 6}, {}, "begin=6: expected one of the 5 codes"),
        ({"heads": 3}, {}, "heads=3 does not divide the 8"),
        ({"inner": 0}, {}, "inner=0: expected 1 or more"),
        ({}, {"codes": jnp.zeros((3, 5), int)}, "5 codes an example, length=6"),
        ({}, {"text": jnp.zeros((3, 5), int), "text_mask": jnp.ones((3, 5), bool)}, "5 places, expected context=4"),
    ],
)
def test_what_is_wrong_is_named(fields, inputs, message, given):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: TINY.clone(**fields).init(jax.random.key(0), **given | inputs))


def test_a_picture_that_is_known_whole_leaves_nothing_to_draw(params, given):
    with pytest.raises(ValueError, match="6 codes are known, expected less than length=6"):
        TINY.apply({"params": params}, jnp.zeros((3, 4, 8)), given["text_mask"], given["codes"], method="start")
