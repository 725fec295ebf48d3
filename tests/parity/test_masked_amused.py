"""Filling in codes round by round beside diffusers' AmusedScheduler: the same places are masked after every round."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.tokens.masked import Rounds, fill_in
from flaxgen.tokens.sampling import Known, make_choice

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

pytestmark = pytest.mark.parity

PLACES, CODES = 64, 5
LOGITS = np.random.default_rng(0).normal(0, 2, (1, PLACES, CODES)).astype(np.float32)


# not 12 steps: of 64 cos(pi / 3) = 32 places theirs keeps 31, as float32 rounds the product down
@pytest.mark.parametrize(("steps", "unknown"), [(8, 64), (11, 64), (10, 48)])
def test_rounds_mask_what_theirs_mask(steps, unknown, monkeypatch):
    """Both take the likeliest codes and no noise, so that only what stays masked is compared."""
    monkeypatch.setattr(torch, "multinomial", lambda p, num, generator: p.argmax(-1, keepdim=True))
    seen = []

    def predict(codes):
        jax.debug.callback(lambda codes: seen.append(np.asarray(codes[0])), codes, ordered=True)
        return jnp.asarray(LOGITS)

    known = Known(jnp.full((1, PLACES), 3), (jnp.arange(PLACES) >= unknown)[None])
    rounds = Rounds(PLACES, CODES, steps, noise=0.0)
    drawn = jax.jit(lambda keys: fill_in(predict, rounds, keys, make_choice(0.0), known))(
        jax.random.split(jax.random.key(0), 1)
    )
    jax.effects_barrier()
    scheduler = diffusers.AmusedScheduler(mask_token_id=CODES)
    scheduler.set_timesteps(steps, temperature=(0, 0))
    sample = torch.tensor(seen[0][None].astype(np.int64))
    for timestep, ours in zip(scheduler.timesteps, [*seen[1:], np.asarray(drawn[0])], strict=True):
        sample = scheduler.step(torch.tensor(LOGITS), timestep, sample, unknown / PLACES).prev_sample
        np.testing.assert_array_equal(sample[0].numpy(), ours)
