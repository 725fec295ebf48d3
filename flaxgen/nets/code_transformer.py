"""Transformers over a grid of codes: one that goes from the first to the last, and one that fills in what is masked."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from flaxgen.nets import layers
from flaxgen.nets.transformer import Cache, Transformer, causal_mask, empty_caches
from flaxgen.nets.unet import DTYPES

NORMAL = nn.initializers.normal(0.02)


class CodeTokens(nn.Module):
    """Tokens of a grid's places in raster order, each a row for its code, one for its row and one for its column; and
    the token that stands before them, the label's row of a table, or with `num_classes` 0 a learned one."""

    height: int
    width: int
    codes: int
    num_classes: int
    features: int
    dtype: Any

    def setup(self) -> None:
        self.code = nn.Embed(self.codes, self.features, dtype=self.dtype, embedding_init=NORMAL)
        self.label = nn.Embed(max(self.num_classes, 1), self.features, dtype=self.dtype, embedding_init=NORMAL)
        self.rows = self.param("rows", NORMAL, (self.height, self.features))
        self.columns = self.param("columns", NORMAL, (self.width, self.features))

    def __call__(self, codes: Int[Array, "B T"], place: Int[Array, ""] | int = 0) -> Float[Array, "B T F"]:
        """Tokens of the codes that stand from `place` on."""
        at = place + jnp.arange(codes.shape[1])
        where = jnp.take(self.rows, at // self.width, axis=0) + jnp.take(self.columns, at % self.width, axis=0)
        return self.code(codes) + where.astype(self.dtype)[None]

    def before(self, label: Int[Array, " B"] | None, batch: int) -> Float[Array, "B 1 F"]:
        """The token before the first place; the batch size tells how many where there are no labels."""
        return self.label(jnp.zeros(batch, jnp.int32) if label is None else label)[:, None]


class CodeTransformer(nn.Module):
    """Logits of each of `height` x `width` codes (0 .. `codes` - 1) given those before it in raster order: a causal
    transformer [Radford19] over the label and all codes but the last, `features` wide.

    `num_classes` is the rows of the label table, the null label's included; 0 is none. Dropout is on the tokens and on
    what blocks add. `dtype` is what is computed in; parameters and logits are float32. `remat` trades a second forward
    pass for memory.
    """

    height: int = 16
    width: int = 16
    codes: int = 1024
    num_classes: int = 0
    features: int = 512
    depth: int = 12
    heads: int = 8
    activation: str = "gelu"
    dropout: float = 0.0
    dtype: str = "float32"
    remat: bool = False

    @nn.nowrap
    def _places(self) -> int:
        """The last code is predicted, and never read; the label is."""
        return self.height * self.width

    def __call__(
        self, codes: Int[Array, "B h w"], label: Int[Array, " B"] | None = None, train: bool = False
    ) -> Float[Array, "B h w K"]:
        """Logits of all codes at once.

        Raises:
            ValueError: if codes are no grid of this size, or a label is missing or not known.
        """
        layers.check_grid(self, codes)
        read = codes.reshape(codes.shape[0], -1)[:, :-1]
        logits, _ = self._read(read, label, train=train, first=True)
        return logits.reshape(*codes.shape, self.codes)

    def start(
        self, label: Int[Array, " B"] | None = None, batch: int = 1
    ) -> tuple[Float[Array, "B K"], tuple[Cache, ...]]:
        """Logits of the first code, and the caches that `step` goes on from; without labels, for `batch` examples."""
        batch = batch if label is None else label.shape[0]
        caches = empty_caches(
            self.depth, batch, self._places(), self.heads, self.features // self.heads, DTYPES[self.dtype]
        )
        logits, caches = self._read(jnp.zeros((batch, 0), jnp.int32), label, caches, first=True)
        return logits[:, -1], caches

    def step(
        self, code: Int[Array, " B"], place: Int[Array, ""] | int, caches: tuple[Cache, ...]
    ) -> tuple[Float[Array, "B K"], tuple[Cache, ...]]:
        """Logits of code `place` + 1, given that code `place` (from 0 to height * width - 2) is `code`."""
        logits, caches = self._read(code[:, None], None, caches, place)
        return logits[:, -1], caches

    @nn.compact
    def _read(self, codes, label, caches=None, place: Array | int = 0, train=False, first=False) -> tuple[Array, Any]:
        """Logits behind every token that is read, codes from `place` on and, where it is `first`, the label."""
        _check(self, label, first)
        dtype, rate = DTYPES[self.dtype], self.dropout if train else 0.0
        tokens = CodeTokens(self.height, self.width, self.codes, self.num_classes, self.features, dtype, name="tokens")
        x = tokens(codes, place)
        if first:
            x = jnp.concatenate((tokens.before(label, codes.shape[0]), x), axis=1)
        x = nn.Dropout(rate, deterministic=rate == 0)(x)
        at = place if first else place + 1
        mask = causal_mask(x.shape[1], self._places() if caches else x.shape[1], at)
        blocks = _blocks(self, rate)
        h, caches = blocks(x, mask, caches, at)
        return _logits(h, self.codes, dtype), caches


class MaskedCodeTransformer(nn.Module):
    """Logits of each of `height` x `width` codes given those that are not masked, on all sides [Chang22, sec. 3.1].

    A masked place holds `codes`, the number after the last code. Blocks are pre-norm and the last layer has weights of
    its own, unlike the paper's. The defaults of depth, heads and features are the paper's; all other fields are as in
    CodeTransformer.
    """

    height: int = 16
    width: int = 16
    codes: int = 1024
    num_classes: int = 0
    features: int = 768
    depth: int = 24
    heads: int = 16
    activation: str = "gelu"
    dropout: float = 0.1
    dtype: str = "float32"
    remat: bool = False

    @nn.compact
    def __call__(
        self, codes: Int[Array, "B h w"], label: Int[Array, " B"] | None = None, train: bool = False
    ) -> Float[Array, "B h w K"]:
        """Logits of every place, those that are not masked included.

        Raises:
            ValueError: if codes are no grid of this size, or a label is missing or not known.
        """
        layers.check_grid(self, codes)
        _check(self, label, True)
        dtype, rate = DTYPES[self.dtype], self.dropout if train else 0.0
        tokens = CodeTokens(
            self.height, self.width, self.codes + 1, self.num_classes, self.features, dtype, name="tokens"
        )
        x = tokens(codes.reshape(codes.shape[0], -1))
        x = jnp.concatenate((tokens.before(label, codes.shape[0]), x), axis=1)
        x = nn.Dropout(rate, deterministic=rate == 0)(x)
        blocks = _blocks(self, rate)
        return _logits(blocks(x)[0][:, 1:], self.codes, dtype).reshape(*codes.shape, self.codes)


def _check(net: Any, label: Array | None, first: bool) -> None:
    layers.check_choice("dtype", net.dtype, tuple(DTYPES))
    layers.check_positive(net, "codes", "features", "heads")
    if first:
        layers.check_given("label", label, "num_classes", net.num_classes)


def _blocks(net: Any, rate: float) -> Transformer:
    dtype = DTYPES[net.dtype]
    return Transformer(
        net.depth, net.heads, activation=net.activation, dtype=dtype, remat=net.remat, dropout=rate, name="transformer"
    )


def _logits(h: Float[Array, "B T F"], codes: int, dtype: Any) -> Float[Array, "B T K"]:
    """What blocks leave, normalised, as logits that begin at 0; call it inside a module's `__call__`."""
    h = nn.LayerNorm(1e-5, dtype=dtype, name="norm_out")(h)
    return layers.dense(codes, name="out", dtype=dtype, zero=True)(h).astype(jnp.float32)
