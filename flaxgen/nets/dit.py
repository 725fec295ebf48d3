"""DiT, the transformer over patches that denoises latents or small pictures [Peebles23]."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from flaxgen.nets import layers
from flaxgen.nets.attention import CrossAttention, TokenMask, Tokens
from flaxgen.nets.patched import (
    NORM_EPS,
    WAVES,
    Head,
    Modulation,
    Sequence,
    check_patched,
    embed_patches,
    feed_forward,
    modulated,
    patch_places,
)
from flaxgen.nets.unet import DTYPES


class DiT(nn.Module):
    """Predicts from a noisy picture and the time; the defaults are DiT-XL/2's [Peebles23, table 1], without a label.

    `depth` blocks of `width` channels over patches of `patch` x `patch` pixels; `image_size` is that of the pictures
    or latents it is trained on, and places of other sizes are stretched to it. `num_classes` is the rows of the label
    table, the null label's included, and `vector_dim` the width of one more condition [Podell23, sec. 2.2]; both join
    the time. With `token_dim`, the width of tokens, every block reads them after it has read the patches, by
    cross-attention that the time does not modulate [Chen23b, sec. 2.3]; 0 is none. `learned_variance` doubles the
    output channels.
    `time_shift` 1 and `mlp_norm_eps` 1e-5 are how diffusers computes it; 0 and 1e-6, the authors' code. `dtype` is what
    is computed in; parameters and output are float32. `remat` trades a second forward pass for memory.
    """

    image_size: int = 32
    in_channels: int = 4
    out_channels: int = 4
    patch: int = 2
    width: int = 1152
    depth: int = 28
    heads: int = 16
    num_classes: int = 0
    token_dim: int = 0
    vector_dim: int = 0
    learned_variance: bool = False
    time_shift: int = 0
    mlp_norm_eps: float = NORM_EPS
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
        """The prediction for x at `time`, in the units the net was trained with (0 .. T-1 of a table).

        `token_mask` is True where a token may be read. Nothing depends on `train`.

        Raises:
            ValueError: if a condition is missing or not known to this net, or patches do not divide x.
        """
        check_patched(self, x, tokens, token_mask)
        dtype = DTYPES[self.dtype]
        emb = layers.Conditioning(
            WAVES,
            self.width,
            time_order="cos_sin",
            time_shift=self.time_shift,
            num_classes=self.num_classes,
            vector_dim=self.vector_dim,
            dtype=dtype,
            name="condition",
        )(time, label, vector=vector)
        read = None if tokens is None else self._project(tokens, dtype)
        h = embed_patches(x, self.patch, self.width, dtype)
        grid = h.shape
        h = h + patch_places(grid[1], grid[2], self.width, self.image_size // self.patch).astype(dtype)[None]
        h = h.reshape(grid[0], -1, self.width)
        block = nn.remat(Block) if self.remat else Block
        for i in range(self.depth):
            h = block(self.heads, self.mlp_norm_eps, dtype, name=f"block_{i}")(h, emb, read, token_mask)
        channels = self.out_channels * (1 + self.learned_variance)
        return Head(channels, self.patch, dtype, name="head")(h.reshape(grid), emb)

    def _project(self, tokens: Tokens, dtype: Any) -> Float[Array, "B N W"]:
        """Linear(GELU(linear(tokens))), as wide as the blocks."""
        h = layers.ACTIVATIONS["gelu_tanh"](layers.dense(self.width, name="token_1", dtype=dtype)(tokens))
        return layers.dense(self.width, name="token_2", dtype=dtype)(h)


class Block(nn.Module):
    """x + gate attention(norm(x)), then x + cross-attention(x, tokens) where there are any, then x + gate MLP(norm(x));
    the conditions set gates and norms [Peebles23, fig. 3]."""

    heads: int
    mlp_norm_eps: float = NORM_EPS
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Sequence, emb: Float[Array, "B W"], tokens: Tokens | None = None, token_mask: TokenMask | None = None
    ) -> Sequence:
        moves = Modulation(6, self.dtype, name="modulation")(emb)
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = moves
        h = modulated(x, shift, scale, self.dtype)
        h = CrossAttention(self.heads, self.dtype, bias=True, name="self_attention")(h, h)
        x = layers.once(x + gate * h)
        if tokens is not None:
            attend = CrossAttention(self.heads, self.dtype, bias=True, zero=True, name="cross_attention")
            x = layers.once(x + attend(x, tokens, token_mask))
        h = modulated(x, mlp_shift, mlp_scale, self.dtype, self.mlp_norm_eps)
        return layers.once(x + mlp_gate * feed_forward(h, "mlp", self.dtype))
