"""The autoencoder of the VQ-VAE-2 [Razavi19, sec. 3.1]: a small map of the whole, and a larger one of what it leaves
open."""

import math
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from flaxgen.nets import layers
from flaxgen.nets.layers import Image
from flaxgen.nets.unet import DTYPES
from flaxgen.nets.vqvae import Decoder, Encoder

Top = Float[Array, "B u v D"]
Bottom = Float[Array, "B h w D"]
Below = Float[Array, "B h w F"]
"""Features of the bottom, which it does not quantise as they are."""


def join(top: Top, bottom: Bottom) -> Float[Array, "B h w 2*D"]:
    """Both maps as one at the bottom's resolution: channels of the top, each place repeated, and then the bottom's."""
    rows, columns = (below // above for below, above in zip(bottom.shape[1:3], top.shape[1:3], strict=True))
    return jnp.concatenate((top.repeat(rows, 1).repeat(columns, 2), bottom), axis=-1)


def split(z: Float[Array, "B h w Z"], ratio: int) -> tuple[Top, Bottom]:
    """The inverse of `join`: top, whose sides are `ratio` times smaller, and bottom."""
    top, bottom = jnp.split(z, 2, axis=-1)
    return top[:, ::ratio, ::ratio], bottom


class VqVae2(nn.Module):
    """Pictures to two maps, the bottom `factor` and the top `top_factor` times smaller a side, and back; the defaults
    are the paper's for ImageNet [Razavi19, app. A].

    `encode` gives what the top quantises, and features of the bottom; `refine` joins these with what was decoded from
    the top's quantised map, and gives what the bottom quantises. `decode` reads both maps, as `join` puts them side by
    side. Either has `latent_channels`; the other fields are as in VqVae, and both levels' nets alike.
    """

    image_size: int = 256
    in_channels: int = 3
    out_channels: int = 0
    factor: int = 4
    top_factor: int = 8
    channels: int = 128
    residual_channels: int = 64
    depth: int = 2
    latent_channels: int = 64
    dtype: str = "float32"

    @property
    def latent_dim(self) -> int:
        """Channels that `decode` reads: those of both maps."""
        return 2 * self.latent_channels

    @property
    def code_dim(self) -> int:
        """Channels that the encoder gives of both maps."""
        return self.latent_dim

    @property
    def ratio(self) -> int:
        """How many times smaller the top map is than the bottom one, each way."""
        return self.top_factor // self.factor

    def setup(self) -> None:
        layers.check_positive(self, "image_size", "in_channels", "channels", "residual_channels", "latent_channels")
        layers.check_choice("dtype", self.dtype, tuple(DTYPES))
        for name in ("factor", "top_factor"):
            value, least = getattr(self, name), 2 if name == "factor" else 2 * self.factor
            if value < least or value & (value - 1):
                raise ValueError(f"{name}={value}: expected a power of two, {least} or more")
        shape = (self.channels, self.residual_channels, self.depth)
        halvings = (int(math.log2(self.factor)), int(math.log2(self.ratio)))
        dtype, out = DTYPES[self.dtype], self.out_channels or self.in_channels
        self.encoder = LevelsEncoder(*shape, halvings, self.latent_channels, dtype)
        self.decoder = LevelsDecoder(*shape, halvings[0], out, dtype, self.ratio)

    def __call__(self, x: Image) -> Image:
        """All sides, without what is between them: for making parameters."""
        top, below = self.encode(x)
        return self.decode(join(top, self.refine(below, top)))

    def encode(self, x: Image) -> tuple[Top, Below]:
        """What the top quantises of pictures in [-1, 1], and the bottom's features.

        Raises:
            ValueError: if `top_factor` does not divide their sides.
        """
        height, width = x.shape[1:3]
        if height % self.top_factor or width % self.top_factor:
            raise ValueError(f"image size {height}x{width}: expected a multiple of top_factor={self.top_factor}")
        return self.encoder(x)

    def refine(self, below: Below, top: Top) -> Bottom:
        """What the bottom quantises, of its features and what the top's codes stand for."""
        return self.encoder.refine(below, top)

    def decode(self, z: Float[Array, "B h w Z"]) -> Image:
        """Pictures of both maps."""
        layers.check_width("latents", z, "2 latent_channels", self.latent_dim)
        return self.decoder(z)


class LevelsEncoder(nn.Module):
    """An encoder of pictures, one of its features, and a decoder back to these; `halvings` are those of either."""

    channels: int
    inner: int
    depth: int
    halvings: tuple[int, int]
    features: int
    dtype: Any

    def setup(self) -> None:
        shape = (self.channels, self.inner, self.depth)
        bottom, top = self.halvings
        self.bottom = Encoder(*shape, bottom, 0, self.dtype)
        self.top = Encoder(*shape, top, self.features, self.dtype)
        self.top_decoder = Decoder(*shape, top, self.features, self.dtype)
        self.join = layers.conv(self.features, name="join", dtype=self.dtype, size=1)

    def __call__(self, x: Image) -> tuple[Top, Below]:
        below = self.bottom(x)
        return self.top(below), below

    def refine(self, below: Below, top: Top) -> Bottom:
        """See `VqVae2.refine`."""
        return self.join(jnp.concatenate((self.top_decoder(top), below), axis=-1))


class LevelsDecoder(Decoder):
    """VqVae's decoder, of the bottom's map beside the top's, which one transposed convolution enlarges."""

    ratio: int

    @nn.compact
    def __call__(self, z: Float[Array, "B h w Z"]) -> Image:
        top, bottom = split(z, self.ratio)
        size, stride = (2 * self.ratio,) * 2, (self.ratio,) * 2
        enlarge = nn.ConvTranspose(
            bottom.shape[-1], size, stride, dtype=self.dtype, kernel_init=layers.INIT, name="top_up"
        )
        return super().__call__(jnp.concatenate((enlarge(top), bottom), axis=-1))
