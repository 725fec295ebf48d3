"""Edits of given pictures by a sampler."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from flaxgen.diffusion.posterior import step_variance
from flaxgen.types import Denoiser, PRNGKey, Sampler, Schedule, Time


def inpaint(
    sampler: Sampler,
    schedule: Schedule,
    known: Float[Array, "B H W C"],
    mask: Float[Array, "#B H W 1"],
    *,
    resamples: int = 1,
    noise: Float[Array, "#B H W C"] | None = None,
    clean: float = 0.0,
) -> Sampler:
    """Keeps `known` where `mask` is 1 and lets the sampler fill in where it is 0 [Lugmayr22, alg. 1].

    What is known gets fresh noise in every step, or always the same `noise`, and none up to the time `clean`.

    With `resamples` above 1 each step but the last is walked that often, with noise put back in between, so that the
    new part comes to fit the known one. A repeat starts from `sampler.init`: what a multistep solver remembers is of
    another x_t than the one that noise was put back into.

    Raises:
        ValueError: if resamples is less than 1.
    """
    if resamples < 1:
        raise ValueError(f"resamples={resamples} must be 1 or more")

    def step(denoise: Denoiser, state, t: Time, s: Time, key: PRNGKey):
        at_t, at_s = schedule(t), schedule(s)

        def walk(i, carry):
            start, _ = carry
            step_key, known_key, back_key = jax.random.split(jax.random.fold_in(key, i), 3)
            moved = sampler.step(denoise, start, t, s, step_key)
            added = jax.random.normal(known_key, known.shape, known.dtype) if noise is None else noise
            noised = jnp.where(jnp.asarray(s) > clean, at_s.alpha * known + at_s.sigma * added, known)
            x = mask * noised + (1 - mask) * moved.x
            back = jax.random.normal(back_key, x.shape, x.dtype)
            noisier = at_t.alpha / at_s.alpha * x + jnp.sqrt(step_variance(at_t, at_s)) * back
            return sampler.init(noisier), moved._replace(x=x)

        repeats = 1 if resamples == 1 else jnp.where(jnp.asarray(s) > 0, resamples, 1)
        return jax.lax.fori_loop(0, repeats, walk, (state, state))[1]

    return Sampler(sampler.init, step)


def start_from(
    schedule: Schedule,
    image: Float[Array, "B ..."],
    times: Float[np.ndarray, " N"],
    key: PRNGKey,
    *,
    strength: float,
) -> tuple[Float[Array, "B ..."], Float[np.ndarray, " M"]]:
    """SDEdit: the image with noise, and the times that are left to walk from there [Meng22, alg. 1].

    `strength` in (0, 1] is the share of the steps that is walked, one step at least: 1 forgets the image, as far as the
    first time does.

    Raises:
        ValueError: if strength is out of range.
    """
    if not 0 < strength <= 1:
        raise ValueError(f"strength={strength} must be above 0 and at most 1")
    steps = len(times) - 1
    times = times[steps - max(round(strength * steps), 1) :]
    alpha, sigma = schedule(times[0].item())
    return alpha * image + sigma * jax.random.normal(key, image.shape, image.dtype), times
