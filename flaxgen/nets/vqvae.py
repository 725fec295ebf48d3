"""The autoencoder of the VQ-VAE [vdOord17, sec. 4.1]: strided convolutions, a few residual blocks, and back."""

import math
from typing import Any

import jax
from flax import linen as nn
from jaxtyping import Array, Float

from flaxgen.nets import layers
from flaxgen.nets.layers import Image
from flaxgen.nets.unet import DTYPES


class VqVae(nn.Module):
    """Pictures to a map `factor` times smaller a side, and back; the defaults are those of the paper's authors for
    CIFAR-10 (the example in their library Sonnet).

    `channels` is the width of the residual blocks, of which there are `depth`, `residual_channels` wide inside, on each
    side. `encode` gives `latent_channels` a place, or with `moments` twice as many, a mean and a log-variance.
    `decode` gives `out_channels` (0: as many as the picture has).
    """

    image_size: int = 32
    in_channels: int = 3
    out_channels: int = 0
    factor: int = 4
    channels: int = 128
    residual_channels: int = 32
    depth: int = 2
    latent_channels: int = 64
    moments: bool = False
    dtype: str = "float32"

    @property
    def latent_dim(self) -> int:
        """Channels that `decode` reads."""
        return self.latent_channels

    @property
    def code_dim(self) -> int:
        """Channels that `encode` gives."""
        return self.latent_channels * (1 + self.moments)

    def setup(self) -> None:
        layers.check_positive(self, "image_size", "in_channels", "channels", "residual_channels", "latent_channels")
        layers.check_choice("dtype", self.dtype, tuple(DTYPES))
        if self.factor < 2 or self.factor & (self.factor - 1):
            raise ValueError(f"factor={self.factor}: expected a power of two, 2 or more")
        dtype, halvings = DTYPES[self.dtype], int(math.log2(self.factor))
        self.encoder = Encoder(self.channels, self.residual_channels, self.depth, halvings, self.code_dim, dtype)
        out = self.out_channels or self.in_channels
        self.decoder = Decoder(self.channels, self.residual_channels, self.depth, halvings, out, dtype)

    def __call__(self, x: Image) -> Float[Array, "B H W D"]:
        """Both sides, without what is between them: for making parameters."""
        return self.decode(self.encode(x)[..., : self.latent_dim])

    def encode(self, x: Image) -> Float[Array, "B h w D"]:
        """What the encoder says of pictures in [-1, 1].

        Raises:
            ValueError: if `factor` does not divide their sides.
        """
        height, width = x.shape[1:3]
        if height % self.factor or width % self.factor:
            raise ValueError(f"image size {height}x{width}: expected a multiple of the net's factor={self.factor}")
        return self.encoder(x)

    def decode(self, z: Float[Array, "B h w D"]) -> Float[Array, "B H W C"]:
        """Pictures of latents."""
        layers.check_width("latents", z, "latent_channels", self.latent_channels)
        return self.decoder(z)


class Residuals(nn.Module):
    """`depth` times x + conv 1 x 1(ReLU(conv 3 x 3(ReLU(x)))), then ReLU."""

    depth: int
    inner: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Image) -> Image:
        for i in range(self.depth):
            h = layers.conv(self.inner, name=f"conv_{i}_1", dtype=self.dtype)(nn.relu(x))
            h = layers.conv(x.shape[-1], name=f"conv_{i}_2", dtype=self.dtype, size=1)(nn.relu(h))
            x = layers.once(x + h)
        return nn.relu(x)


class Encoder(nn.Module):
    """4 x 4 convolutions of stride 2, the last as wide as the blocks and those before it half, then 3 x 3, the blocks,
    and 1 x 1 to `features`; with 0 the blocks' own."""

    channels: int
    inner: int
    depth: int
    halvings: int
    features: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Image) -> Float[Array, "B h w D"]:
        for i in range(self.halvings):
            width = self.channels if i == self.halvings - 1 else self.channels // 2
            conv = nn.Conv(width, (4, 4), 2, dtype=self.dtype, kernel_init=layers.INIT, name=f"down_{i}")
            x = nn.relu(conv(x))
        x = layers.conv(self.channels, name="conv_in", dtype=self.dtype)(x)
        x = Residuals(self.depth, self.inner, self.dtype, name="residuals")(x)
        return layers.conv(self.features, name="conv_out", dtype=self.dtype, size=1)(x) if self.features else x


class Decoder(nn.Module):
    """3 x 3, the blocks, and 4 x 4 transposed convolutions of stride 2."""

    channels: int
    inner: int
    depth: int
    halvings: int
    features: int
    dtype: Any

    @nn.compact
    def __call__(self, z: Float[Array, "B h w D"]) -> Image:
        x = layers.conv(self.channels, name="conv_in", dtype=self.dtype)(z)
        x = Residuals(self.depth, self.inner, self.dtype, name="residuals")(x)
        for i in reversed(range(self.halvings)):
            width = self.channels // 2 if i else self.features
            x = nn.ConvTranspose(
                width, (4, 4), (2, 2), dtype=self.dtype, kernel_init=layers.INIT, name=f"up_{i}"
            )(jax.nn.relu(x) if i < self.halvings - 1 else x)  # fmt: skip
        return x
