"""The layers of StyleGAN2: weights of unit variance, scaled when used, and convolutions modulated by a style."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from flaxgen.nets.layers import check_choice
from flaxgen.nets.strided import enlarge, shrink
from flaxgen.resample import downsample2d, filter2d, setup_filter, upfirdn2d, upsample2d

BASE = 4
"""Pixels a side where the generator starts and the discriminator ends."""
SLOPE, GAIN = 0.2, math.sqrt(2)
"""Of the leaky ReLU, and what keeps its output's variance."""
HALF = math.sqrt(0.5)
"""What either branch of a residual block is scaled by."""
EPSILON = 1e-8
FILTER = setup_filter()
ARCHITECTURES = ("orig", "skip", "resnet")
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
UNIT = nn.initializers.normal(1.0)


def sizes(image_size: int) -> tuple[int, ...]:
    """Pixels a side of the blocks, from 4 to that of the picture.

    Raises:
        ValueError: if the picture is not 4 times a power of two.
    """
    if image_size < BASE or image_size & (image_size - 1):
        raise ValueError(f"image_size={image_size} is not a power of two of at least {BASE}: StyleGAN2 doubles from 4")
    return tuple(2**i for i in range(2, image_size.bit_length()))


def widths(image_size: int, channel_base: int, channel_max: int) -> dict[int, int]:
    """Channels at every size: channel_base over the pixels a side, at most channel_max.

    Raises:
        ValueError: if the size is not one (see `sizes`), or a block would have no channel.
    """
    if channel_base < image_size or channel_max < 1:
        raise ValueError(
            f"channel_base={channel_base}, channel_max={channel_max} leave no channels at {image_size} pixels"
        )
    return {size: min(channel_base // size, channel_max) for size in sizes(image_size)}


def block_dtypes(image_size: int, dtype: str, dtype_blocks: int) -> dict[int, jnp.dtype]:
    """What every block computes in: `dtype` the `dtype_blocks` largest, but never the one of 4 pixels."""
    check_choice("dtype", dtype, tuple(DTYPES))
    low = [size for size in sizes(image_size)[1:] if size > image_size >> dtype_blocks]
    return {size: jnp.dtype(DTYPES[dtype] if size in low else jnp.float32) for size in sizes(image_size)}


def normalize_second_moment(x: Float[Array, "B D"]) -> Float[Array, "B D"]:
    """Every vector over the root mean square of its entries [Karras18, sec. 4.2]."""
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), -1, keepdims=True) + EPSILON)


def activate(
    x: Float[Array, "*B C"],
    bias: Float[Array, " C"] | None,
    *,
    linear: bool = False,
    gain: float = 1.0,
    clamp: float = 0.0,
) -> Float[Array, "*B C"]:
    """leaky_relu(x + bias) sqrt(2) gain, or (x + bias) gain if linear; within +-clamp * gain where clamp is not 0."""
    if bias is not None:
        x = x + bias.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))
    x = x * gain if linear else nn.leaky_relu(x, SLOPE) * (GAIN * gain)
    return jnp.clip(x, -clamp * gain, clamp * gain) if clamp else x


class Dense(nn.Module):
    """A linear layer with an equalised learning rate [Karras18, sec. 4.1]: weights of deviation 1/rate are used times
    rate / sqrt(inputs), a bias times rate."""

    features: int
    rate: float = 1.0
    bias_init: float = 0.0
    linear: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "B I"]) -> Float[Array, "B O"]:
        kernel = self.param("kernel", nn.initializers.normal(1 / self.rate), (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.constant(self.bias_init), (self.features,))
        y = x @ (kernel * (self.rate / math.sqrt(x.shape[-1])))
        return activate(y, bias * self.rate, linear=self.linear)


class Conv(nn.Module):
    """A convolution with an equalised learning rate, that may halve or double the picture through the filter.

    Doubling is for kernels of one pixel. Without a bias nothing follows the convolution but the gain.
    """

    features: int
    size: int = 3
    up: bool = False
    down: bool = False
    bias: bool = True
    clamp: float = 0.0

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], gain: float = 1.0) -> Float[Array, "B h w O"]:
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", UNIT, shape)
        kernel = (kernel / math.sqrt(math.prod(shape[:3]))).astype(x.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,)) if self.bias else None
        if self.down and self.size == 1:
            x = convolve(downsample2d(x, FILTER), kernel)
        elif self.down:
            x = shrink(filter2d(x, FILTER, padding=(0, 1, 0, 1)), kernel, 2)
        else:
            x = convolve(x, kernel)
        x = upsample2d(x, FILTER) if self.up else x
        return activate(x, bias, linear=not self.bias, gain=gain, clamp=self.clamp)


class Modulated(nn.Module):
    """A convolution whose inputs are scaled by a style [Karras20, sec. 2.2 and app. B].

    Scaling the picture before and after one convolution shared by the batch is the same as a kernel an example, and its
    gradient 50 times as fast on a CPU as that of a convolution in a group an example. With `demodulate` outputs have
    the variance of the inputs; `up` doubles the picture.
    """

    features: int
    size: int = 3
    up: bool = False
    demodulate: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], w: Float[Array, "B D"]) -> Float[Array, "B h w O"]:
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", UNIT, shape)
        styles = Dense(shape[2], bias_init=1.0, name="affine")(w)
        if not self.demodulate:
            styles = styles / math.sqrt(math.prod(shape[:3]))
        y = modulated_conv(x, kernel, styles, up=self.up)
        if not self.demodulate:
            return y
        return y * demodulation(kernel, styles)[:, None, None].astype(y.dtype)


def modulated_conv(
    x: Float[Array, "B H W I"], kernel: Float[Array, "K K I O"], styles: Float[Array, "B I"], *, up: bool = False
) -> Float[Array, "B h w O"]:
    """The convolution of x, its channels times the styles; with `up` of x twice as large, through the filter."""
    scaled, kernel = x * styles[:, None, None].astype(x.dtype), kernel.astype(x.dtype)
    if not up:
        return convolve(scaled, kernel)
    doubled = enlarge(scaled, kernel.swapaxes(2, 3), 2)
    return upfirdn2d(jnp.asarray(doubled), FILTER, padding=1, gain=4.0)


def demodulation(kernel: Float[Array, "K K I O"], styles: Float[Array, "B I"]) -> Float[Array, "B O"]:
    """One over the norm of every output's kernel, as the styles scale it [Karras20, eq. 3]."""
    energy = jnp.square(kernel).sum((0, 1))
    squares = jnp.matmul(jnp.square(styles), energy, precision=jax.lax.Precision.HIGHEST)
    return jax.lax.rsqrt(squares + EPSILON)


def convolve(x: Float[Array, "B H W I"], kernel: Float[Array, "K K I O"]) -> Float[Array, "B H W O"]:
    """The convolution that keeps the size of the picture."""
    return jnp.asarray(shrink(x, kernel, 1, kernel.shape[0] // 2))
