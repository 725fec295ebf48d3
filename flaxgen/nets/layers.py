"""The layers all nets are made of: convolutions, normalisation, attention, time and condition embeddings."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from flaxgen.nets.dot_product import attention as attention

Image = Float[Array, "B H W C"]
Guide = Float[Array, "B _ _ _"]
"""A picture that norms read, of its own size and channels."""
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "silu": nn.silu,
    "gelu": lambda x: nn.gelu(x, approximate=False),
    "gelu_tanh": nn.gelu,
    "gelu_new": nn.gelu,  # the same under the name that a config may have it by, to be written back as it was
    "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),
}
"""SiLU; GELU exactly, by its tanh approximation, and as CLIP's published weights have it [Hendrycks16]."""
INIT = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
ZERO = nn.initializers.zeros
ORDERS = ("sin_cos", "cos_sin")
MAX_PERIOD = 10_000.0
LEVEL_STEPS = 1000.0
"""A noise level of 1 is embedded as the last of this many steps, which is what the frequencies are made for."""


def conv(features: int, *, name: str, dtype: Any, size: int = 3, zero: bool = False) -> nn.Conv:
    """A convolution that keeps the size of the picture; `zero` starts it at 0."""
    return nn.Conv(features, (size, size), dtype=dtype, kernel_init=ZERO if zero else INIT, name=name)


def dense(features: int, *, name: str, dtype: Any, zero: bool = False, bias: bool = True) -> nn.Dense:
    """A linear layer over the last axis; `zero` starts it at 0."""
    return nn.Dense(features, bias, dtype=dtype, kernel_init=ZERO if zero else INIT, name=name)


def once(x: Array) -> Array:
    """x itself, where a residual block ends: what reads it, and what reads its gradient, takes it from memory.

    Otherwise XLA on a CPU computes the sum of all blocks' gradients again inside every operation that reads it: see
    `parallel.CPU_OPTIONS`.
    """
    return jax.lax.optimization_barrier(x)


class GroupNorm(nn.Module):
    """Normalises each of `groups` groups of channels over them and space, then scales and shifts [Wu18].

    Statistics are float32 whatever the dtype. Normalisation, the layer's own affine map and that of `scale`, `shift`
    are one multiply-add a pixel.
    """

    groups: int
    eps: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B *space C"], scale: Float[Array, "B C"] | None = None, shift: Array | None = None
    ) -> Float[Array, "B *space C"]:
        """norm(x), or norm(x) * (1 + scale) + shift."""
        channels = x.shape[-1]
        if self.groups < 1:
            raise ValueError(f"norm_groups={self.groups}: expected 1 or more, a divisor of {channels} channels")
        if channels % self.groups:
            raise ValueError(f"norm_groups={self.groups} does not divide {channels} channels: use a divisor of them")
        gamma = self.param("scale", nn.initializers.ones, (channels,))[None]
        beta = self.param("bias", ZERO, (channels,))[None]
        if scale is not None and shift is not None:
            gamma, beta = gamma * (1 + scale), beta * (1 + scale) + shift
        space = tuple(range(1, x.ndim - 1))
        wide = x.astype(jnp.float32)
        mean = self._over_group(wide.mean(space))
        variance = self._over_group(jnp.square(wide - jnp.expand_dims(mean, space)).mean(space))
        factor = gamma * jax.lax.rsqrt(variance + self.eps)
        y = wide * jnp.expand_dims(factor, space) + jnp.expand_dims(beta - mean * factor, space)
        return y.astype(self.dtype)

    def _over_group(self, x: Float[Array, "B C"]) -> Float[Array, "B C"]:
        """Every channel's mean over its group."""
        means = x.reshape(x.shape[0], self.groups, -1).mean(-1)
        return jnp.repeat(means, x.shape[1] // self.groups, axis=1)


class SpatialNorm(nn.Module):
    """GroupNorm(x) * scale(guide) + shift(guide): both are linear in the pixels of a smaller picture, which is brought
    to the size of x by repeating them [Zheng22]."""

    groups: int
    eps: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Image, guide: Guide) -> Image:
        channels = x.shape[-1]
        scale, shift = (
            jax.image.resize(conv(channels, name=name, dtype=self.dtype, size=1)(guide), x.shape, "nearest")
            for name in ("scale", "shift")
        )
        return GroupNorm(self.groups, self.eps, self.dtype, name="norm")(x) * scale + shift


def norm(groups: int, eps: float, dtype: Any, name: str, guide: Guide | None = None) -> Callable[..., Array]:
    """The GroupNorm of that name or, where there is a picture to read, the SpatialNorm."""
    if guide is None:
        return GroupNorm(groups, eps, dtype, name=name)
    spatial = SpatialNorm(groups, eps, dtype, name=name)
    return lambda x: spatial(x, guide)


def split_heads(x: Float[Array, "B T C"], heads: int) -> Float[Array, "B T N D"]:
    """Channels as `heads` equal runs of them."""
    return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads)


def count_heads(channels: int, heads: int, head_channels: int) -> int:
    """How many heads: `channels / head_channels`, or `heads` where head_channels is 0.

    Raises:
        ValueError: if they do not divide the channels.
    """
    size, name = (head_channels, "head_channels") if head_channels else (heads, "heads")
    if size < 1 or channels % size:
        raise ValueError(f"{name}={size} does not divide the {channels} channels of an attention layer")
    return channels // head_channels if head_channels else heads


def sinusoidal(
    time: Float[Array, " B"], channels: int, order: str = "sin_cos", shift: int = 0
) -> Float[Array, "B {channels}"]:
    """sin and cos of `time` at channels/2 frequencies from 1 down to about 1/10,000 [Vaswani17, sec. 3.5].

    Frequency i is 10,000^(-i / (channels/2 - shift)): shift 1 is the paper's DDPM code and reaches 1/10,000, shift 0 is
    ADM's. `order` is "sin_cos" [Ho20] or "cos_sin" [Dhariwal21]. An odd last channel is 0.
    """
    half = channels // 2
    frequencies = jnp.exp(-math.log(MAX_PERIOD) / (half - shift) * jnp.arange(half, dtype=jnp.float32))
    angles = time[:, None] * frequencies[None]
    waves = (jnp.sin(angles), jnp.cos(angles))
    out = jnp.concatenate(waves if order == "sin_cos" else waves[::-1], axis=-1)
    return jnp.pad(out, ((0, 0), (0, channels % 2)))


def sinusoidal_places(
    height: int, width: int, channels: int, extent: int = 0
) -> Float[Array, "height width {channels}"]:
    """The row of every pixel in the first half of the channels and its column in the rest, as `sinusoidal` has them.

    With an `extent` (not 0) both run over as many places, whatever the sides are.
    """
    rows, columns = (jnp.arange(side, dtype=jnp.float32) * ((extent or side) / side) for side in (height, width))
    first = sinusoidal(rows, channels // 2)[:, None]
    second = sinusoidal(columns, channels - channels // 2)[None]
    shape = (height, width)
    return jnp.concatenate([jnp.broadcast_to(part, (*shape, part.shape[-1])) for part in (first, second)], axis=-1)


class Fourier(nn.Module):
    """sin and cos of log(time) at `channels` random frequencies that training leaves alone [Song21b, app. C]."""

    channels: int
    scale: float = 16.0

    @nn.compact
    def __call__(self, time: Float[Array, " B"]) -> Float[Array, "B C"]:
        frequencies = self.param("frequencies", nn.initializers.normal(self.scale), (self.channels,))
        angles = 2 * math.pi * jnp.log(time)[:, None] * jax.lax.stop_gradient(frequencies)[None]
        return jnp.concatenate((jnp.sin(angles), jnp.cos(angles)), axis=-1)


GUIDANCE_STEPS = 1000.0
"""The scale of guidance is embedded as a time, from 0 for none, in units of so many."""


class Conditioning(nn.Module):
    """What a denoising net conditions on beside the picture, as one vector: MLP(time) + label row + linear(embedding)
    + MLP(level) + MLP(vector) + added.

    `channels` is the width of the time embedding, `features` that of the result; `num_classes` 0 and `embedding_dim` 0
    mean that the net knows no label and no embedding, nor with `vector_dim` 0 a vector [Podell23, sec. 2.2]. With
    `noise_level` it reads the level in [0, 1] of the noise on another of its inputs [Ho22b, sec. 4.2]; with `added`,
    a vector of the result's width that is added as it is. With `guidance_dim` the waves of the time move with those of
    the scale of guidance [Meng23, app. B].
    """

    channels: int
    features: int
    time_embedding: str = "sinusoidal"
    time_order: str = "sin_cos"
    time_shift: int = 0
    num_classes: int = 0
    embedding_dim: int = 0
    dtype: Any = jnp.float32
    noise_level: bool = False
    added: bool = False
    vector_dim: int = 0
    activation: str = "silu"
    guidance_dim: int = 0

    @nn.compact
    def __call__(
        self,
        time: Float[Array, " B"],
        label: Int[Array, " B"] | None = None,
        embedding: Float[Array, "B D"] | None = None,
        level: Float[Array, " B"] | None = None,
        added: Float[Array, "B F"] | None = None,
        vector: Float[Array, "B V"] | None = None,
        guidance: Float[Array, " B"] | None = None,
    ) -> Float[Array, "B F"]:
        check_choice("time_order", self.time_order, ORDERS)
        check_choice("time_embedding", self.time_embedding, ("sinusoidal", "fourier"))
        check_given("label", label, "num_classes", self.num_classes)
        check_given("embedding", embedding, "embedding_dim", self.embedding_dim)
        check_given("level", level, "noise_level", self.noise_level)
        check_given("added", added, "added", self.added)
        check_given("vector", vector, "vector_dim", self.vector_dim)
        check_given("guidance", guidance, "guidance_dim", self.guidance_dim)
        if self.time_embedding == "fourier":
            waves = Fourier(self.channels, name="fourier")(time)
        else:
            waves = sinusoidal(time, self.channels, self.time_order, self.time_shift)
        if guidance is not None:
            scale = sinusoidal(GUIDANCE_STEPS * (guidance - 1), self.guidance_dim, "sin_cos", 1)
            waves = waves + dense(self.channels, name="guidance", dtype=self.dtype, bias=False)(scale)
        out = self._mlp("time", waves)
        if label is not None:
            table = nn.Embed(self.num_classes, self.features, embedding_init=nn.initializers.normal(0.02), name="label")
            out = out + table(label).astype(out.dtype)
        if embedding is not None:
            check_width("embedding", embedding, "embedding_dim", self.embedding_dim)
            out = out + dense(self.features, name="embedding", dtype=self.dtype)(embedding)
        if level is not None:
            waves = sinusoidal(LEVEL_STEPS * level, self.channels, self.time_order, self.time_shift)
            out = out + self._mlp("level", waves)
        if vector is not None:
            check_width("vector", vector, "vector_dim", self.vector_dim)
            out = out + self._mlp("vector", vector)
        if added is not None:
            check_width("added", added, "the time embedding", self.features)
            out = out + added.astype(out.dtype)
        return out

    def _mlp(self, name: str, waves: Float[Array, "B C"]) -> Float[Array, "B F"]:
        h = ACTIVATIONS[self.activation](dense(self.features, name=f"{name}_1", dtype=self.dtype)(waves))
        return dense(self.features, name=f"{name}_2", dtype=self.dtype)(h)


def check_positive(net: Any, *fields: str) -> None:
    """Raises ValueError unless these fields of a net are 1 or more."""
    for field in fields:
        if (value := getattr(net, field)) < 1:
            raise ValueError(f"{field}={value}: expected 1 or more")


def check_given(name: str, value: Any, field: str, setting: int | bool) -> None:
    """Raises ValueError unless the condition `name` is given exactly where the net's `field` asks for one."""
    if setting and value is None:
        raise ValueError(f"this net has {field}={setting} and needs the condition {name!r}, which is missing")
    if not setting and value is not None:
        raise ValueError(f"this net has {field}={setting} and takes no condition {name!r}: leave it out or set {field}")


def check_width(name: str, value: Array, field: str, width: int) -> None:
    """Raises ValueError unless the last axis of the condition `name` is as the net's `field` says."""
    if value.shape[-1] != width:
        raise ValueError(f"the condition {name!r} is {value.shape[-1]} wide, {field}={width} expects {width}")


def check_choice(field: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises ValueError unless `value` is one of the choices."""
    if value not in choices:
        raise ValueError(f"{field}={value!r} is not one of {', '.join(choices)}")


def check_grid(net: Any, codes: Array, *channels: int) -> None:
    """Raises ValueError unless each example of codes is a grid of the net's `height` x `width` (x `channels`)."""
    expected = (net.height, net.width, *channels)
    if codes.shape[1:] != expected:
        got, wanted = ("x".join(map(str, shape)) for shape in (codes.shape[1:], expected))
        raise ValueError(f"a grid of {got}, but this net is for grids of {wanted}")
