"""The autoregressive prior of unCLIP [Ramesh22, sec. 2.2]: an image embedding as codes, one after the other."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from flaxgen.nets import layers
from flaxgen.nets.prior import check_text, readable
from flaxgen.nets.transformer import Cache, Transformer, causal_mask, empty_caches
from flaxgen.nets.unet import DTYPES

EXTRA = 2
"""Tokens between the text and the codes: the text's embedding, and its dot product with the image's."""


class ARPrior(nn.Module):
    """Logits of every code given the caption and the codes before it; the defaults are close to the paper's.

    A causal transformer over `context` text tokens (`text_dim` wide), the caption's CLIP embedding, its quantised dot
    product with the image embedding, and the codes: `dims` principal components of the image embedding in `buckets`
    buckets each (see tokens/quantise.py). Codes of all components share one table and one head; the learned positions
    tell them apart. `dtype` is what is computed in; parameters and logits are float32. `remat` trades a second forward
    pass for memory.
    """

    embedding_dim: int = 768
    text_dim: int = 768
    context: int = 77
    dims: int = 319
    buckets: int = 1024
    dot_buckets: int = 1024
    width: int = 2048
    depth: int = 24
    heads: int = 32
    activation: str = "gelu"
    dtype: str = "float32"
    remat: bool = False

    def setup(self) -> None:
        layers.check_choice("dtype", self.dtype, tuple(DTYPES))
        dtype, normal = DTYPES[self.dtype], nn.initializers.normal(0.02)
        self.text_in = nn.Dense(self.width, dtype=dtype, kernel_init=layers.INIT)
        self.text_embedding_in = nn.Dense(self.width, dtype=dtype, kernel_init=layers.INIT)
        self.dot_in = nn.Embed(self.dot_buckets, self.width, dtype=dtype, embedding_init=normal)
        self.code_in = nn.Embed(self.buckets, self.width, dtype=dtype, embedding_init=normal)
        self.positions = self.param("positions", normal, (self._places(), self.width))
        self.transformer = Transformer(
            self.depth, self.heads, activation=self.activation, dtype=dtype, remat=self.remat
        )
        self.norm_out = nn.LayerNorm(1e-5, dtype=dtype)
        self.out = nn.Dense(self.buckets, dtype=dtype, kernel_init=layers.ZERO)

    def __call__(
        self,
        codes: Int[Array, "B K"],
        dot_code: Int[Array, " B"],
        text_embedding: Float[Array, "B D"],
        text_hidden: Float[Array, "B L W"],
        text_mask: Bool[Array, "B L"],
        train: bool = False,
    ) -> Float[Array, "B K buckets"]:
        """Logits of all codes at once, code k from the codes before it; nothing depends on `train`.

        `text_embedding` is projected, `text_hidden` is after CLIP's last norm and not projected; `text_mask` is True at
        the tokens of the caption and False at padding.

        Raises:
            ValueError: if an input has another size than the fields say.
        """
        if codes.shape[1] != self.dims:
            raise ValueError(f"{codes.shape[1]} codes an example, dims={self.dims} expects {self.dims}")
        prefix = self._prefix(dot_code, text_embedding, text_hidden)
        tokens = jnp.concatenate((prefix, self.code_in(codes[:, :-1])), axis=1)
        places = self._places()
        h, _ = self.transformer(self._at(tokens, 0), causal_mask(places, places) & self._readable(text_mask))
        return self._logits(h[:, -self.dims :])

    def start(
        self,
        dot_code: Int[Array, " B"],
        text_embedding: Float[Array, "B D"],
        text_hidden: Float[Array, "B L W"],
        text_mask: Bool[Array, "B L"],
    ) -> tuple[Float[Array, "B buckets"], tuple[Cache, ...]]:
        """Logits of the first code, and the caches that `step` goes on from."""
        head_width, dtype = self.width // self.heads, DTYPES[self.dtype]
        caches = empty_caches(self.depth, dot_code.shape[0], self._places(), self.heads, head_width, dtype)
        return self._go_on(self._prefix(dot_code, text_embedding, text_hidden), 0, caches, text_mask)

    def step(
        self,
        code: Int[Array, " B"],
        place: Int[Array, ""] | int,
        caches: tuple[Cache, ...],
        text_mask: Bool[Array, "B L"],
    ) -> tuple[Float[Array, "B buckets"], tuple[Cache, ...]]:
        """Logits of code `place` + 1, given that code `place` (from 0 to dims - 2) is `code`."""
        return self._go_on(self.code_in(code)[:, None], self.context + EXTRA + place, caches, text_mask)

    def _go_on(self, tokens, place, caches, text_mask) -> tuple[Array, Any]:
        """Logits behind the last of the tokens that stand from `place` on, and the caches with them in it."""
        mask = causal_mask(tokens.shape[1], self._places(), place) & self._readable(text_mask)
        h, caches = self.transformer(self._at(tokens, place), mask, caches, place)
        return self._logits(h[:, -1]), caches

    def _places(self) -> int:
        """The last code is predicted, and never read."""
        return self.context + EXTRA + self.dims - 1

    def _readable(self, text_mask):
        return readable(text_mask, self._places() - self.context)

    def _prefix(self, dot_code, text_embedding, text_hidden):
        check_text(self, text_embedding, text_hidden)
        single = (self.text_embedding_in(text_embedding), self.dot_in(dot_code))
        return jnp.concatenate((self.text_in(text_hidden), jnp.stack(single, axis=1)), axis=1)

    def _at(self, tokens: Float[Array, "B T W"], place: Int[Array, ""] | int) -> Float[Array, "B T W"]:
        """The tokens with the positions from `place` on added."""
        positions = jax.lax.dynamic_slice_in_dim(self.positions, place, tokens.shape[1])
        return tokens + positions.astype(tokens.dtype)[None]

    def _logits(self, h):
        return self.out(self.norm_out(h)).astype(jnp.float32)
