"""dalle-mini and dalle-mega (Craiyon) [Dayma21]: a BART that reads a caption and writes the codes of its picture.

An encoder and a decoder [Lewis20] whose attention is normalised before and after, and whose MLP is gated and normalised
inside [Shleifer21; Shazeer20]. No linear layer has a bias, and a norm before one has no scale, which the next layer's
weights would only repeat.
"""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from flaxgen.nets import layers
from flaxgen.nets.transformer import Attention, Cache, Mask, causal_mask, empty_caches
from flaxgen.nets.unet import DTYPES

EPS = 1e-5


class Memory(NamedTuple):
    """What `DalleMini.step` goes on from: the decoder's keys and values of the codes so far and, made once, of the
    text, each one a layer; and where there is text to read."""

    codes: tuple[Cache, ...]
    text: tuple[Cache, ...]
    readable: Bool[Array, "B 1 1 L"]


def _norm(dtype: Any, scale: bool = True, name: str | None = None) -> nn.LayerNorm:
    return nn.LayerNorm(EPS, dtype=dtype, use_scale=scale, name=name)


class GatedMlp(nn.Module):
    """Linear(norm(activation(gate(x)) * value(x))) of norm(x), `inner` wide inside [Shazeer20, eq. 6]."""

    inner: int
    activation: str = "gelu"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B T W"]) -> Float[Array, "B T W"]:
        h = _norm(self.dtype, scale=False, name="norm_in")(x)
        gate, value = (
            layers.dense(self.inner, name=name, dtype=self.dtype, bias=False)(h) for name in ("gate", "value")
        )
        h = _norm(self.dtype, scale=False, name="norm_out")(layers.ACTIVATIONS[self.activation](gate) * value)
        return layers.dense(x.shape[-1], name="out", dtype=self.dtype, bias=False)(h)


class CrossAttention(nn.Module):
    """Attention over a text whose keys and values are made once, by `remember`, and read as often as need be."""

    width: int
    heads: int
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.query, self.key, self.value, self.out = (
            nn.Dense(self.width, use_bias=False, dtype=self.dtype, kernel_init=layers.INIT) for _ in range(4)
        )

    def remember(self, text: Float[Array, "B L W"]) -> Cache:
        """The keys and values of a text."""
        return Cache(*(layers.split_heads(project(text), self.heads) for project in (self.key, self.value)))

    def __call__(
        self, x: Float[Array, "B T W"], text: Cache, readable: Bool[Array, "B 1 1 L"]
    ) -> Float[Array, "B T W"]:
        query = layers.split_heads(self.query(x), self.heads)
        return self.out(layers.attention(query, text.key, text.value, readable).reshape(x.shape))


class Block(nn.Module):
    """x + norm(attention(norm(x))), of the decoder x + norm(cross-attention(norm(x), text)), then x + MLP(x)."""

    width: int
    heads: int
    inner: int
    activation: str = "gelu"
    dtype: Any = jnp.float32
    cross: bool = False

    def setup(self) -> None:
        layers.check_choice("activation", self.activation, tuple(layers.ACTIVATIONS))
        self.norm_in, self.norm_out = _norm(self.dtype, scale=False), _norm(self.dtype)
        self.attention = Attention(self.heads, self.dtype, bias=False)
        if self.cross:
            self.cross_norm_in, self.cross_norm_out = _norm(self.dtype, scale=False), _norm(self.dtype)
            self.cross_attention = CrossAttention(self.width, self.heads, self.dtype)
        self.mlp = GatedMlp(self.inner, self.activation, self.dtype)

    def remember(self, text: Float[Array, "B L W"]) -> Cache:
        """The keys and values that the block reads of a text."""
        return self.cross_attention.remember(text)

    def __call__(
        self,
        x: Float[Array, "B T W"],
        mask: Mask,
        text: Cache | None = None,
        readable: Bool[Array, "B 1 1 L"] | None = None,
        cache: Cache | None = None,
        place: Int[Array, ""] | int = 0,
    ) -> tuple[Float[Array, "B T W"], Cache | None]:
        attended, cache = self.attention(self.norm_in(x), mask, cache, place)
        x = layers.once(x + self.norm_out(attended))
        if text is not None and readable is not None:
            x = layers.once(x + self.cross_norm_out(self.cross_attention(self.cross_norm_in(x), text, readable)))
        return layers.once(x + self.mlp(x)), cache


class Half(nn.Module):
    """The encoder, or with `cross` the decoder: tokens and positions, their norm, the blocks, and a last norm."""

    tokens: int
    places: int
    width: int
    heads: int
    inner: int
    depth: int
    activation: str = "gelu"
    scale_embedding: bool = False
    dtype: Any = jnp.float32
    remat: bool = False
    cross: bool = False

    def setup(self) -> None:
        normal = nn.initializers.normal(0.02)
        self.token = nn.Embed(self.tokens, self.width, dtype=self.dtype, embedding_init=normal)
        self.position = nn.Embed(self.places, self.width, dtype=self.dtype, embedding_init=normal)
        self.norm_in, self.norm_out = _norm(self.dtype), _norm(self.dtype, scale=False)
        block = nn.remat(Block) if self.remat else Block
        shape = (self.width, self.heads, self.inner, self.activation, self.dtype, self.cross)
        self.block = [block(*shape) for _ in range(self.depth)]

    def remember(self, text: Float[Array, "B L W"]) -> tuple[Cache, ...]:
        """The keys and values that every block of the decoder reads of a text."""
        return tuple(block.remember(text) for block in self.block)

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        mask: Mask,
        memory: Memory | None = None,
        place: Int[Array, ""] | int = 0,
    ) -> tuple[Float[Array, "B T W"], Memory | None]:
        """What the tokens that stand from `place` on become, and the memory with them in it."""
        scale = math.sqrt(self.width) if self.scale_embedding else 1.0
        h = self.norm_in(scale * self.token(tokens) + self.position(place + jnp.arange(tokens.shape[1]))[None])
        if memory is None:
            for block in self.block:
                h, _ = block(h, mask)
            return self.norm_out(h), None
        filled = []
        for block, text, cache in zip(self.block, memory.text, memory.codes or [None] * self.depth, strict=True):
            h, cache = block(h, mask, text, memory.readable, cache, place)
            filled.append(cache)
        return self.norm_out(h), memory._replace(codes=tuple(filled))


class DalleMini(nn.Module):
    """Logits of the codes of a picture, in raster order, given its caption; the defaults are dalle-mini's.

    The encoder reads `context` of `text_tokens` tokens; the decoder `length` codes of which the first is `begin`, the
    others those drawn so far. Tables and logits have `codes` + 1 rows, `begin` among them. Encoder and decoder have
    `depth` blocks each, with MLPs `inner` wide. With `scale_embedding` tokens are multiplied by the root of `width`.

    `dtype` is what is computed in; parameters and logits are float32. `remat` trades a second forward pass for memory.
    """

    text_tokens: int = 50_264
    context: int = 64
    codes: int = 16_384
    length: int = 256
    begin: int = 16_384
    width: int = 1024
    depth: int = 12
    heads: int = 16
    inner: int = 2730
    activation: str = "gelu"
    scale_embedding: bool = False
    dtype: str = "float32"
    remat: bool = False

    def setup(self) -> None:
        layers.check_choice("dtype", self.dtype, tuple(DTYPES))
        layers.check_positive(self, "text_tokens", "context", "codes", "length", "inner")
        layers.count_heads(self.width, self.heads, 0)
        if not 0 <= self.begin <= self.codes:
            raise ValueError(f"begin={self.begin}: expected one of the {self.codes} codes and one that there are")
        dtype = DTYPES[self.dtype]
        shape = (self.width, self.heads, self.inner, self.depth)
        rest = (self.activation, self.scale_embedding, dtype, self.remat)
        self.encoder = Half(self.text_tokens, self.context, *shape, *rest)
        self.decoder = Half(self.codes + 1, self.length, *shape, *rest, cross=True)
        self.out = nn.Dense(self.codes + 1, use_bias=False, dtype=dtype, kernel_init=layers.ZERO)

    def __call__(
        self,
        text: Int[Array, "B L"],
        text_mask: Bool[Array, "B L"],
        codes: Int[Array, "B N"],
        train: bool = False,
    ) -> Float[Array, "B N K"]:
        """Logits of all codes at once, code n from the caption and the codes before it; nothing depends on `train`.

        `text_mask` is True at the tokens of the caption and False at padding.

        Raises:
            ValueError: if an input has another size than the fields say.
        """
        if codes.shape[1] != self.length:
            raise ValueError(f"{codes.shape[1]} codes an example, length={self.length} expects {self.length}")
        memory = self._remember(self.encode(text, text_mask), text_mask)
        mask = causal_mask(self.length, self.length)
        return self._logits(self.decoder(self._shifted(codes[:, :-1]), mask, memory)[0])

    def encode(self, text: Int[Array, "B L"], text_mask: Bool[Array, "B L"]) -> Float[Array, "B L W"]:
        """What the decoder reads of captions; at padding, numbers that it never reads.

        Raises:
            ValueError: if the text has another size than the fields say.
        """
        if text.shape[1] != self.context:
            raise ValueError(f"the text has {text.shape[1]} places, expected context={self.context}")
        shape = (text.shape[0], 1, self.context, self.context)
        return self.encoder(text, jnp.broadcast_to(text_mask[:, None, None], shape))[0]

    def start(
        self, encoded: Float[Array, "B L W"], text_mask: Bool[Array, "B L"], known: Int[Array, "B N"] | None = None
    ) -> tuple[Float[Array, "B K"], Memory]:
        """Logits of the first code that is not `known`, and the memory that `step` goes on from.

        `encoded` is the output of `encode`; known are the first codes in raster order, None are none.

        Raises:
            ValueError: if no code is left.
        """
        known = jnp.zeros((encoded.shape[0], 0), jnp.int32) if known is None else known
        if known.shape[1] >= self.length:
            raise ValueError(f"{known.shape[1]} codes are known, expected less than length={self.length}")
        head_width, dtype = self.width // self.heads, DTYPES[self.dtype]
        caches = empty_caches(self.depth, encoded.shape[0], self.length, self.heads, head_width, dtype)
        memory = self._remember(encoded, text_mask)._replace(codes=caches)
        return self._go_on(self._shifted(known), 0, memory)

    def step(
        self, code: Int[Array, " B"], place: Int[Array, ""] | int, memory: Memory
    ) -> tuple[Float[Array, "B K"], Memory]:
        """Logits of code `place` + 1, given that code `place` (from 0 to length - 2) is `code`."""
        return self._go_on(code[:, None], place + 1, memory)

    def _go_on(self, tokens, place, memory) -> tuple[Array, Any]:
        """Logits of the code behind the last of the tokens that stand from `place` on, and memory with them in it."""
        h, memory = self.decoder(tokens, causal_mask(tokens.shape[1], self.length, place), memory, place)
        return self._logits(h[:, -1]), memory

    def _remember(self, encoded, text_mask) -> Memory:
        return Memory((), self.decoder.remember(encoded), text_mask[:, None, None])

    def _shifted(self, codes: Int[Array, "B N"]) -> Int[Array, "B N+1"]:
        """What the decoder reads before and of these codes."""
        return jnp.pad(codes, ((0, 0), (1, 0)), constant_values=self.begin)

    def _logits(self, h: Float[Array, "B *T W"]) -> Float[Array, "B *T K"]:
        return self.out(h).astype(jnp.float32)
