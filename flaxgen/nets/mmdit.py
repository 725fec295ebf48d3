"""MMDiT, the transformer of Stable Diffusion 3: patches and text tokens read each other, each kind with weights of its
own [Esser24, sec. 4]."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from flaxgen.nets import layers
from flaxgen.nets.patched import (
    NORM_EPS,
    WAVES,
    Head,
    Modulation,
    Move,
    Sequence,
    check_patched,
    embed_patches,
    feed_forward,
    modulated,
    patch_places,
)
from flaxgen.nets.unet import DTYPES

Heads = Float[Array, "B T N D"]
Joint = Bool[Array, "B 1 1 S"]
"""True where a place may be read."""


class MMDiT(nn.Module):
    """Predicts from a noisy latent, the time, text tokens and a vector of pooled text; the defaults are SD3-medium's.

    `depth` blocks of `width` channels over patches of `patch` x `patch` pixels and over tokens of `token_dim`;
    `vector_dim` is the width of the vector. `qk_norm` normalises queries and keys of every head by their root mean
    square [Esser24, sec. 5.3.2], and blocks listed in `dual_blocks` let patches read patches once more, as in SD3.5.
    Places come from the middle of a table of `max_places` x `max_places`, which is kept with the weights and not
    trained; at first it spans as a whole what the patches of `image_size` pixels span. `num_classes` is the rows of a
    label table, the null label's included, and `learned_variance` doubles the output channels; SD3 has neither. `dtype`
    is what is computed in; parameters and output are float32. `remat` trades a second forward pass for memory.
    """

    image_size: int = 128
    in_channels: int = 16
    out_channels: int = 16
    patch: int = 2
    width: int = 1536
    depth: int = 24
    heads: int = 24
    token_dim: int = 4096
    vector_dim: int = 2048
    max_places: int = 192
    qk_norm: bool = False
    dual_blocks: tuple[int, ...] = ()
    num_classes: int = 0
    learned_variance: bool = False
    dtype: str = "float32"
    remat: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B H W C"],
        time: Float[Array, " B"],
        label: Int[Array, " B"] | None = None,
        tokens: Float[Array, "B N E"] | None = None,
        token_mask: Bool[Array, "B N"] | None = None,
        vector: Float[Array, "B V"] | None = None,
        train: bool = False,
    ) -> Float[Array, "B H W O"]:
        """The prediction for x at `time`, in the units the net was trained with (1000 t in SD3).

        `token_mask` is True where a token may be read. Nothing depends on `train`.

        Raises:
            ValueError: if a condition is missing or not known to this net, or patches do not divide x or are more than
                the table has places.
        """
        check_patched(self, x, tokens, token_mask)
        self._check(x)
        dtype = DTYPES[self.dtype]
        emb = layers.Conditioning(
            WAVES,
            self.width,
            time_order="cos_sin",
            num_classes=self.num_classes,
            vector_dim=self.vector_dim,
            dtype=dtype,
            name="condition",
        )(time, label, vector=vector)
        h = embed_patches(x, self.patch, self.width, dtype)
        grid = h.shape
        h = (h + self._places(grid[1], grid[2]).astype(dtype)[None]).reshape(grid[0], -1, self.width)
        text = layers.dense(self.width, name="token_in", dtype=dtype)(tokens)
        readable = None if token_mask is None else _readable(token_mask, h.shape[1])
        block = nn.remat(JointBlock) if self.remat else JointBlock
        for i in range(self.depth):
            last, dual = i == self.depth - 1, i in self.dual_blocks
            make = block(self.heads, self.qk_norm, dual, last, dtype, name=f"block_{i}")
            h, text = make(h, text, emb, readable)
        channels = self.out_channels * (1 + self.learned_variance)
        return Head(channels, self.patch, dtype, name="head")(h.reshape(grid), emb)

    def _places(self, height: int, width: int) -> Float[Array, "h w W"]:
        """The middle of the table."""
        side, extent = self.max_places, self.image_size // self.patch
        table = self.param("place_table", lambda _: patch_places(side, side, self.width, extent))
        top, left = (side - height) // 2, (side - width) // 2
        return jax.lax.stop_gradient(table)[top : top + height, left : left + width]

    def _check(self, x: Array) -> None:
        layers.check_positive(self, "token_dim", "max_places")
        height, width = x.shape[1] // self.patch, x.shape[2] // self.patch
        if max(height, width) > self.max_places:
            raise ValueError(
                f"a picture of {height}x{width} patches, but max_places={self.max_places}: draw a smaller one"
            )
        if wrong := [i for i in self.dual_blocks if not 0 <= i < self.depth]:
            raise ValueError(f"dual_blocks has {wrong[0]}, but depth={self.depth} has blocks 0 to {self.depth - 1}")


def _readable(token_mask: Bool[Array, "B N"], patches: int) -> Joint:
    """All patches, and the tokens behind them that the mask shows."""
    return jnp.pad(token_mask, ((0, 0), (patches, 0)), constant_values=True)[:, None, None]


class JointBlock(nn.Module):
    """One attention over patches and tokens, and an MLP for each kind, with gates and norms that the conditions set
    [Esser24, fig. 2].

    With `dual` patches read patches alone beside that. After the `last` block nobody reads the tokens, which end there.
    """

    heads: int
    qk_norm: bool = False
    dual: bool = False
    last: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Sequence, text: Float[Array, "B N W"], emb: Float[Array, "B W"], readable: Joint | None = None
    ) -> tuple[Sequence, Float[Array, "B N W"]]:
        move = Modulation(9 if self.dual else 6, self.dtype, name="modulation")(emb)
        text_move = Modulation(2 if self.last else 6, self.dtype, name="token_modulation")(emb)
        own = self._heads("attention", modulated(x, move[0], move[1], self.dtype))
        others = self._heads("token_attention", modulated(text, text_move[0], text_move[1], self.dtype))
        query, key, value = (jnp.concatenate(pair, axis=1) for pair in zip(own, others, strict=True))
        read = layers.attention(query, key, value, readable).reshape(x.shape[0], -1, x.shape[-1])
        read, text_read = jnp.split(read, [x.shape[1]], axis=1)
        attended = move[2] * self._out("out", read)
        if self.dual:
            h = layers.attention(*self._heads("dual_attention", modulated(x, move[6], move[7], self.dtype)))
            attended = attended + move[8] * self._out("dual_out", h.reshape(x.shape))
        x = self._add(x, attended, move[3:6], "mlp")
        if not self.last:
            attended = text_move[2] * self._out("token_out", text_read)
            text = self._add(text, attended, text_move[3:6], "token_mlp")
        return x, text

    def _heads(self, name: str, h: Sequence) -> tuple[Heads, Heads, Heads]:
        return Projections(self.heads, self.qk_norm, self.dtype, name=name)(h)

    def _out(self, name: str, h: Sequence) -> Sequence:
        return layers.dense(h.shape[-1], name=name, dtype=self.dtype)(h)

    def _add(self, x: Sequence, attended: Sequence, move: list[Move], name: str) -> Sequence:
        """x + what it has read, then x + gate MLP(norm(x))."""
        shift, scale, gate = move
        x = layers.once(x + attended)
        return layers.once(x + gate * feed_forward(modulated(x, shift, scale, self.dtype), name, self.dtype))


class Projections(nn.Module):
    """Query, key and value of every head, with `norm` query and key over their root mean square."""

    heads: int
    norm: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Sequence) -> tuple[Heads, Heads, Heads]:
        def project(name: str, norm: bool) -> Heads:
            h = layers.split_heads(layers.dense(x.shape[-1], name=name, dtype=self.dtype)(x), self.heads)
            return nn.RMSNorm(NORM_EPS, self.dtype, name=f"{name}_norm")(h) if norm else h

        return project("query", self.norm), project("key", self.norm), project("value", False)
