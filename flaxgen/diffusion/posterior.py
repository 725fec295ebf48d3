"""q(x_s | x_t, x0), the one Gaussian that ancestral sampling draws from and the variational bound compares with."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from flaxgen.types import AlphaSigma, Schedule, Time

Scalar = Float[Array, ""]

TINY = 1e-20
"""Floor of a variance before its logarithm."""


class Posterior(NamedTuple):
    """q(x_s | x_t, x0) = N(from_x x_t + from_x0 x0, small) for a step t -> s [Ho20, eq. 6-7], all scalars.

    `small` is beta_tilde, `large` the beta of the step: the variance of x_s given x_t where x0 is known and where it is
    N(0, 1). The logarithms are those of what a model p(x_s | x_t) may use: at s = 0, where `small` is 0, they hold the
    first one that is not, as in the public code of [Nichol21].
    """

    from_x: Scalar
    from_x0: Scalar
    small: Scalar
    large: Scalar
    log_small: Scalar
    log_large: Scalar
    log_beta: Scalar

    def mean(self, x: Float[Array, "B ..."], x0: Float[Array, "B ..."]) -> Float[Array, "B ..."]:
        """The mean of x_s."""
        return self.from_x * x + self.from_x0 * x0


def posterior(schedule: Schedule, t: Time, s: Time) -> Posterior:
    """The posterior of the step from t to the cleaner s, for any two times: respacing needs nothing else.

    At s = 0 the variance of the model is beta_tilde of the pair (2t, t), in a T-step table that of its second step, or
    beta where t is past 1/2 and there is no such pair.
    """
    at_t, at_s = schedule(t), schedule(s)
    beta = step_variance(at_t, at_s)
    small = beta * (at_s.sigma / at_t.sigma) ** 2
    before = schedule(jnp.minimum(2.0 * t, 1.0))
    second = step_variance(before, at_t) * (at_t.sigma / before.sigma) ** 2
    first = jnp.where(jnp.asarray(t) > 0.5, beta, second)
    is_last = jnp.asarray(s) == 0
    log_small = jnp.log(jnp.maximum(jnp.where(is_last, first, small), TINY))
    log_beta = jnp.log(jnp.maximum(beta, TINY))
    return Posterior(
        from_x=at_t.alpha / at_s.alpha * (at_s.sigma / at_t.sigma) ** 2,
        from_x0=at_s.alpha * beta / at_t.sigma**2,
        small=small,
        large=beta,
        log_small=log_small,
        log_large=jnp.where(is_last, log_small, log_beta),
        log_beta=log_beta,
    )


def step_variance(at_t: AlphaSigma, at_s: AlphaSigma) -> Scalar:
    """The variance of x_t given x_s, beta of a variance-preserving table: sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2,
    factored because the two squares nearly cancel."""
    kept = at_t.alpha / at_s.alpha * at_s.sigma
    return jnp.maximum((at_t.sigma - kept) * (at_t.sigma + kept), 0.0)


def learned_range(post: Posterior, var_mix: Float[Array, "B ..."]) -> Float[Array, "B ..."]:
    """log variance between beta_tilde (var_mix 0) and beta (var_mix 1), not clipped [Nichol21, eq. 15]."""
    return var_mix * post.log_beta + (1 - var_mix) * post.log_small


LOG_VARIANCES: dict[str, Callable[..., Array]] = {
    "small": lambda post, var_mix: post.log_small,
    "large": lambda post, var_mix: post.log_large,
    "learned": learned_range,
}


def log_variance(post: Posterior, variance: str, var_mix: Array | None) -> Array:
    """Of p(x_s | x_t): fixed small, fixed large [Ho20, section 3.2] or learned; a scalar, or shaped like var_mix.

    Raises:
        ValueError: if the name is unknown, or it is `learned` and the net does not predict a variance.
    """
    if variance not in LOG_VARIANCES:
        raise ValueError(f"variance={variance!r} is not one of {', '.join(LOG_VARIANCES)}")
    if variance == "learned" and var_mix is None:
        raise ValueError("variance='learned' needs a net that predicts it (learned_variance=True); use small or large")
    return LOG_VARIANCES[variance](post, var_mix)
