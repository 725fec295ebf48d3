"""The gated PixelCNN [vdOord16b], over codes or over pixels whose channels are predicted one after the other."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from flaxgen.nets import causal, layers
from flaxgen.nets.code_condition import CodeMap, read_condition
from flaxgen.nets.layers import Image
from flaxgen.nets.unet import DTYPES


class GatedLayer(nn.Module):
    """One layer of both stacks, each through tanh(a) sigmoid(b) [vdOord16b, fig. 2, eq. 2 and 4].

    The vertical stack reads rows up to its own, and shifted down by one it joins the horizontal one: so that sees all
    places above and has no blind spot. What is given at every place is added to both. The `first` layer reads what is
    predicted, so its mask is strict and it has no residual connection. `runs` are the channels of a pixel,
    `num_classes` the rows of the table of biases.
    """

    size: int
    first: bool
    runs: int
    num_classes: int
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(
        self,
        vertical: Image,
        horizontal: Image,
        label: Int[Array, " B"] | None,
        condition: Float[Array, "B H W F"] | None = None,
    ) -> tuple[Image, Image]:
        channels, reach, dtype = horizontal.shape[-1], self.size // 2 + 1, self.dtype
        gated = {"runs": self.runs, "halves": 2, "dtype": dtype}
        v = causal.down_conv(2 * channels, (reach, self.size), name="vertical", dtype=dtype)(vertical)
        h = causal.row_conv(2 * channels, reach, channels, name="horizontal", strict=self.first, **gated)(horizontal)
        h = h + layers.dense(2 * channels, name="joint", dtype=dtype)(causal.shift_down(v))
        if label is not None:
            init = nn.initializers.normal(0.02)
            bias = nn.Embed(self.num_classes, 4 * channels, dtype=dtype, embedding_init=init, name="label")(label)
            v_bias, h_bias = jnp.split(bias[:, None, None], 2, axis=-1)
            v, h = v + v_bias, h + h_bias
        if condition is not None:
            v_shift, h_shift = jnp.split(layers.dense(4 * channels, name="condition", dtype=dtype)(condition), 2, -1)
            v, h = v + v_shift, h + h_shift
        h = nn.Dropout(self.dropout, deterministic=self.dropout == 0)(_gate(h))
        h = causal.row_conv(channels, 1, channels, name="out", runs=self.runs, dtype=dtype)(h)
        return _gate(v), layers.once(h if self.first else horizontal + h)


def _gate(x: Image) -> Float[Array, "B H W C//2"]:
    signal, gate = jnp.split(x, 2, axis=-1)
    return jnp.tanh(signal) * nn.sigmoid(gate)


class PixelCNN(nn.Module):
    """Logits of each of `height` x `width` codes (0 .. `codes` - 1) given those before it in raster order.

    With `pixel_channels` every place holds that many values, as pixels do (red, green, blue): the logits of each are
    given the places before and the values before it at its place, from a softmax over `codes` levels [vdOord16, sec.
    3.3]. `channels` is the features of either stack, in `depth` layers: the first of `first_size`, the others of `size`
    pixels. `out_channels` is the width of the two layers behind them. `num_classes` is the rows of the label table, the
    null label's included; 0 is none. With `condition` it is also given a map of codes, read whole. Dropout is on what
    the gates of the horizontal stack let through. `dtype` is what is computed in; parameters and logits are float32.
    `remat` trades a second forward pass for memory.
    """

    height: int = 8
    width: int = 8
    codes: int = 512
    num_classes: int = 0
    pixel_channels: int = 0
    channels: int = 128
    depth: int = 15
    first_size: int = 7
    size: int = 3
    out_channels: int = 512
    condition: CodeMap | None = None
    dropout: float = 0.0
    dtype: str = "float32"
    remat: bool = False

    @nn.compact
    def __call__(
        self,
        codes: Int[Array, "B h w *C"],
        label: Int[Array, " B"] | None = None,
        condition: Int[Array, "B u v"] | None = None,
        train: bool = False,
    ) -> Float[Array, "B h w *C K"]:
        """Logits of all codes at once.

        Raises:
            ValueError: if codes are no grid of this size, a condition is missing or unknown, or a field out of range.
        """
        runs = self._check(codes, label)
        dtype = DTYPES[self.dtype]
        values = codes.reshape(*codes.shape[:3], runs)
        tables = (nn.Embed(self.codes, self.channels // runs, dtype=dtype, name=f"code_{i}") for i in range(runs))
        v = h = jnp.concatenate([table(values[..., i]) for i, table in enumerate(tables)], axis=-1)
        given = read_condition(self, condition, dtype)
        layer = nn.remat(GatedLayer) if self.remat else GatedLayer
        rate = self.dropout if train else 0.0
        for i in range(self.depth):
            size = self.size if i else self.first_size
            v, h = layer(size, i == 0, runs, self.num_classes, rate, dtype, name=f"layer_{i}")(v, h, label, given)
        point = {"taps": 1, "runs": runs, "dtype": dtype}
        h = causal.row_conv(self.out_channels, inputs=self.channels, name="out_1", **point)(nn.relu(h))
        h = causal.row_conv(runs * self.codes, inputs=self.out_channels, name="out_2", **point)(nn.relu(h))
        return h.reshape(*codes.shape, self.codes).astype(jnp.float32)

    def _check(self, codes, label) -> int:
        """How many values a place holds, after a look at fields and inputs."""
        layers.check_choice("dtype", self.dtype, tuple(DTYPES))
        layers.check_positive(self, "codes", "channels", "depth", "out_channels")
        layers.check_given("label", label, "num_classes", self.num_classes)
        layers.check_grid(self, codes, *([self.pixel_channels] if self.pixel_channels else []))
        runs = max(self.pixel_channels, 1)
        for field in ("channels", "out_channels"):
            if getattr(self, field) % runs:
                raise ValueError(f"{field}={getattr(self, field)} is no multiple of pixel_channels={runs}")
        for field in ("first_size", "size"):
            if getattr(self, field) % 2 == 0:
                raise ValueError(f"{field}={getattr(self, field)}: expected an odd number of pixels")
        return runs
