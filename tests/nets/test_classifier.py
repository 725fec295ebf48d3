"""The noisy classifier."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.nets.classifier import AttentionPool, NoisyClassifier

TINY = NoisyClassifier(
    5, image_size=8, channels=8, multipliers=(1, 2), depth=1, attention_resolutions=(4,), head_channels=8, norm_groups=4
)


def test_parameters_of_the_paper():
    """The 64 px ImageNet classifier of ADM has 65M parameters [Dhariwal21, table 12]."""
    x, t = jnp.zeros((1, 64, 64, 3)), jnp.zeros(1)
    params = jax.eval_shape(lambda: NoisyClassifier(1000).init(jax.random.key(0), x, t))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == pytest.approx(65e6, rel=0.02)


def test_a_batch_is_its_examples(shaken):
    """Logits and the gradient that guides depend on an example's own picture and time."""
    x, t = jax.random.normal(jax.random.key(0), (3, 8, 8, 3)), jnp.array([0.0, 500.0, 999.0])
    params = shaken(TINY, x, t)

    def total(x, t):
        logits = jnp.asarray(TINY.apply({"params": params}, x, t))
        return logits[:, 2].sum(), logits

    guide = jax.jit(jax.grad(total, has_aux=True))
    gradient, logits = guide(x, t)
    assert logits.shape == (3, 5)
    changed, changed_logits = guide(x.at[1].add(1.0), t.at[2].set(0.0))
    np.testing.assert_allclose(changed_logits[0], logits[0], atol=1e-5)
    np.testing.assert_allclose(changed[0], gradient[0], atol=1e-5)
    for i in (1, 2):
        assert np.abs(changed_logits[i] - logits[i]).max() > 1e-3
        assert np.abs(gradient[i]).max() > 1e-4


def test_attention_pool_by_hand(shaken, run):
    """One query, of the mean pixel, over the mean and all pixels, each at its place."""
    x = jax.random.normal(jax.random.key(0), (1, 2, 2, 6))
    pool = AttentionPool(3, head_channels=6)
    params = shaken(pool, x)
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    pixels = np.asarray(x, np.float64).reshape(4, 6)
    tokens = np.concatenate((pixels.mean(0, keepdims=True), pixels)) + p["positions"]
    query, key, value = (tokens @ p[n]["kernel"] + p[n]["bias"] for n in ("query", "key", "value"))
    weights = np.exp(query[0] @ key.T / np.sqrt(6))
    expected = weights / weights.sum() @ value @ p["out"]["kernel"] + p["out"]["bias"]
    np.testing.assert_allclose(run(pool, params, x)[0], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"channels": 0}, "channels=0: expected 1 or more"),
        ({"norm_groups": 0}, "norm_groups=0: expected 1 or more"),
        ({"multipliers": ()}, r"multipliers=\(\): expected levels"),
    ],
)
def test_sizes_that_are_none_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: TINY.clone(**fields).init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), jnp.zeros(1)))


@pytest.mark.parametrize("shape", [(1, 4, 4, 3), (1, 8, 8, 1)])
def test_pictures_of_another_size_are_named(shape):
    with pytest.raises(ValueError, match="this classifier is for pictures of 8x8x3, got"):
        jax.eval_shape(lambda: TINY.init(jax.random.key(0), jnp.zeros(shape), jnp.zeros(1)))
