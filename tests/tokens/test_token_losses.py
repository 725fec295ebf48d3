"""The loss of text and codes beside sums that are written out."""

import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.tokens.losses import joint_loss, nats_per_token

LOGITS = np.random.default_rng(0).normal(0, 2, (2, 3, 5)).astype(np.float32)
TOKENS = jnp.array([[0, 4, 2], [1, 1, 3]])


def test_nats_are_the_mean_of_minus_log_softmax():
    rows = [(LOGITS[i, j].astype(np.float64), int(TOKENS[i, j])) for i in range(2) for j in range(3)]
    expected = np.mean([np.log(np.exp(row).sum()) - row[token] for row, token in rows])
    assert float(nats_per_token(jnp.asarray(LOGITS), TOKENS)) == pytest.approx(expected, abs=1e-6)
    assert float(nats_per_token(jnp.zeros((4, 7)), jnp.arange(4))) == pytest.approx(np.log(7), abs=1e-6)


def test_text_is_an_eighth_whatever_its_length():
    assert float(joint_loss(jnp.array(8.0), jnp.array(16.0))) == 1 + 14
    assert float(joint_loss(jnp.array(8.0), jnp.array(16.0), text_weight=0.0)) == 16
