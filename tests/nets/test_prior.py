"""Both priors: what they read and what not, and that a cache changes no number. diffusers' numbers: tests/parity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.nets.ar_prior import ARPrior
from flaxgen.nets.prior import DiffusionPrior
from flaxgen.tokens.sampling import make_choice, sample_codes

SIZES = {"embedding_dim": 6, "text_dim": 5, "context": 4, "width": 8, "depth": 2, "heads": 2}
TINY = DiffusionPrior(**SIZES)
AR = ARPrior(dims=5, buckets=7, dot_buckets=3, **SIZES)
LENGTHS = jnp.array([4, 2, 1])


@pytest.fixture(scope="module")
def text():
    """The conditions of three captions of different lengths."""
    embedding_key, hidden_key = jax.random.split(jax.random.key(0))
    return {
        "text_embedding": jax.random.normal(embedding_key, (3, 6)),
        "text_hidden": jax.random.normal(hidden_key, (3, 4, 5)),
        "text_mask": jnp.arange(4)[None] < LENGTHS[:, None],
    }


@pytest.fixture(scope="module")
def noisy():
    return {"x": jax.random.normal(jax.random.key(1), (3, 6)), "time": jnp.array([0.0, 417.0, 999.0])}


@pytest.fixture(scope="module")
def codes():
    return {"codes": jax.random.randint(jax.random.key(2), (3, 5), 0, 7), "dot_code": jnp.array([0, 1, 2])}


@pytest.fixture(scope="module")
def params(shaken, noisy, text):
    return shaken(TINY, **noisy, **text)


@pytest.fixture(scope="module")
def ar_params(shaken, codes, text):
    return shaken(AR, **codes, **text)


def test_a_batch_is_its_examples(run, params, noisy, text):
    inputs = noisy | text
    batched = run(TINY, params, **inputs)
    assert batched.shape == (3, 6)
    one = jax.jit(jax.vmap(lambda row: run(TINY, params, **jax.tree.map(lambda leaf: leaf[None], row))[0]))
    np.testing.assert_allclose(one(inputs), batched, atol=1e-5)


@pytest.mark.parametrize("name", ["x", "time", "text_embedding"])
def test_every_input_is_read(name, run, params, noisy, text):
    inputs = noisy | text
    moved = run(TINY, params, **inputs | {name: inputs[name][::-1]}) - run(TINY, params, **inputs)
    assert (np.abs(moved)[[0, 2]].max(-1) > 1e-3).all()


@pytest.mark.parametrize("net", [TINY, AR], ids=["diffusion", "autoregressive"])
def test_the_caption_is_read_and_its_padding_is_not(net, run, params, ar_params, noisy, codes, text):
    given, inputs = (params, noisy) if net is TINY else (ar_params, codes)
    out = run(net, given, **inputs, **text)
    for place in range(4):
        hidden = text["text_hidden"].at[:, place].multiply(-1.0)
        moved = np.abs(run(net, given, **inputs, **text | {"text_hidden": hidden}) - out)
        moved = moved.reshape(3, -1).max(-1)
        assert not moved[place >= LENGTHS].any()
        assert (moved[place < LENGTHS] > 1e-4).all()


def test_both_start_where_all_captions_are_alike(noisy, codes, text):
    for net, inputs in ((TINY, noisy), (AR, codes)):
        out, made = jax.jit(net.clone(depth=0).init_with_output)(jax.random.key(0), **inputs, **text)
        assert not np.any(out)
        assert np.any(made["params"]["positions"])


@pytest.mark.parametrize("net", [TINY, AR], ids=["diffusion", "autoregressive"])
def test_bfloat16_and_remat_change_rounding_and_memory_only(net, run, params, ar_params, noisy, codes, text):
    given, inputs = (params, noisy) if net is TINY else (ar_params, codes)
    out, half = (run(n, given, **inputs, **text) for n in (net, net.clone(dtype="bfloat16")))
    assert half.dtype == jnp.float32
    assert 0 < np.abs(half - out).max() < 0.1 * np.abs(out).max()
    for remat in (False, True):
        traced = jax.make_jaxpr(lambda: net.clone(remat=remat).apply({"params": given}, **inputs, **text))()  # noqa: B023
        assert ("remat" in str(traced)) == remat


def test_a_code_depends_on_those_before_it_alone(run, ar_params, codes, text):
    logits = run(AR, ar_params, **codes, **text)
    assert logits.shape == (3, 5, 7)
    for place in range(5):
        changed = codes | {"codes": codes["codes"].at[:, place].add(1) % 7}
        moved = np.abs(run(AR, ar_params, **changed, **text) - logits).max((0, 2))
        assert not moved[: place + 1].any()
        assert (moved[place + 1 :] > 1e-4).all()
    moved = np.abs(run(AR, ar_params, **codes | {"dot_code": jnp.array([1, 2, 0])}, **text) - logits)
    assert (moved.max(-1) > 1e-4).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_with_a_cache_the_logits_are_the_same(dtype, run, ar_params, codes, text):
    net, variables = AR.clone(dtype=dtype), {"params": ar_params}
    step = jax.jit(lambda *inputs: net.apply(variables, *inputs, method="step"))
    logits, caches = jax.jit(lambda: net.apply(variables, codes["dot_code"], method="start", **text))()
    found = [logits]
    for place in range(4):
        logits, caches = step(codes["codes"][:, place], place, caches, text["text_mask"])
        found.append(logits)
    full = run(net, ar_params, **codes, **text)
    np.testing.assert_allclose(jnp.stack(found, 1), full, atol=1e-5 if dtype == "float32" else 0.05)


def test_codes_drawn_cold_are_the_likeliest_of_the_full_forward(run, ar_params, codes, text):
    def draw():
        def step(code, place, caches):
            return AR.apply({"params": ar_params}, code, place, caches, text["text_mask"], method="step")

        start = AR.apply({"params": ar_params}, codes["dot_code"], method="start", **text)
        return sample_codes(start, step, AR.dims, jax.random.split(jax.random.key(3), 3), make_choice(0.0))

    drawn = jax.jit(draw)()
    logits = run(AR, ar_params, drawn, codes["dot_code"], **text)
    np.testing.assert_array_equal(logits.argmax(-1), drawn)
    assert len({tuple(row.tolist()) for row in drawn}) == 3


@pytest.mark.parametrize(
    ("net", "given", "message"),
    [
        (TINY, {"x": jnp.ones((3, 7)), "text_embedding": jnp.ones((3, 7))}, "'x' is 7 wide, embedding_dim=6"),
        (TINY, {"text_hidden": jnp.ones((3, 4, 6))}, "'text_hidden' is 6 wide, text_dim=5"),
        (
            TINY,
            {"text_hidden": jnp.ones((3, 3, 5)), "text_mask": jnp.ones((3, 3), bool)},
            "3 places, expected context=4",
        ),
        (TINY.clone(dtype="half"), {}, "dtype='half' is not one of float32, bfloat16"),
        (AR, {"text_embedding": jnp.ones((3, 5))}, "'text_embedding' is 5 wide, embedding_dim=6"),
        (AR, {"codes": jnp.ones((3, 4), int)}, "4 codes an example, dims=5"),
    ],
)
def test_what_is_wrong_is_named(net, given, message, noisy, codes, text):
    inputs = (codes if isinstance(net, ARPrior) else noisy) | text | given
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: net.init(jax.random.key(0), **inputs))
