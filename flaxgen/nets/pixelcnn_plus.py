"""PixelCNN++ [Salimans17]: the parameters of each pixel's mixture of discretised logistics (tokens/logistic.py)."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int, Num

from flaxgen.nets import causal, layers
from flaxgen.nets.layers import Image
from flaxgen.nets.unet import DTYPES

KINDS = {"down": (causal.down_conv, (2, 3)), "right": (causal.right_conv, (2, 2)), "point": (causal.right_conv, (1, 1))}
"""What a block's convolutions read: rows up to their own; places up to their own of two rows; their own place."""


def concat_elu(x: Float[Array, "*S C"]) -> Float[Array, "*S 2*C"]:
    """elu of x and of -x, one behind the other."""
    return nn.elu(jnp.concatenate((x, -x), axis=-1))


ELUS: dict[str, Callable[[Array], Array]] = {"concat_elu": concat_elu, "elu": nn.elu}
"""PixelCNN++'s activation, and PixelSNAIL's, which halves the weights of every layer behind it."""


def count_parameters(logistics: int, pixel_channels: int) -> int:
    """How many numbers describe one pixel: a logit a logistic, mean and log-scale of each channel, and how much each
    channel's mean follows every channel before it [Salimans17, sec. 2.2]."""
    return logistics * (1 + 2 * pixel_channels + pixel_channels * (pixel_channels - 1) // 2)


class GatedResnet(nn.Module):
    """x + a sigmoid(b): a and b from two convolutions of x, of `aside` (of the same places), and of the label
    [Salimans17, sec. 2.3-2.5].

    `kind` is one of KINDS, `activation` one of ELUS. The second convolution starts small. Weights are not normalised,
    unlike the paper's.
    """

    kind: str
    num_classes: int = 0
    dropout: float = 0.0
    dtype: Any = jnp.float32
    activation: str = "concat_elu"

    @nn.compact
    def __call__(
        self, x: Image, aside: Float[Array, "B H W D"] | None = None, label: Int[Array, " B"] | None = None
    ) -> Image:
        channels, (conv, size), activate = x.shape[-1], KINDS[self.kind], ELUS[self.activation]
        h = conv(channels, size, name="conv_1", dtype=self.dtype)(activate(x))
        if aside is not None:
            h = h + layers.dense(channels, name="aside", dtype=self.dtype)(activate(aside))
        h = nn.Dropout(self.dropout, deterministic=self.dropout == 0)(activate(h))
        h = conv(2 * channels, size, name="conv_2", dtype=self.dtype, small=True)(h)
        if label is not None:
            init = nn.initializers.normal(0.02)
            table = nn.Embed(self.num_classes, 2 * channels, dtype=self.dtype, embedding_init=init, name="label")
            h = h + table(label)[:, None, None]
        signal, gate = jnp.split(h, 2, axis=-1)
        return layers.once(x + signal * nn.sigmoid(gate))


def enter(x: Image, channels: int, dtype: Any) -> Float[Array, "B H W F"]:
    """Features that know three places of the row above and two to the left; call it inside a module's `__call__`."""
    above = causal.down_conv(channels, (1, 3), name="in_above", dtype=dtype)(x)
    left = causal.right_conv(channels, (2, 1), name="in_left", dtype=dtype)(x)
    return causal.shift_down(above) + causal.shift_right(left)


class PixelCNNPlus(nn.Module):
    """Parameters of each pixel's mixture given the pixels before it in raster order; the defaults are CIFAR-10's.

    Pixels are levels 0 .. `codes` - 1 of `pixel_channels` channels. Two streams of `channels` features, one of the rows
    above and one of the row itself, go down through `resolutions` resolutions of `depth` gated blocks and up again,
    with shortcuts between. Sides need not be even. `num_classes` is the rows of the label table, the null label's
    included; 0 is none. `dtype` is what is computed in; weights and result are float32. `remat` trades a second
    forward pass for memory.
    """

    height: int = 32
    width: int = 32
    codes: int = 256
    num_classes: int = 0
    pixel_channels: int = 3
    logistics: int = 10
    channels: int = 160
    depth: int = 5
    resolutions: int = 3
    dropout: float = 0.5
    dtype: str = "float32"
    remat: bool = False

    @nn.compact
    def __call__(
        self, pixels: Num[Array, "B H W C"], label: Int[Array, " B"] | None = None, train: bool = False
    ) -> Float[Array, "B H W P"]:
        """The P parameters of every pixel, as `tokens.logistic.read_mixture` takes them; whole numbers may be floats.

        Raises:
            ValueError: if pixels are of another size, a label is missing or not known, or a field is out of range.
        """
        check_pixels(self, pixels, label)
        layers.check_positive(self, "channels", "depth", "resolutions", "logistics")
        x = causal.read_levels(pixels, self.codes).astype(DTYPES[self.dtype])
        above = causal.down_conv(self.channels, (2, 3), name="in_rows", dtype=x.dtype)(x)
        streams = (causal.shift_down(above), enter(x, self.channels, x.dtype))
        _, h = self._up(self._down(streams, label, train), label, train)
        out = layers.dense(count_parameters(self.logistics, self.pixel_channels), name="out", dtype=x.dtype)
        return out(nn.elu(h)).astype(jnp.float32)

    def _block(self, kind: str, train: bool, name: str) -> GatedResnet:
        block = nn.remat(GatedResnet) if self.remat else GatedResnet
        return block(kind, self.num_classes, self.dropout if train else 0.0, DTYPES[self.dtype], name=f"{name}_{kind}")

    def _down(self, streams, label, train) -> list[tuple[Image, Image]]:
        """Both streams at all places they have passed, the deepest last."""
        passed, dtype = [streams], DTYPES[self.dtype]
        for i in range(self.resolutions):
            for j in range(self.depth):
                u, h = passed[-1]
                u = self._block("down", train, f"down_{i}_{j}")(u, None, label)
                passed.append((u, self._block("right", train, f"down_{i}_{j}")(h, u, label)))
            if i < self.resolutions - 1:
                u, h = passed[-1]
                u = causal.down_conv(self.channels, (2, 3), name=f"shrink_{i}_down", dtype=dtype, stride=2)(u)
                h = causal.right_conv(self.channels, (2, 2), name=f"shrink_{i}_right", dtype=dtype, stride=2)(h)
                passed.append((u, h))
        return passed

    def _up(self, passed, label, train) -> tuple[Image, Image]:
        """Up again, each block beside the one that saw the same places."""
        (u, h), dtype = passed.pop(), DTYPES[self.dtype]
        for i in reversed(range(self.resolutions)):
            for j in range(self.depth + (i < self.resolutions - 1)):
                u_aside, h_aside = passed.pop()
                u = self._block("down", train, f"up_{i}_{j}")(u, u_aside, label)
                aside = jnp.concatenate((u, h_aside), axis=-1)
                h = self._block("right", train, f"up_{i}_{j}")(h, aside, label)
            if i > 0:
                size = passed[-1][0].shape[1:3]
                u = causal.Enlarge(self.channels, (2, 3), dtype, name=f"enlarge_{i}_down")(u, *size)
                h = causal.Enlarge(self.channels, (2, 2), dtype, name=f"enlarge_{i}_right")(h, *size)
        return u, h


def check_pixels(net: Any, pixels: Array, label: Array | None) -> None:
    """Raises ValueError unless a net's inputs are as its fields say, and it has levels to tell apart."""
    layers.check_choice("dtype", net.dtype, tuple(DTYPES))
    layers.check_given("label", label, "num_classes", net.num_classes)
    layers.check_grid(net, pixels, net.pixel_channels)
    if net.codes < 2:
        raise ValueError(f"codes={net.codes}: expected 2 levels or more")
