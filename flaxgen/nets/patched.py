"""What transformers over the patches of a picture share: patches in and out, and norms and gates that the conditions
set, adaLN-Zero [Peebles23, sec. 3.2]."""

import math
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from flaxgen.nets import layers
from flaxgen.nets.layers import Image
from flaxgen.nets.resnet import check_size, depth_to_space
from flaxgen.nets.unet import DTYPES

Sequence = Float[Array, "B T W"]
Move = Float[Array, "B 1 W"]
"""A shift, a scale or a gate, the same for all places of a sequence."""
NORM_EPS = 1e-6
WAVES = 256
"""How many channels the time becomes before its MLP."""


class Modulation(nn.Module):
    """Zero linear(SiLU(condition)), as `count` vectors of its width: shift, scale and gate, as often as need be."""

    count: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, emb: Float[Array, "B W"]) -> list[Move]:
        width = self.count * emb.shape[-1]
        moves = layers.dense(width, name="linear", dtype=self.dtype, zero=True)(nn.silu(emb))
        return jnp.split(moves[:, None], self.count, axis=-1)


def modulated(x: Sequence, shift: Move, scale: Move, dtype: Any, eps: float = NORM_EPS) -> Sequence:
    """norm(x) * (1 + scale) + shift; the LayerNorm has no parameters of its own."""
    return nn.LayerNorm(eps, dtype=dtype, use_bias=False, use_scale=False)(x) * (1 + scale) + shift


def feed_forward(x: Sequence, name: str, dtype: Any) -> Sequence:
    """Linear(GELU(linear(x))), four times as wide in between, with GELU by its tanh approximation."""
    h = layers.ACTIVATIONS["gelu_tanh"](layers.dense(4 * x.shape[-1], name=f"{name}_1", dtype=dtype)(x))
    return layers.dense(x.shape[-1], name=f"{name}_2", dtype=dtype)(h)


def embed_patches(x: Image, patch: int, width: int, dtype: Any) -> Float[Array, "B h w {width}"]:
    """One linear layer of every patch of `patch` x `patch` pixels."""
    return nn.Conv(width, (patch, patch), patch, "VALID", dtype=dtype, kernel_init=_of_linear, name="patches")(x)


def _of_linear(key, shape, dtype=jnp.float32):
    """What a linear layer of all numbers of a patch starts with, as the kernel of a convolution."""
    return layers.INIT(key, (math.prod(shape[:-1]), shape[-1]), dtype).reshape(shape)


def patch_places(height: int, width: int, channels: int, extent: int) -> Float[Array, "height width {channels}"]:
    """Where every patch is: its column in the first half of the channels and its row in the rest, as the authors'
    tables are; a grid of any sides lies over one of `extent` x `extent` places."""
    return layers.sinusoidal_places(width, height, channels, extent).swapaxes(0, 1)


class Head(nn.Module):
    """Zero linear(modulated norm) of every place: patches as pixels again, float32."""

    channels: int
    patch: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B h w D"], emb: Float[Array, "B D"]) -> Float[Array, "B H W C"]:
        b, height, width, features = x.shape
        shift, scale = Modulation(2, self.dtype, name="modulation")(emb)
        h = modulated(x.reshape(b, height * width, features), shift, scale, self.dtype)
        h = layers.dense(self.channels * self.patch**2, name="out", dtype=self.dtype, zero=True)(h)
        return depth_to_space(h.reshape(b, height, width, -1), self.patch).astype(jnp.float32)


def check_patched(net: Any, x: Image, tokens: Array | None, token_mask: Array | None) -> None:
    """Raises ValueError unless the fields of a net of patches fit together, and x and tokens fit them."""
    layers.check_positive(net, "image_size", "in_channels", "out_channels", "patch", "width", "depth", "heads")
    layers.check_choice("dtype", net.dtype, tuple(DTYPES))
    layers.count_heads(net.width, net.heads, 0)
    if net.width % 4:
        raise ValueError(f"width={net.width}: expected a multiple of 4, for sin and cos of rows and of columns")
    check_size(x.shape[1], x.shape[2], 1, net.patch)
    if x.shape[-1] != net.in_channels:
        raise ValueError(f"x has {x.shape[-1]} channels, in_channels={net.in_channels} expects {net.in_channels}")
    layers.check_given("tokens", tokens, "token_dim", net.token_dim)
    if tokens is not None:
        layers.check_width("tokens", tokens, "token_dim", net.token_dim)
    elif token_mask is not None:
        raise ValueError("the condition 'token_mask' is given without 'tokens'")
