"""The autoencoder of linear layers [Hinton06; Kingma14], for pictures of a few pixels."""

import math
from typing import Any

from flax import linen as nn
from jaxtyping import Array, Float

from flaxgen.nets import layers
from flaxgen.nets.layers import Image
from flaxgen.nets.unet import DTYPES


class DenseAutoencoder(nn.Module):
    """Pictures to `latent_channels` numbers, a map of one place, and back, by hidden layers `widths` wide on the way in
    and in reverse on the way out; without any it is linear. The rest is as in `VqVae`."""

    image_size: int = 8
    in_channels: int = 1
    out_channels: int = 0
    widths: tuple[int, ...] = (512, 256)
    latent_channels: int = 16
    moments: bool = False
    activation: str = "silu"
    dtype: str = "float32"

    @property
    def factor(self) -> int:
        """How many times smaller the map is a side: it has one place."""
        return self.image_size

    @property
    def latent_dim(self) -> int:
        """Channels that `decode` reads."""
        return self.latent_channels

    @property
    def code_dim(self) -> int:
        """Channels that `encode` gives."""
        return self.latent_channels * (1 + self.moments)

    def setup(self) -> None:
        layers.check_positive(self, "image_size", "in_channels", "latent_channels")
        layers.check_choice("activation", self.activation, tuple(layers.ACTIVATIONS))
        layers.check_choice("dtype", self.dtype, tuple(DTYPES))
        shape = (self.image_size, self.image_size, self.out_channels or self.in_channels)
        dtype = DTYPES[self.dtype]
        self.encoder = Dense(self.widths, (1, 1, self.code_dim), self.activation, dtype)
        self.decoder = Dense(self.widths[::-1], shape, self.activation, dtype)

    def __call__(self, x: Image) -> Float[Array, "B H W D"]:
        """Both sides, without what is between them: for making parameters."""
        return self.decode(self.encode(x)[..., : self.latent_dim])

    def encode(self, x: Image) -> Float[Array, "B 1 1 D"]:
        """What the encoder says of pictures in [-1, 1].

        Raises:
            ValueError: if they are of another size.
        """
        shape = (self.image_size, self.image_size, self.in_channels)
        if x.shape[1:] != shape:
            raise ValueError(f"pictures of shape {x.shape[1:]}: this net reads {shape} alone, set net.image_size")
        return self.encoder(x)

    def decode(self, z: Float[Array, "B 1 1 D"]) -> Float[Array, "B H W C"]:
        """Pictures of latents."""
        layers.check_width("latents", z, "latent_channels", self.latent_channels)
        return self.decoder(z)


class Dense(nn.Module):
    """Hidden layers and a linear one, of all numbers of a map to all of one of this `shape`."""

    widths: tuple[int, ...]
    shape: tuple[int, int, int]
    activation: str
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "B _ _ _"]) -> Float[Array, "B _ _ _"]:
        h = x.reshape(len(x), -1)
        for i, width in enumerate(self.widths):
            h = layers.ACTIVATIONS[self.activation](layers.dense(width, name=f"hidden_{i}", dtype=self.dtype)(h))
        return layers.dense(math.prod(self.shape), name="out", dtype=self.dtype)(h).reshape(len(x), *self.shape)
