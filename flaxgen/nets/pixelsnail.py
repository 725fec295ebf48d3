"""PixelSNAIL [Chen18]: gated causal convolutions, and attention over all places before, on codes or pixels."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int, Num

from flaxgen.nets import causal, layers
from flaxgen.nets.code_condition import CodeMap, read_condition
from flaxgen.nets.layers import Image
from flaxgen.nets.pixelcnn_plus import GatedResnet, check_pixels, count_parameters, enter
from flaxgen.nets.unet import DTYPES


def attend_before(
    query: Float[Array, "B H W D"], key: Float[Array, "B H W D"], value: Float[Array, "B H W E"]
) -> Float[Array, "B H W E"]:
    """Attention of one head over the places strictly before one's own in raster order; the first place gets zero.

    Values are at least as wide as keys (E >= D).
    """
    b, height, width, narrow = key.shape
    wide, places = value.shape[-1], height * width
    # the one attention there is wants keys as wide as values; zeros change no product, and the factor its sqrt(E)
    pad = ((0, 0), (0, 0), (0, 0), (0, wide - narrow))
    query, key = jnp.pad(query * (wide / narrow) ** 0.5, pad), jnp.pad(key, pad)
    query, key, value = (x.reshape(b, places, 1, wide) for x in (query, key, value))
    before = jnp.arange(places)[None] < jnp.arange(places)[:, None]
    read = layers.attention(query, key, value, before[None, None]).reshape(b, height, width, wide)
    # where nothing may be read, a softmax reads everything alike
    return read.at[:, 0, 0].set(0.0)


class SnailBlock(nn.Module):
    """`depth` gated blocks, then attention: keys and values know the codes of their places, queries do not
    [Chen18, fig. 3]. What is given at every place all blocks read."""

    depth: int
    key_channels: int
    value_channels: int
    num_classes: int
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(
        self,
        h: Float[Array, "B H W F"],
        x: Float[Array, "B H W C"],
        where: Float[Array, "B H W 2"],
        label: Int[Array, " B"] | None,
        condition: Float[Array, "B H W D"] | None,
    ) -> Float[Array, "B H W F"]:
        for i in range(self.depth):
            h = self._gated("right", f"resnet_{i}")(h, condition, label)
        content = self._gated("point", "content")(jnp.concatenate((x, h, where), axis=-1))
        query = self._gated("point", "query_in")(jnp.concatenate((h, where), axis=-1))
        query = layers.dense(self.key_channels, name="query", dtype=self.dtype)(query)
        key = layers.dense(self.key_channels, name="key", dtype=self.dtype)(content)
        value = layers.dense(self.value_channels, name="value", dtype=self.dtype)(content)
        return self._gated("point", "out")(h, attend_before(query, key, value))

    def _gated(self, kind: str, name: str) -> GatedResnet:
        return GatedResnet(kind, self.num_classes, self.dropout, self.dtype, "elu", name=name)


class PixelSNAIL(nn.Module):
    """Logits of each of `height` x `width` codes (0 .. `codes` - 1) given those before it in raster order.

    With `pixel_channels` it reads levels of so many channels, and gives the parameters of each pixel's mixture of
    `logistics` logistics, as PixelCNNPlus. `blocks` blocks of `depth` gated convolutions of `channels` features each
    end in attention by keys `key_channels` and values `value_channels` wide, these at least as wide as those; their
    defaults are what was published for CIFAR-10. With `condition` it is also given a map of codes, read whole.
    `num_classes` is the rows of the label table, the null label's included; 0 is none. `dtype` is what is computed in;
    weights and logits are float32. `remat` trades a second forward pass for memory.
    """

    height: int = 32
    width: int = 32
    codes: int = 512
    num_classes: int = 0
    pixel_channels: int = 0
    logistics: int = 10
    channels: int = 256
    blocks: int = 12
    depth: int = 4
    key_channels: int = 16
    value_channels: int = 128
    condition: CodeMap | None = None
    dropout: float = 0.5
    dtype: str = "float32"
    remat: bool = False

    @nn.compact
    def __call__(
        self,
        codes: Num[Array, "B h w *C"],
        label: Int[Array, " B"] | None = None,
        condition: Int[Array, "B u v"] | None = None,
        train: bool = False,
    ) -> Float[Array, "B h w K"]:
        """Logits of codes, or parameters of pixels.

        Raises:
            ValueError: if codes are no grid of this size, a condition is missing or unknown, or a field out of range.
        """
        x = self._read(codes, label)
        places = jnp.broadcast_to(_places(self.height, self.width).astype(x.dtype)[None], (*x.shape[:3], 2))
        h, given = enter(x, self.channels, x.dtype), read_condition(self, condition, x.dtype)
        block = nn.remat(SnailBlock) if self.remat else SnailBlock
        rate = self.dropout if train else 0.0
        for i in range(self.blocks):
            shape = (self.depth, self.key_channels, self.value_channels, self.num_classes)
            h = block(*shape, rate, x.dtype, name=f"block_{i}")(h, x, places, label, given)
        pixels = self.pixel_channels
        features = count_parameters(self.logistics, pixels) if pixels else self.codes
        return layers.dense(features, name="out", dtype=x.dtype)(nn.elu(h)).astype(jnp.float32)

    def _read(self, codes, label) -> Image:
        """Levels as numbers, or codes as rows of a table."""
        layers.check_positive(self, "codes", "channels", "key_channels", "logistics")
        if self.value_channels < self.key_channels:
            raise ValueError(f"value_channels={self.value_channels}: expected key_channels={self.key_channels} or more")
        if self.pixel_channels:
            check_pixels(self, codes, label)
            return causal.read_levels(codes, self.codes).astype(DTYPES[self.dtype])
        layers.check_choice("dtype", self.dtype, tuple(DTYPES))
        layers.check_given("label", label, "num_classes", self.num_classes)
        layers.check_grid(self, codes)
        return nn.Embed(self.codes, self.channels, dtype=DTYPES[self.dtype], name="code")(codes)


def _places(height: int, width: int) -> Float[Array, "H W 2"]:
    """Row and column of every place, each from -1/2 to 1/2."""
    rows, columns = ((jnp.arange(side) - side / 2) / side for side in (height, width))
    return jnp.stack(jnp.meshgrid(rows, columns, indexing="ij"), axis=-1)
