"""DALL-E's transformer: what every logit depends on, the tokens of padding, and that a cache changes no number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.nets.dalle import Dalle, own_padding
from flaxgen.nets.sparse_mask import layer_kinds, sparse_mask
from flaxgen.tokens.sampling import make_choice, sample_codes

TEXT, ROWS, COLUMNS, COUNT = 4, 3, 3, 9
SIZES = {"text_tokens": 6, "context": TEXT, "rows": ROWS, "columns": COLUMNS, "codes": 5}
TINY = Dalle(**SIZES, width=8, depth=5, heads=2, conv_size=3)
SHORT = TINY.clone(depth=1, attention="full")
LENGTHS = jnp.array([4, 2, 1])


@pytest.fixture(scope="module")
def given():
    """The caption, its mask and the codes of three examples; the captions differ in length."""
    keys = jax.random.split(jax.random.key(0))
    text = jax.random.randint(keys[0], (3, TEXT), 0, 6)
    codes = jax.random.randint(keys[1], (3, ROWS, COLUMNS), 0, 5)
    return {"text": text, "text_mask": jnp.arange(TEXT)[None] < LENGTHS[:, None], "codes": codes}


@pytest.fixture(scope="module")
def params(shaken, given):
    return shaken(TINY, **given)


@pytest.fixture(scope="module")
def full(run, params, given):
    return run(TINY, params, **given)


def flat(outputs):
    """All logits in the order of the sequence, without the place that predicts nothing, as lists of [B, logits]."""
    text, codes = outputs
    return [*jnp.moveaxis(text, 1, 0), *jnp.moveaxis(codes.reshape(3, COUNT, -1), 1, 0)]


def moved(one, other):
    return np.array([np.abs(a - b).max() for a, b in zip(flat(one), flat(other), strict=True)])


def reachable():
    """Which places of the sequence reach the one of every logit through all layers: products of the masks."""
    places = jnp.arange(TEXT + COUNT)
    reach = np.eye(TEXT + COUNT, dtype=bool)
    for kind in layer_kinds(TINY.depth):
        reach = np.asarray(sparse_mask(kind, places, TEXT, ROWS, COLUMNS, 3)[0, 0]).astype(int) @ reach > 0
    return reach


def test_logits_follow_what_the_masks_let_through(run, params, given, full):
    text, codes = full
    assert text.shape == (3, TEXT - 1, 6 + TEXT)
    assert codes.shape == (3, ROWS, COLUMNS, 5)
    reach = np.delete(reachable(), TEXT - 1, axis=0)
    for place in range(TEXT):
        other = given | {"text": given["text"].at[0, place].add(1) % 6}
        np.testing.assert_array_equal(moved(run(TINY, params, **other), full) > 1e-5, reach[:, place])
    for place in range(COUNT):
        row, column = divmod(place, COLUMNS)
        other = given | {"codes": given["codes"].at[:, row, column].add(1) % 5}
        expected = reach[:, TEXT + 1 + place] if place < COUNT - 1 else np.zeros(len(reach), bool)
        np.testing.assert_array_equal(moved(run(TINY, params, **other), full) > 1e-5, expected)


def test_padding_is_a_token_of_its_own_at_every_place(run, params, given, full):
    text, mask = given["text"], given["text_mask"]
    found = own_padding(text, mask, 6)
    assert found[0].tolist() == text[0].tolist()
    assert found[1].tolist() == [*text[1, :2].tolist(), 8, 9]
    assert found[2, 1:].tolist() == [7, 8, 9]
    ignored = run(TINY, params, **given | {"text": jnp.where(mask, text, (text + 1) % 6)})
    jax.tree.map(np.testing.assert_array_equal, ignored, full)
    table = params["text_in"]["embedding"]
    for place in range(TEXT):
        other = {**params, "text_in": {"embedding": jnp.asarray(table).at[6 + place].multiply(-1.0)}}
        text_logits, codes = run(TINY, other, **given)
        padded = ~np.asarray(mask[:, place])
        changed = np.abs(codes - full[1]).max((1, 2, 3)) > 1e-5
        np.testing.assert_array_equal(changed, padded)
        assert not np.abs(text_logits - full[0])[:, :place].any()


def test_rows_columns_and_positions_are_read(run, params, given, full):
    for name, size in (("row", ROWS), ("column", COLUMNS), ("text_position", TEXT)):
        other = {**params, name: {"embedding": params[name]["embedding"][np.roll(np.arange(size), 1)]}}
        assert np.abs(run(TINY, other, **given)[1] - full[1]).max() > 1e-3
    swapped = {**params, "row": params["column"], "column": params["row"]}
    np.testing.assert_array_less(1e-3, np.abs(run(TINY, swapped, **given)[1] - full[1]).max())


def cached(net, params, given, known):
    """The code logits from the first on that is not known, drawn with the true codes, in one program."""
    codes = given["codes"].reshape(3, -1)

    @jax.jit
    def run(params):
        text = given["text"], given["text_mask"]
        first, caches = net.apply({"params": params}, *text, codes[:, :known], method="start")

        def body(caches, place):
            code = jax.lax.dynamic_index_in_dim(codes, place, 1, keepdims=False)
            logits, caches = net.apply({"params": params}, code, place, caches, method="step")
            return caches, logits

        rest = jax.lax.scan(body, caches, jnp.arange(known, COUNT - 1))[1]
        return jnp.concatenate((first[:, None], jnp.moveaxis(rest, 0, 1)), axis=1)

    return run(params)


@pytest.mark.parametrize("known", [0, 4])
def test_with_a_cache_the_logits_are_the_same(known, params, given, full):
    expected = full[1].reshape(3, COUNT, -1)[:, known:]
    np.testing.assert_allclose(cached(TINY, params, given, known), expected, atol=1e-5)


@pytest.mark.parametrize("net", [SHORT, SHORT.clone(dtype="bfloat16")], ids=["full", "bfloat16"])
def test_the_cache_of_full_attention_and_of_bfloat16(net, run, shaken, given):
    params = shaken(net, **given)
    expected = run(net, params, **given)[1].reshape(3, COUNT, -1)
    assert expected.dtype == jnp.float32
    np.testing.assert_allclose(cached(net, params, given, 0), expected, atol=1e-5 if net is SHORT else 0.05)


def test_codes_drawn_cold_are_the_likeliest_and_known_ones_stay(run, params, given):
    known = given["codes"].reshape(3, -1)[:, :COLUMNS]

    @jax.jit
    def draw():
        def step(code, place, caches):
            return TINY.apply({"params": params}, code, COLUMNS + place, caches, method="step")

        start = TINY.apply({"params": params}, given["text"], given["text_mask"], known, method="start")
        return sample_codes(start, step, COUNT - COLUMNS, jax.random.split(jax.random.key(3), 3), make_choice(0.0))

    whole = jnp.concatenate((known, draw()), axis=1).reshape(3, ROWS, COLUMNS)
    logits = run(TINY, params, **given | {"codes": whole})[1]
    np.testing.assert_array_equal(logits.argmax(-1)[:, 1:], whole[:, 1:])


def test_remat_changes_memory_only_and_a_start_knows_nothing(given):
    net = SHORT.clone(remat=True)
    made = jax.jit(net.init)(jax.random.key(0), **given)
    assert not any(np.any(logits) for logits in jax.jit(net.apply)(made, **given))
    for other in (net, SHORT):
        traced = jax.make_jaxpr(lambda net=other: net.apply(made, **given))()
        assert ("remat" in str(traced)) == other.remat


def test_the_papers_size():
    """12 billion [Ramesh21, abstract]; blocks are alike, so that two nets tell the size of all 64."""

    def count(depth):
        text, codes = jnp.zeros((1, 256), int), jnp.zeros((1, 32, 32), int)
        made = jax.eval_shape(lambda: Dalle(depth=depth).init(jax.random.key(0), text, text == 0, codes))
        return sum(leaf.size for leaf in jax.tree.leaves(made))

    assert count(1) + 63 * (count(2) - count(1)) == pytest.approx(12e9, rel=0.03)


@pytest.mark.parametrize(
    ("fields", "inputs", "message"),
    [
        ({"attention": "dense"}, {}, "attention='dense' is not one of sparse, full"),
        ({"dtype": "half"}, {}, "dtype='half' is not one of float32, bfloat16"),
        ({"conv_size": 4}, {}, "conv_size=4: expected an odd number"),
        ({"codes": 0}, {}, "codes=0: expected 1 or more"),
        ({}, {"codes": jnp.zeros((3, 2, 3), int)}, "codes of 2 x 3, expected 3 x 3"),
        (
            {},
            {"text": jnp.zeros((3, 5), int), "text_mask": jnp.ones((3, 5), bool)},
            "5 places, expected context=4",
        ),
    ],
)
def test_what_is_wrong_is_named(fields, inputs, message, given):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: SHORT.clone(**fields).init(jax.random.key(0), **given | inputs))


def test_a_map_that_is_known_whole_leaves_nothing_to_draw(params, given):
    codes = given["codes"].reshape(3, -1)
    with pytest.raises(ValueError, match="9 codes are known, expected less than 3 x 3"):
        TINY.apply({"params": params}, given["text"], given["text_mask"], codes, method="start")
