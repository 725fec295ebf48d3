"""DALL-E's transformer [Ramesh21, sec. 2.2, app. B]: a caption and the codes of its picture as one sequence."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from flaxgen.nets import layers
from flaxgen.nets.sparse_mask import layer_kinds, sparse_mask
from flaxgen.nets.transformer import Cache, Transformer, empty_caches
from flaxgen.nets.unet import DTYPES

ATTENTIONS = ("sparse", "full")


class Dalle(nn.Module):
    """Logits of every text token and every code of a map given those before it; the defaults are the paper's.

    The sequence is `context` tokens of text out of `text_tokens`, a token that begins the picture, and all but the last
    of `rows` x `columns` codes out of `codes`, in raster order. Where a caption has ended, every place holds a padding
    token of its own, which is read and predicted like text. Text has learned positions; a code, learned rows and
    columns. `attention` is "sparse", a kind a layer (`layer_kinds`) with kernels of `conv_size`, or "full" in all.

    `dtype` is what is computed in; parameters and logits are float32. `remat` trades a second forward pass for memory.
    """

    text_tokens: int = 16_384
    context: int = 256
    rows: int = 32
    columns: int = 32
    codes: int = 8192
    width: int = 3968
    depth: int = 64
    heads: int = 62
    attention: str = "sparse"
    conv_size: int = 11
    activation: str = "gelu"
    dtype: str = "float32"
    remat: bool = False

    def setup(self) -> None:
        layers.check_choice("dtype", self.dtype, tuple(DTYPES))
        layers.check_choice("attention", self.attention, ATTENTIONS)
        layers.check_positive(self, "text_tokens", "context", "rows", "columns", "codes")
        if self.conv_size < 1 or self.conv_size % 2 == 0:
            raise ValueError(f"conv_size={self.conv_size}: expected an odd number, so that a kernel has a middle")
        dtype, normal = DTYPES[self.dtype], nn.initializers.normal(0.02)

        def table(size: int) -> nn.Embed:
            return nn.Embed(size, self.width, dtype=dtype, embedding_init=normal)

        self.text_in = table(self.text_tokens + self.context)
        self.code_in = table(self.codes)
        self.text_position, self.row, self.column = map(table, (self.context, self.rows, self.columns))
        self.begin = self.param("begin", normal, (self.width,))
        self.transformer = Transformer(
            self.depth, self.heads, activation=self.activation, dtype=dtype, remat=self.remat
        )
        self.norm_out = nn.LayerNorm(1e-5, dtype=dtype)
        self.text_out = nn.Dense(self.text_tokens + self.context, dtype=dtype, kernel_init=layers.ZERO)
        self.code_out = nn.Dense(self.codes, dtype=dtype, kernel_init=layers.ZERO)

    def __call__(
        self,
        text: Int[Array, "B L"],
        text_mask: Bool[Array, "B L"],
        codes: Int[Array, "B h w"],
        train: bool = False,
    ) -> tuple[Float[Array, "B L-1 V"], Float[Array, "B h w K"]]:
        """Logits of the text from its second token on (the first is the same for every caption), and of all codes.

        `text_mask` is True at the tokens of the caption and False at padding. What the logits of text predict is
        `own_padding(text, text_mask, text_tokens)[:, 1:]`: V is `text_tokens` and `context` tokens of padding. Nothing
        depends on `train`.

        Raises:
            ValueError: if an input has another size than the fields say.
        """
        if codes.shape[1:] != (self.rows, self.columns):
            raise ValueError(f"codes of {codes.shape[1]} x {codes.shape[2]}, expected {self.rows} x {self.columns}")
        flat = codes.reshape(codes.shape[0], -1)
        h, _ = self._read(self._prefix(text, text_mask, flat[:, :-1]), 0, None)
        text_logits = self.text_out(h[:, : self.context - 1]).astype(jnp.float32)
        return text_logits, self._code_logits(h[:, self.context :]).reshape(*codes.shape, self.codes)

    def start(
        self, text: Int[Array, "B L"], text_mask: Bool[Array, "B L"], known: Int[Array, "B N"] | None = None
    ) -> tuple[Float[Array, "B K"], tuple[Cache, ...]]:
        """Logits of the first code that is not `known`, and the caches that `step` goes on from.

        Known are the first codes of the map in raster order, such as the upper half of a picture; None are none.

        Raises:
            ValueError: if the text has another size than the fields say, or no code is left.
        """
        known = jnp.zeros((text.shape[0], 0), jnp.int32) if known is None else known
        if known.shape[1] >= self.rows * self.columns:
            raise ValueError(f"{known.shape[1]} codes are known, expected less than {self.rows} x {self.columns}")
        places, head_width = self.context + self.rows * self.columns, self.width // self.heads
        caches = empty_caches(self.depth, text.shape[0], places, self.heads, head_width, DTYPES[self.dtype])
        return self._go_on(self._prefix(text, text_mask, known), 0, caches)

    def step(
        self, code: Int[Array, " B"], place: Int[Array, ""] | int, caches: tuple[Cache, ...]
    ) -> tuple[Float[Array, "B K"], tuple[Cache, ...]]:
        """Logits of code `place` + 1, given that code `place` (from 0 to rows x columns - 2, in raster order) is
        `code`."""
        place = jnp.asarray(place)
        return self._go_on(self._placed(code[:, None], place[None]), self.context + 1 + place, caches)

    def _go_on(self, tokens, place, caches) -> tuple[Array, Any]:
        """Logits of the code behind the last of the tokens that stand from `place` on, and caches with them in it."""
        h, caches = self._read(tokens, place, caches)
        return self._code_logits(h[:, -1]), caches

    def _read(self, tokens, place, caches) -> tuple[Array, Any]:
        """What the last layer makes of the tokens that stand from `place` on."""
        kinds = layer_kinds(self.depth) if self.attention == "sparse" else ("full",) * self.depth
        places = place + jnp.arange(tokens.shape[1])
        shape = (self.context, self.rows, self.columns, self.conv_size)
        masks = {kind: sparse_mask(kind, places, *shape) for kind in set(kinds)}
        h, caches = self.transformer(tokens, tuple(masks[kind] for kind in kinds), caches, place)
        return self.norm_out(h), caches

    def _prefix(self, text, text_mask, codes) -> Float[Array, "B T W"]:
        """The text, the token that begins the picture, and the first codes, as the transformer reads them."""
        if text.shape[1] != self.context:
            raise ValueError(f"the text has {text.shape[1]} places, expected context={self.context}")
        words = self.text_in(own_padding(text, text_mask, self.text_tokens))
        words = words + self.text_position(jnp.arange(self.context))[None]
        begin = jnp.broadcast_to(self.begin.astype(words.dtype), (text.shape[0], 1, self.width))
        return jnp.concatenate((words, begin, self._placed(codes, jnp.arange(codes.shape[1]))), axis=1)

    def _placed(self, codes: Int[Array, "B T"], places: Int[Array, " T"]) -> Float[Array, "B T W"]:
        """Codes with their rows and columns, as the transformer reads them."""
        return self.code_in(codes) + (self.row(places // self.columns) + self.column(places % self.columns))[None]

    def _code_logits(self, h: Float[Array, "B *T W"]) -> Float[Array, "B *T K"]:
        return self.code_out(h).astype(jnp.float32)


def own_padding(text: Int[Array, "B L"], text_mask: Bool[Array, "B L"], text_tokens: int) -> Int[Array, "B L"]:
    """The text with a padding token of its own at every place that has none of the caption's: `text_tokens` + place
    [Ramesh21, sec. 2.2]."""
    return jnp.where(text_mask, text, text_tokens + jnp.arange(text.shape[1])[None])
