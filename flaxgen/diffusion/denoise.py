"""From what a net puts out to a `Denoiser`: eps, x0, v, flow velocity, EDM preconditioning, learned variance."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from flaxgen.types import AlphaSigma, Bind, Condition, Denoised, Denoiser, Schedule, Time

Scalar = Float[Array, ""]
Net = Callable[[Float[Array, "B ..."], Float[Array, " B"], Condition], Float[Array, "B ..."]]
"""(x, time input, condition) -> output: a net with its parameters in place."""
TimeInput = Callable[[Time, AlphaSigma], Scalar]
"""What the net reads of the time."""


class Prediction(NamedTuple):
    """What the output of a net stands for, as a bijection with x0 at fixed x_t.

    `x0(out, x_t, alpha, sigma)` reads an output, `target(x0, eps, alpha, sigma)` is the output that is right,
    `gain(alpha, sigma)` = |d out / d x0| turns errors in x0 into errors in the output, `scale_in` scales x_t for the
    net.
    """

    x0: Callable[..., Array]
    target: Callable[..., Array]
    gain: Callable[[Scalar, Scalar], Scalar]
    scale_in: Callable[[Scalar, Scalar], Scalar] = lambda alpha, sigma: jnp.ones_like(alpha)


EPS = Prediction(
    x0=lambda out, x, alpha, sigma: (x - sigma * out) / alpha,
    target=lambda x0, eps, alpha, sigma: eps,
    gain=lambda alpha, sigma: alpha / sigma,
)
X0 = Prediction(
    x0=lambda out, x, alpha, sigma: out,
    target=lambda x0, eps, alpha, sigma: x0,
    gain=lambda alpha, sigma: jnp.ones_like(alpha),
)
V = Prediction(  # v = alpha eps - sigma x0 [Salimans22, app. D]
    x0=lambda out, x, alpha, sigma: (alpha * x - sigma * out) / (alpha**2 + sigma**2),
    target=lambda x0, eps, alpha, sigma: alpha * eps - sigma * x0,
    gain=lambda alpha, sigma: (alpha**2 + sigma**2) / sigma,
)
FLOW = Prediction(  # u = eps - x0 = dx/dt of the straight path [Liu22; Lipman23]
    x0=lambda out, x, alpha, sigma: (x - sigma * out) / (alpha + sigma),
    target=lambda x0, eps, alpha, sigma: eps - x0,
    gain=lambda alpha, sigma: (alpha + sigma) / sigma,
)


def edm(sigma_data: float = 0.5) -> Prediction:
    """x0 = c_skip x + c_out F(c_in x) [Karras22, eq. 7 and table 1], written for x_t / alpha and sigma / alpha."""

    def c_skip(alpha, sigma):
        return sigma_data**2 * alpha / (sigma**2 + (alpha * sigma_data) ** 2)

    def c_out(alpha, sigma):
        return sigma * sigma_data / jnp.sqrt(sigma**2 + (alpha * sigma_data) ** 2)

    def target(x0, eps, alpha, sigma):  # (x0 - c_skip x) / c_out with sigma cancelled: finite at t=0
        return (sigma * x0 - sigma_data**2 * alpha * eps) / (
            sigma_data * jnp.sqrt(sigma**2 + (alpha * sigma_data) ** 2)
        )

    return Prediction(
        x0=lambda out, x, alpha, sigma: c_skip(alpha, sigma) * x + c_out(alpha, sigma) * out,
        target=target,
        gain=lambda alpha, sigma: 1 / c_out(alpha, sigma),
        scale_in=lambda alpha, sigma: 1 / jnp.sqrt(sigma**2 + (alpha * sigma_data) ** 2),
    )


PREDICTIONS = {"eps": EPS, "x0": X0, "v": V, "flow": FLOW, "edm": edm()}


def table_index(timesteps: int) -> TimeInput:
    """The index 0 .. timesteps-1 of t in a table: t * timesteps - 1."""
    return lambda t, _: jnp.asarray(t * timesteps - 1.0)


def scaled_time(scale: float = 1000.0) -> TimeInput:
    """t * scale, for nets that know continuous time."""
    return lambda t, _: jnp.asarray(t * scale)


def quarter_log_sigma(t: Time, alpha_sigma: AlphaSigma) -> Scalar:
    """log(sigma / alpha) / 4, the c_noise of [Karras22, table 1]; finite at both ends."""
    alpha, sigma = alpha_sigma
    return (jnp.log(jnp.maximum(sigma, 1e-8)) - jnp.log(jnp.maximum(alpha, 1e-8))) / 4


def read_output(out, x, alpha, sigma, prediction: Prediction, learned_variance: bool) -> Denoised:
    """The net's output as a prediction of x0; with learned variance its second half of channels is v in [-1, 1], and
    var_mix = (v + 1) / 2 [Nichol21, eq. 15]."""
    out = out.astype(x.dtype)
    if not learned_variance:
        return Denoised(prediction.x0(out, x, alpha, sigma))
    out, variance = jnp.split(out, 2, axis=-1)
    return Denoised(prediction.x0(out, x, alpha, sigma), (variance + 1) / 2)


def make_bind(
    net: Net, schedule: Schedule, prediction: Prediction, time_input: TimeInput, *, learned_variance: bool = False
) -> Bind:
    """Denoisers of `net`, one for each condition bound."""

    def bind(condition: Condition) -> Denoiser:
        def denoise(x, t):
            alpha, sigma = schedule(t)
            time = jnp.full(x.shape[:1], time_input(t, AlphaSigma(alpha, sigma)), jnp.float32)
            out = net(prediction.scale_in(alpha, sigma) * x, time, condition)
            return read_output(out, x, alpha, sigma, prediction, learned_variance)

        return denoise

    return bind
