"""MaskGIT [Chang22]: what is masked in training, and filling in all codes in a few rounds."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from flaxgen.tokens.sampling import Choose, Known, Predict
from flaxgen.types import Keys, PRNGKey, Scalar


def draw_masks(keys: Keys, places: int, least: Scalar = 0.5) -> Bool[Array, "B {places}"]:
    """True at what a net is to predict: the share max(cos(pi r / 2), least) of the places, with r uniform in [0, 1),
    rounded up and at least one; any places alike [Chang22, sec. 3.1]."""

    def draw(key):
        rate_key, place_key = jax.random.split(key)
        rate = jnp.maximum(jnp.cos(jax.random.uniform(rate_key) * math.pi / 2), least)
        order = jax.random.permutation(place_key, places)
        return order < jnp.clip(jnp.ceil(rate * places), 1, places)

    return jax.vmap(draw)(keys)


def masked_loss(
    logits: Float[Array, "B L K"], codes: Int[Array, "B L"], mask: Bool[Array, "B L"], smoothing: Scalar = 0.1
) -> Float[Array, " B"]:
    """Cross-entropy in nats, the mean over the masked places of an example [Chang22, eq. 1]; `smoothing` is the share
    of the target that all codes have alike [Szegedy16, sec. 7]."""
    log_probs = jax.nn.log_softmax(logits)
    target = jnp.take_along_axis(log_probs, codes[..., None], axis=-1)[..., 0]
    losses = -(1 - smoothing) * target - smoothing * jnp.mean(log_probs, axis=-1)
    return jnp.sum(losses * mask, axis=1) / jnp.maximum(jnp.sum(mask, axis=1), 1)


class Rounds(NamedTuple):
    """How `fill_in` goes on: `places` codes out of 0 .. `codes` - 1, in `steps` rounds.

    `noise` times Gumbel noise is added to the confidence in what was drawn, less from round to round: it is scaled by
    the share of rounds that are still to come. The paper's code calls it the choice temperature.
    """

    places: int
    codes: int
    steps: int = 12
    noise: Scalar = 4.5


def masked_counts(places: int, steps: int) -> Int[np.ndarray, "{steps} {places}+1"]:
    """[i, m]: how many of m places that were masked at first are masked after round i.

    It is floor(m cos(pi (i + 1) / (2 steps))) [Chang22, sec. 3.2 and 3.3], but one at least is filled in each round and
    one at least is left to the next, while there are any; the last round leaves none.

    Raises:
        ValueError: if there are no steps.
    """
    if steps < 1:
        raise ValueError(f"codes are to be filled in in {steps} rounds, expected 1 or more")
    left, counts = np.arange(places + 1), []
    for i in range(1, steps):
        scheduled = np.floor(np.arange(places + 1) * math.cos(math.pi * i / (2 * steps)) + 1e-9)
        left = np.minimum(np.maximum(np.minimum(scheduled, left - 1), 1), left).astype(int)
        counts.append(left)
    return np.stack((*counts, np.zeros(places + 1, int)))


def fill_in(
    predict: Predict, rounds: Rounds, keys: Keys, choose: Choose, known: Known | None = None
) -> Int[Array, "B L"]:
    """All codes of an example, each drawn given those that earlier rounds were most confident of [Chang22, sec. 3.2].

    `predict` reads `rounds.codes` where a code is masked. In every round all masked places draw by `choose`, and those
    whose code is least probable under the logits, but for the noise, are masked again. Known codes stay as they are,
    and are read from the first round on. An example depends on its own key alone.

    Raises:
        ValueError: if there are no steps.
    """
    codes = jnp.full((keys.shape[0], rounds.places), rounds.codes, jnp.int32)
    if known is not None:
        codes = jnp.where(known.mask, known.codes, codes)
    unknown = jnp.sum(codes == rounds.codes, axis=1)
    left = jnp.asarray(masked_counts(rounds.places, rounds.steps))[:, unknown]

    def step(codes, inputs):
        i, left = inputs
        round_keys = jax.vmap(lambda key: jax.random.fold_in(key, i))(keys)
        noise = rounds.noise * (1 - (i + 1) / rounds.steps)
        fill = jax.vmap(functools.partial(_fill, masked_code=rounds.codes, noise=noise, choose=choose))
        return fill(codes, predict(codes), round_keys, left), None

    return jax.lax.scan(step, codes, (jnp.arange(rounds.steps), left))[0]


def _fill(codes, logits, key: PRNGKey, left, *, masked_code: int, noise, choose: Choose) -> Int[Array, " L"]:
    """One round of one example, after which `left` places are masked."""
    choice_key, noise_key = jax.random.split(key)
    drawn = jax.vmap(choose)(logits, jax.random.split(choice_key, len(codes)))
    masked = codes == masked_code
    probable = jnp.take_along_axis(jax.nn.log_softmax(logits), drawn[:, None], axis=1)[:, 0]
    confidence = probable + noise * jax.random.gumbel(noise_key, codes.shape)
    # by rank and not by a threshold, so that equal confidences change no count
    rank = jnp.argsort(jnp.argsort(jnp.where(masked, confidence, jnp.inf)))
    return jnp.where(masked & (rank >= left), drawn, codes)
