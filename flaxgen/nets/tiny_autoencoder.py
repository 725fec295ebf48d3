"""The tiny autoencoder of latent diffusion models' previews [TAESD]: convolutions and ReLUs of one width, no norms."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from flaxgen.nets import layers
from flaxgen.nets.autoencoder import check_latents, check_pictures
from flaxgen.nets.layers import Image
from flaxgen.nets.resnet import check_size, nearest
from flaxgen.nets.unet import DTYPES

MAGNITUDE = 3.0
"""What latents are held to, softly, before they are decoded."""


class Block(nn.Module):
    """relu(x + three convolutions with ReLUs between them)."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Image) -> Image:
        h = x
        for i in (1, 2, 3):
            h = layers.conv(x.shape[-1], name=f"conv_{i}", dtype=self.dtype)(h if i == 1 else nn.relu(h))
        return layers.once(nn.relu(x + h))


class Encoder(nn.Module):
    """Pictures in [-1, 1], seen as [0, 1], to latents; every level but the first begins with a convolution of stride
    2."""

    channels: int
    depth: tuple[int, ...]
    out_channels: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        h = layers.conv(self.channels, name="conv_in", dtype=self.dtype)((x + 1) / 2)
        for i, depth in enumerate(self.depth):
            if i > 0:
                h = self._halve(f"level_{i}_resample")(h)
            for j in range(depth):
                h = Block(self.dtype, name=f"level_{i}_block_{j}")(h)
        return layers.conv(self.out_channels, name="conv_out", dtype=self.dtype)(h)

    def _halve(self, name: str) -> nn.Conv:
        around = ((1, 1), (1, 1))
        return nn.Conv(
            self.channels, (3, 3), 2, around, use_bias=False, dtype=self.dtype, kernel_init=layers.INIT, name=name
        )


class Decoder(nn.Module):
    """The way back; every level but the last ends in doubled pixels and a convolution."""

    channels: int
    depth: tuple[int, ...]
    out_channels: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, z: Float[Array, "B h w D"]) -> Float[Array, "B H W C"]:
        h = layers.conv(self.channels, name="conv_in", dtype=self.dtype)(jnp.tanh(z / MAGNITUDE) * MAGNITUDE)
        h = nn.relu(h)
        for i, depth in enumerate(self.depth):
            for j in range(depth):
                h = Block(self.dtype, name=f"level_{i}_block_{j}")(h)
            if i < len(self.depth) - 1:
                h = self._grow(f"level_{i}_resample")(nearest(h))
        return layers.conv(self.out_channels, name="conv_out", dtype=self.dtype)(h) * 2 - 1

    def _grow(self, name: str) -> nn.Conv:
        return nn.Conv(self.channels, (3, 3), use_bias=False, dtype=self.dtype, kernel_init=layers.INIT, name=name)


class TinyAutoencoder(nn.Module):
    """Pictures to latents and back; the defaults are diffusers' AutoencoderTiny [TAESD].

    All levels have `channels`. `encoder_depth` is the blocks of every level from the picture on, `decoder_depth` those
    from the latents on. There are no variances: latents are those of the autoencoder it was distilled from.
    """

    image_size: int = 512
    in_channels: int = 3
    channels: int = 64
    encoder_depth: tuple[int, ...] = (1, 3, 3, 3)
    decoder_depth: tuple[int, ...] = (3, 3, 3, 1)
    latent_channels: int = 4
    dtype: str = "float32"

    def setup(self):
        layers.check_positive(self, "channels", "in_channels", "latent_channels")
        layers.check_choice("dtype", self.dtype, tuple(DTYPES))
        if not self.encoder_depth or len(self.encoder_depth) != len(self.decoder_depth):
            raise ValueError(
                f"encoder_depth={self.encoder_depth} and decoder_depth={self.decoder_depth}: expected as many levels, "
                "one or more"
            )
        dtype = DTYPES[self.dtype]
        self.encoder = Encoder(self.channels, self.encoder_depth, self.latent_channels, dtype)
        self.decoder = Decoder(self.channels, self.decoder_depth, self.in_channels, dtype)

    @property
    def out_channels(self) -> int:
        """Channels that `decode` gives."""
        return self.in_channels

    @property
    def factor(self) -> int:
        """How many times smaller the latents are than the picture, each way."""
        return 2 ** (len(self.encoder_depth) - 1)

    @property
    def latent_dim(self) -> int:
        """The channels that `decode` reads."""
        return self.latent_channels

    @property
    def code_dim(self) -> int:
        """The channels that `encode` gives."""
        return self.latent_channels

    def encode(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        """The latents of pictures in [-1, 1].

        Raises:
            ValueError: if x has not `in_channels`, or the levels do not divide it.
        """
        check_pictures(x, self.in_channels)
        check_size(x.shape[1], x.shape[2], len(self.encoder_depth))
        return self.encoder(x).astype(jnp.float32)

    def decode(self, z: Float[Array, "B h w D"]) -> Float[Array, "B H W C"]:
        """The pictures of latents, about [-1, 1].

        Raises:
            ValueError: if z has not `latent_dim` channels.
        """
        check_latents(z, self.latent_dim)
        return self.decoder(z).astype(jnp.float32)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Both ways, so that `init` makes the parameters of both."""
        return self.decode(self.encode(x))
