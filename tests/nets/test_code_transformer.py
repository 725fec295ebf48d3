"""Transformers over codes: a cache changes no number, and what is masked is read from all sides."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.nets.code_transformer import CodeTransformer, MaskedCodeTransformer

SIZES = {"height": 2, "width": 3, "codes": 5, "features": 8, "depth": 2, "heads": 2}
CAUSAL = CodeTransformer(**SIZES, num_classes=3)
MASKED = MaskedCodeTransformer(**SIZES, num_classes=3)
CODES = jax.random.randint(jax.random.key(0), (2, 2, 3), 0, 5)
LABELS = jnp.array([0, 2])


@pytest.mark.parametrize(
    ("labels", "dtype"),
    [(LABELS, "float32"), (LABELS, "bfloat16"), (None, "float32")],
    ids=["labels", "bfloat16", "no labels"],
)
def test_with_a_cache_the_logits_are_the_same(labels, dtype, run, shaken):
    net = CAUSAL.clone(dtype=dtype, num_classes=0 if labels is None else 3)
    params = shaken(net, CODES, labels)
    step = jax.jit(lambda *inputs: net.apply({"params": params}, *inputs, method="step"))
    logits, caches = jax.jit(lambda: net.apply({"params": params}, labels, batch=2, method="start"))()
    found, flat = [logits], CODES.reshape(2, 6)
    for place in range(5):
        logits, caches = step(flat[:, place], place, caches)
        found.append(logits)
    full = run(net, params, CODES, labels).reshape(2, 6, 5)
    np.testing.assert_allclose(jnp.stack(found, 1), full, atol=1e-5 if dtype == "float32" else 0.05)


def test_rows_and_columns_are_told_apart(run, shaken):
    """Equal codes everywhere: only the places differ, and with them the logits."""
    same = jnp.full((1, 2, 3), MASKED.codes)
    logits = run(MASKED, shaken(MASKED, same, LABELS[:1]), same, LABELS[:1]).reshape(6, 5)
    apart = np.abs(logits[:, None] - logits[None]).max(-1)
    assert (apart[~np.eye(6, dtype=bool)] > 1e-3).all()


def test_what_is_masked_is_filled_in_from_all_sides(run, shaken):
    params = shaken(MASKED, CODES, LABELS)
    every = jnp.repeat(CODES[:1], 7, axis=0).reshape(7, 6)
    every = every.at[jnp.arange(6), jnp.arange(6)].set(MASKED.codes).reshape(7, 2, 3)
    logits = run(MASKED, params, every, jnp.zeros(7, int)).reshape(7, 6, 5)
    assert (np.abs(logits[:6] - logits[6:]).max(-1) > 1e-5).all()


def test_dropout_is_for_training(shaken):
    net = MASKED.clone(dropout=0.5)
    params = shaken(net, CODES, LABELS)
    draw = jax.jit(lambda key: net.apply({"params": params}, CODES, LABELS, train=True, rngs={"dropout": key}))
    one, other = draw(jax.random.key(0)), draw(jax.random.key(1))
    assert np.abs(one - other).max() > 1e-3


def test_both_begin_with_all_codes_alike():
    for net in (CAUSAL, MASKED):
        out, made = jax.jit(net.clone(depth=0).init_with_output)(jax.random.key(0), CODES, LABELS)
        assert not np.any(out)
        assert made["params"]["tokens"]["code"]["embedding"].shape[0] == net.codes + (net is MASKED)
