"""The discrete autoencoder of DALL-E [Ramesh21, app. A]: logits of codes a pixel of the map, and the parameters of a
logit-Laplace distribution a pixel of the picture."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from flaxgen.nets import layers
from flaxgen.nets.autoencoder import check_latents, check_pictures
from flaxgen.nets.layers import Image
from flaxgen.nets.resnet import check_size, check_widths, max_pool, nearest
from flaxgen.nets.unet import DTYPES

INIT = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
NARROW = 4
"""How many times narrower a block is inside."""
ENCODER_KERNELS, DECODER_KERNELS = (3, 3, 3, 1), (1, 3, 3, 3)


def _conv(features: int, size: int, name: str, dtype: Any) -> nn.Conv:
    return nn.Conv(features, (size, size), dtype=dtype, kernel_init=INIT, name=name)


class Block(nn.Module):
    """x + gain * four convolutions of the sizes `kernels`, each behind a ReLU; where the width changes, x goes through
    a 1 x 1 convolution."""

    channels: int
    kernels: tuple[int, ...]
    gain: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Image) -> Float[Array, "B H W D"]:
        h = x
        for i, size in enumerate(self.kernels):
            width = self.channels if i == len(self.kernels) - 1 else self.channels // NARROW
            h = _conv(width, size, f"conv_{i + 1}", self.dtype)(nn.relu(h))
        if x.shape[-1] != self.channels:
            x = _conv(self.channels, 1, "shortcut", self.dtype)(x)
        return layers.once(x + self.gain * h)


class Encoder(nn.Module):
    """A 7 x 7 convolution, groups of `depth` blocks with maxima of 2 x 2 pixels between them, ReLU and a 1 x 1
    convolution."""

    widths: tuple[int, ...]
    depth: int
    out_channels: int
    dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w K"]:
        block = nn.remat(Block) if self.remat else Block
        gain = 1 / (len(self.widths) * self.depth) ** 2
        h = _conv(self.widths[0], 7, "conv_in", self.dtype)(x)
        for i, width in enumerate(self.widths):
            for j in range(self.depth):
                h = block(width, ENCODER_KERNELS, gain, self.dtype, name=f"group_{i}_block_{j}")(h)
            h = max_pool(h) if i < len(self.widths) - 1 else h
        return _conv(self.out_channels, 1, "conv_out", self.dtype)(nn.relu(h))


class Decoder(nn.Module):
    """A 1 x 1 convolution to `bottleneck` channels, groups of `depth` blocks with doubled pixels between them, ReLU and
    a 1 x 1 convolution."""

    widths: tuple[int, ...]
    depth: int
    bottleneck: int
    out_channels: int
    dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, z: Float[Array, "B h w K"]) -> Float[Array, "B H W O"]:
        block = nn.remat(Block) if self.remat else Block
        gain = 1 / (len(self.widths) * self.depth) ** 2
        h = _conv(self.bottleneck, 1, "conv_in", self.dtype)(z)
        for i, width in enumerate(reversed(self.widths)):
            for j in range(self.depth):
                h = block(width, DECODER_KERNELS, gain, self.dtype, name=f"group_{i}_block_{j}")(h)
            h = nearest(h) if i < len(self.widths) - 1 else h
        return _conv(self.out_channels, 1, "conv_out", self.dtype)(nn.relu(h))


class DalleVae(nn.Module):
    """Pictures to logits of codes, and distributions over codes to pictures; the defaults are the published net.

    Group i has blocks of `channels * multipliers[i]` channels, `depth` of them each way. The logits are those of
    `codes` codes; the decoder's first convolution, whose kernel is the codebook, gives `bottleneck` channels. Other
    sizes than `image_size` work too, if the groups divide them. `dtype` is what is computed in; parameters and outputs
    are float32. `remat` trades a second forward pass for memory.
    """

    image_size: int = 256
    in_channels: int = 3
    channels: int = 256
    multipliers: tuple[int, ...] = (1, 2, 4, 8)
    depth: int = 2
    codes: int = 8192
    bottleneck: int = 128
    dtype: str = "float32"
    remat: bool = False

    def setup(self):
        layers.check_positive(self, "channels", "in_channels", "depth", "codes", "bottleneck")
        layers.check_choice("dtype", self.dtype, tuple(DTYPES))
        check_widths(self.channels, self.multipliers)
        widths, dtype = tuple(self.channels * multiplier for multiplier in self.multipliers), DTYPES[self.dtype]
        if narrow := [width for width in widths if width % NARROW]:
            raise ValueError(
                f"a group has {narrow[0]} channels: expected a multiple of {NARROW}, which blocks narrow by"
            )
        self.encoder = Encoder(widths, self.depth, self.codes, dtype, self.remat)
        self.decoder = Decoder(widths, self.depth, self.bottleneck, 2 * self.in_channels, dtype, self.remat)

    @property
    def out_channels(self) -> int:
        """Channels that `decode` gives."""
        return 2 * self.in_channels

    @property
    def factor(self) -> int:
        """How many times smaller the map of codes is than the picture, each way."""
        return 2 ** (len(self.multipliers) - 1)

    @property
    def latent_dim(self) -> int:
        """The channels that `decode` reads: one a code."""
        return self.codes

    @property
    def code_dim(self) -> int:
        """The channels that `encode` gives: one a code."""
        return self.codes

    def encode(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w K"]:
        """The logits of pictures in [-1, 1], which the net itself brings to [0.1, 0.9] [Ramesh21, app. A.3].

        Raises:
            ValueError: if x has not `in_channels`, or the groups do not divide it.
        """
        check_pictures(x, self.in_channels)
        check_size(x.shape[1], x.shape[2], len(self.multipliers))
        return self.encoder(0.4 * x + 0.5).astype(jnp.float32)

    def decode(self, z: Float[Array, "B h w K"]) -> Float[Array, "B H W O"]:
        """Of one-hot codes, or relaxed ones, `mu` in the first half of the channels and `ln b` in the second.

        They are the distribution of a pixel in [0.1, 0.9], whose median is sigmoid(mu) [Ramesh21, eq. 2].

        Raises:
            ValueError: if z has not `codes` channels.
        """
        check_latents(z, self.codes)
        return self.decoder(z).astype(jnp.float32)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W O"]:
        """Both ways, so that `init` makes the parameters of both."""
        return self.decode(self.encode(x))
