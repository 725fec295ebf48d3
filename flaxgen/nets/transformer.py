"""The pre-norm transformer [Vaswani17; Radford19] of CLIP, the priors and DALL-E, with caches of keys and values."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from flaxgen.nets import layers

Mask = Bool[Array, "#B #N T S"]


class Cache(NamedTuple):
    """Keys and values of one layer, for every place of the sequence; places not yet reached hold zeros."""

    key: Float[Array, "B S N D"]
    value: Float[Array, "B S N D"]


class Attention(nn.Module):
    """Self-attention with `heads` heads; with a cache, the T new places are written to it and read all of it."""

    heads: int
    dtype: Any = jnp.float32
    bias: bool = True

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T W"],
        mask: Mask | None = None,
        cache: Cache | None = None,
        place: Int[Array, ""] | int = 0,
    ) -> tuple[Float[Array, "B T W"], Cache | None]:
        width = x.shape[-1]
        layers.count_heads(width, self.heads, 0)
        query, key, value = (
            layers.split_heads(layers.dense(width, name=name, dtype=self.dtype, bias=self.bias)(x), self.heads)
            for name in ("query", "key", "value")
        )
        if cache is not None:
            cache = Cache(*(_write(old, new, place) for old, new in zip(cache, (key, value), strict=True)))
            key, value = cache.key.astype(query.dtype), cache.value.astype(query.dtype)
        out = layers.attention(query, key, value, mask).reshape(x.shape)
        return layers.dense(width, name="out", dtype=self.dtype, bias=self.bias)(out), cache


def _write(old, new, place):
    return jax.lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), place, axis=1)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); the MLP is `mlp_ratio` times as wide.

    `dropout` is the rate that is in force on what is added, 0 where nothing trains.
    """

    heads: int
    mlp_ratio: float = 4.0
    activation: str = "gelu"
    norm_eps: float = 1e-5
    dtype: Any = jnp.float32
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T W"],
        mask: Mask | None = None,
        cache: Cache | None = None,
        place: Int[Array, ""] | int = 0,
    ) -> tuple[Float[Array, "B T W"], Cache | None]:
        layers.check_choice("activation", self.activation, tuple(layers.ACTIVATIONS))
        width = x.shape[-1]
        normed = nn.LayerNorm(self.norm_eps, dtype=self.dtype, name="norm_1")(x)
        attended, cache = Attention(self.heads, self.dtype, name="attention")(normed, mask, cache, place)
        x = layers.once(x + self._drop(attended))
        h = nn.LayerNorm(self.norm_eps, dtype=self.dtype, name="norm_2")(x)
        h = layers.dense(round(self.mlp_ratio * width), name="mlp_1", dtype=self.dtype)(h)
        h = layers.dense(width, name="mlp_2", dtype=self.dtype)(layers.ACTIVATIONS[self.activation](h))
        return layers.once(x + self._drop(h)), cache

    def _drop(self, h: Array) -> Array:
        return nn.Dropout(self.dropout)(h, deterministic=False) if self.dropout else h


class Transformer(nn.Module):
    """`depth` blocks, without embeddings, positions or final norm; the width is that of its input.

    `mask` is True where place t may read place s; several are one a block. With `caches` (see `empty_caches`) the input
    are the places from `place` on, and S is the length of the caches. `remat` trades a second forward pass for memory.
    `dropout` is as in Block.
    """

    depth: int
    heads: int
    mlp_ratio: float = 4.0
    activation: str = "gelu"
    norm_eps: float = 1e-5
    dtype: Any = jnp.float32
    remat: bool = False
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T W"],
        mask: Mask | tuple[Mask, ...] | None = None,
        caches: tuple[Cache, ...] | None = None,
        place: Int[Array, ""] | int = 0,
    ) -> tuple[Float[Array, "B T W"], tuple[Cache, ...] | None]:
        """The last block's output, and the caches with the new places in them.

        Raises:
            ValueError: if there are several masks and not one a block.
        """
        masks = mask if isinstance(mask, tuple) else (mask,) * self.depth
        if len(masks) != self.depth:
            raise ValueError(f"{len(masks)} masks for depth={self.depth}: expected one a block, or one for all")
        block = nn.remat(Block) if self.remat else Block
        filled = []
        for i in range(self.depth):
            make = block(
                self.heads, self.mlp_ratio, self.activation, self.norm_eps, self.dtype, self.dropout, name=f"block_{i}"
            )
            x, cache = make(x, masks[i], None if caches is None else caches[i], place)
            filled.append(cache)
        return x, None if caches is None else tuple(filled)


def empty_caches(
    depth: int, batch: int, length: int, heads: int, head_width: int, dtype: Any = jnp.float32
) -> tuple[Cache, ...]:
    """Caches for `depth` layers and sequences of `length` places."""
    shape = (batch, length, heads, head_width)
    return tuple(Cache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)) for _ in range(depth))


def causal_mask(queries: int, keys: int, place: Int[Array, ""] | int = 0) -> Bool[Array, "1 1 T S"]:
    """True where a place at or before one's own is read; the first query stands at `place`."""
    return (jnp.arange(keys)[None] <= place + jnp.arange(queries)[:, None])[None, None]
