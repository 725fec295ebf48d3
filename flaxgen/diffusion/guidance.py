"""Guidance and shaping of the prediction: each makes a `Denoiser` of others, so they nest in any order."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from flaxgen.diffusion.denoise import Net, TimeInput
from flaxgen.types import Bind, Condition, Denoised, Denoiser, Scalar, Schedule, Time

LogProb = Callable[[Float[Array, "B ..."], Time], Float[Array, " B"]]
"""(x_t, t) -> log p(y | x_t) in nats, for the y that is wanted."""


def classifier_free(
    bind: Bind, cond: Condition, null: Condition, scale: Scalar | Float[Array, "B ..."], rescale: Scalar = 0.0
) -> Denoiser:
    """null + scale (cond - null) from one doubled batch [Ho22, eq. 6]; scale=1 is cond, 0 is null.

    Written from cond, so that scale=1 is exact; one scale for all, or an array [B 1 1 1]. The learned variance is that
    of cond. `rescale` in [0, 1] goes from what guidance makes of an example's standard deviation to that of cond
    [Lin23, sec. 3.4], taken of x0. Both may be traced.
    """
    denoise = bind(jax.tree.map(lambda c, n: jnp.concatenate([c, n]), cond, null))

    def guided(x, t):
        both = denoise(jnp.concatenate([x, x]), t)
        x0_cond, x0_null = jnp.split(both.x0, 2)
        x0 = x0_cond + (scale - 1) * (x0_cond - x0_null)
        x0 = (1 - rescale) * x0 + rescale * _with_std_of(x0_cond, x0)
        return Denoised(x0, None if both.var_mix is None else jnp.split(both.var_mix, 2)[0])

    return guided


def _with_std_of(like, x):
    axes = tuple(range(1, x.ndim))
    std = jnp.std(like, axis=axes, keepdims=True) / jnp.maximum(jnp.std(x, axis=axes, keepdims=True), 1e-8)
    return x * std


def limited_interval(guided: Denoiser, plain: Denoiser, low: Time, high: Time) -> Denoiser:
    """`guided` while low < t <= high, else `plain` [Kynk24]; only the one that is used is evaluated.

    The paper's limits are noise levels: `schedules.time_of` turns sigma / alpha into t.
    """

    def denoise(x, t):
        inside = (low < t) & (t <= jnp.asarray(high))
        return jax.lax.cond(inside, guided, plain, x, jnp.asarray(t))

    return denoise


def classifier(denoise: Denoiser, schedule: Schedule, log_prob: LogProb, scale: Scalar) -> Denoiser:
    """x0 + scale sigma^2 / alpha grad log p(y | x_t), which is eps - scale sigma grad [Dhariwal21, alg. 2].

    Bayes' rule on the score, so with scale=1 and the true classifier it is the denoiser given y, with every sampler.
    Ancestral sampling then moves its mean by beta alpha_s / alpha_t grad, where [Dhariwal21, alg. 1] has the variance
    of the step: the same to first order in beta. At alpha = 0, the first time of a schedule with zero terminal SNR, x_t
    says nothing of y: there the denoiser is left as it is.
    """

    def guided(x, t):
        alpha, sigma = schedule(t)
        denoised = denoise(x, t)
        grad = jax.grad(lambda x: jnp.sum(log_prob(x, t)))(x)
        push = jnp.where(alpha > 0, scale * sigma**2 / jnp.where(alpha > 0, alpha, 1.0), 0.0)
        return Denoised(denoised.x0 + push * grad, denoised.var_mix)

    return guided


def label_log_prob(net: Net, schedule: Schedule, time_input: TimeInput, label: Int[Array, " B"]) -> LogProb:
    """log p(label | x_t) of a net that puts out logits [B, classes], trained by `losses.classification_loss`."""

    def log_prob(x, t):
        time = jnp.full(x.shape[:1], time_input(t, schedule(t)), jnp.float32)
        log_probs = jax.nn.log_softmax(net(x, time, {}).astype(jnp.float32))
        return jnp.take_along_axis(log_probs, label[:, None], axis=-1)[:, 0]

    return log_prob


def clip_x0(denoise: Denoiser, low: Scalar = -1.0, high: Scalar = 1.0) -> Denoiser:
    """Predictions clipped to the range of the data [Ho20]."""

    def clipped(x, t):
        denoised = denoise(x, t)
        return denoised._replace(x0=jnp.clip(denoised.x0, low, high))

    return clipped


def dynamic_threshold(denoise: Denoiser, percentile: Scalar = 0.995, largest: Scalar = jnp.inf) -> Denoiser:
    """Each example's x0 clipped at that quantile of its |x0|, if above 1, and scaled back to [-1, 1] [Saharia22,
    sec. 2.3]; `percentile` is in [0, 1]. Quantiles above `largest`, 1 or more, count as that: DeepFloyd IF's is 1.5.
    Traced ones are not checked.

    Raises:
        ValueError: if one is out of its range.
    """
    if isinstance(largest, (int, float)) and not largest >= 1:
        raise ValueError(f"largest={largest} must be 1 or more, as only quantiles above 1 are scaled back")
    if isinstance(percentile, (int, float)) and not 0 <= percentile <= 1:
        raise ValueError(f"percentile={percentile} must be between 0 and 1 (0.995, not 99.5)")

    def thresholded(x, t):
        denoised = denoise(x, t)
        x0 = denoised.x0
        limit = jnp.quantile(jnp.abs(x0).reshape(x0.shape[0], -1), percentile, axis=1)
        limit = jnp.clip(limit, 1.0, largest).reshape(-1, *(1,) * (x0.ndim - 1))
        return denoised._replace(x0=jnp.clip(x0, -limit, limit) / limit)

    return thresholded
