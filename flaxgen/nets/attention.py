"""How a level of a UNet attends, as values, and the blocks that these values describe."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from flaxgen.nets import layers
from flaxgen.nets.layers import Guide, Image

Tokens = Float[Array, "B N D"]
TokenMask = Bool[Array, "B N"]
Value = TypeVar("Value")
Block = Callable[..., Array]
"""(picture, tokens, token mask) -> picture; of `SelfAttention` it takes a guide for its norm too."""


@dataclass(frozen=True)
class SelfAttention:
    """Pixels read all pixels [Ho20, app. B].

    `heads` counts attention heads, or `head_channels` (not 0) is their width. `norm_groups` and `norm_eps` are of the
    norm before it: None is the net's own value, 0 groups is no norm.
    """

    heads: int = 1
    head_channels: int = 0
    norm_groups: int | None = None
    norm_eps: float | None = None
    reads_tokens: ClassVar[bool] = False


@dataclass(frozen=True)
class TokenAttention:
    """Pixels read added tokens and all pixels under one softmax [Nichol21b, sec. 4].

    With `only_tokens` they read no pixels, as in Imagen's last upsampler [Saharia22, app. B]. `token_norm_groups` (not
    0) is a GroupNorm of the tokens over channels and tokens, as in DeepFloyd's IF. The rest is as in `SelfAttention`.
    """

    heads: int = 1
    head_channels: int = 0
    norm_groups: int | None = None
    norm_eps: float | None = None
    token_norm_groups: int = 0
    only_tokens: bool = False
    reads_tokens: ClassVar[bool] = True


@dataclass(frozen=True)
class SpatialTransformer:
    """`depth` transformer blocks over the pixels, which read tokens by cross-attention [Rombach22, sec. 3.3].

    The projections into the blocks and out of them are 1 x 1 convolutions, or with `linear` linear layers: the same
    numbers in another shape. With `only_cross` pixels read tokens in both attentions. The rest is as in
    `SelfAttention`; the epsilon of the entry norm is not that of the residual blocks.
    """

    heads: int = 8
    head_channels: int = 0
    depth: int = 1
    linear: bool = False
    only_cross: bool = False
    norm_groups: int | None = None
    norm_eps: float | None = 1e-6
    reads_tokens: ClassVar[bool] = True


Attention = SelfAttention | TokenAttention | SpatialTransformer
ATTENTIONS = (SelfAttention, TokenAttention, SpatialTransformer)
"""The types of which a UNet's config may hold values."""


def attention_at(value: Value, resolutions: Sequence[int], sizes: Sequence[int]) -> tuple[Value | None, ...]:
    """`value` at the levels whose feature maps are as wide as one of `resolutions`, None at the others; () if none is.

    Raises:
        ValueError: if a resolution is none of the sizes.
    """
    missing = sorted(set(resolutions) - set(sizes))
    if missing:
        raise ValueError(f"attention_resolutions has {missing[0]}, but the levels of this net are {tuple(sizes)} px")
    return tuple(value if size in resolutions else None for size in sizes) if resolutions else ()


def make_block(value: Attention, norm_groups: int, norm_eps: float, dtype: Any, remat: bool, name: str) -> Block:
    """The block that `value` describes, in a net of these options; `remat` computes it again in the backward pass."""
    groups = norm_groups if value.norm_groups is None else value.norm_groups
    eps = norm_eps if value.norm_eps is None else value.norm_eps
    wrap = nn.remat if remat else lambda module: module
    if isinstance(value, SpatialTransformer):
        return wrap(TransformerBlocks)(value, groups, eps, dtype, name=name)
    if isinstance(value, TokenAttention):
        more = value.token_norm_groups, value.only_tokens
        return wrap(AttentionBlock)(value.heads, value.head_channels, groups, eps, dtype, *more, name=name)
    block = wrap(AttentionBlock)(value.heads, value.head_channels, groups, eps, dtype, name=name)
    return lambda h, tokens, token_mask, guide=None: block(h, None, None, guide)


class AttentionBlock(nn.Module):
    """x + zero linear(attention(norm(x))) over all pixels: `SelfAttention`, or with tokens `TokenAttention`.

    The keys and values of tokens stand before the pixels' own in one softmax, and `token_mask` hides tokens. A `guide`
    makes the norm a SpatialNorm of it.
    """

    heads: int = 1
    head_channels: int = 0
    norm_groups: int = 32
    norm_eps: float = 1e-5
    dtype: Any = jnp.float32
    token_norm_groups: int = 0
    only_tokens: bool = False

    @nn.compact
    def __call__(
        self,
        x: Image,
        tokens: Tokens | None = None,
        token_mask: TokenMask | None = None,
        guide: Guide | None = None,
    ) -> Image:
        b, height, width, channels = x.shape
        heads = layers.count_heads(channels, self.heads, self.head_channels)

        def project(name, inputs):
            return layers.split_heads(layers.dense(channels, name=name, dtype=self.dtype)(inputs), heads)

        h = layers.norm(self.norm_groups, self.norm_eps, self.dtype, "norm", guide)(x) if self.norm_groups else x
        h = h.reshape(b, height * width, channels)
        query, read = project("query", h), [] if self.only_tokens else [(project("key", h), project("value", h))]
        if tokens is not None:
            if self.token_norm_groups:
                tokens = layers.GroupNorm(self.token_norm_groups, 1e-5, self.dtype, name="token_norm")(tokens)
            read = [(project("token_key", tokens), project("token_value", tokens)), *read]
        key, value = (jnp.concatenate(parts, axis=1) for parts in zip(*read, strict=True))
        mask = None
        if tokens is not None and token_mask is not None:
            pixels = jnp.ones((b, key.shape[1] - token_mask.shape[1]), bool)
            mask = jnp.concatenate((token_mask, pixels), axis=1)[:, None, None]
        h = layers.attention(query, key, value, mask).reshape(b, height * width, channels)
        h = layers.dense(channels, name="out", dtype=self.dtype, zero=True)(h)
        return layers.once(x + h.reshape(x.shape))


class CrossAttention(nn.Module):
    """Linear(attention) of x over `read`; query, keys and values have a `bias` or none, and `zero` starts it at 0."""

    heads: int
    dtype: Any = jnp.float32
    bias: bool = False
    zero: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T C"], read: Float[Array, "B S D"], mask: Bool[Array, "B S"] | None = None
    ) -> Float[Array, "B T C"]:
        query, key, value = (
            layers.split_heads(
                layers.dense(x.shape[-1], name=name, dtype=self.dtype, bias=self.bias)(inputs), self.heads
            )
            for name, inputs in (("query", x), ("key", read), ("value", read))
        )
        h = layers.attention(query, key, value, None if mask is None else mask[:, None, None])
        return layers.dense(x.shape[-1], name="out", dtype=self.dtype, zero=self.zero)(h.reshape(x.shape))


class TransformerBlock(nn.Module):
    """x + self-attention(norm(x)), x + cross-attention(norm(x), tokens), x + GEGLU MLP(norm(x)) [Rombach22, app. E].

    GEGLU is linear(value * gelu(gate)), value and gate four times as wide as x [Shazeer20, eq. 6].
    """

    heads: int
    only_cross: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T C"], tokens: Tokens, token_mask: TokenMask | None = None
    ) -> Float[Array, "B T C"]:
        width = x.shape[-1]

        def norm(i, x):
            return nn.LayerNorm(1e-5, dtype=self.dtype, name=f"norm_{i}")(x)

        h = norm(1, x)
        read, mask = (tokens, token_mask) if self.only_cross else (h, None)
        x = layers.once(x + CrossAttention(self.heads, self.dtype, name="self_attention")(h, read, mask))
        attend = CrossAttention(self.heads, self.dtype, name="cross_attention")
        x = layers.once(x + attend(norm(2, x), tokens, token_mask))
        h = layers.dense(8 * width, name="mlp_1", dtype=self.dtype)(norm(3, x))
        value, gate = jnp.split(h, 2, axis=-1)
        h = value * nn.gelu(gate, approximate=False)
        return layers.once(x + layers.dense(width, name="mlp_2", dtype=self.dtype)(h))


class TransformerBlocks(nn.Module):
    """x + zero projection(blocks(projection(norm(x)))): what a `SpatialTransformer` describes."""

    value: SpatialTransformer
    norm_groups: int = 32
    norm_eps: float = 1e-6
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Image, tokens: Tokens, token_mask: TokenMask | None = None) -> Image:
        b, height, width, channels = x.shape
        heads = layers.count_heads(channels, self.value.heads, self.value.head_channels)

        def project(name: str, h: Array, zero: bool = False) -> Array:
            if self.value.linear:
                return layers.dense(channels, name=name, dtype=self.dtype, zero=zero)(h)
            picture = h.reshape(x.shape)
            h = layers.conv(channels, name=name, dtype=self.dtype, size=1, zero=zero)(picture)
            return h.reshape(b, height * width, channels)

        h = layers.GroupNorm(self.norm_groups, self.norm_eps, self.dtype, name="norm")(x) if self.norm_groups else x
        h = project("proj_in", h.reshape(b, height * width, channels))
        for i in range(self.value.depth):
            h = TransformerBlock(heads, self.value.only_cross, self.dtype, name=f"block_{i}")(h, tokens, token_mask)
        return layers.once(x + project("proj_out", h, zero=True).reshape(x.shape))
