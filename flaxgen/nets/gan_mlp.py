"""The two nets of the game of 2014 [Goodfellow14]: perceptrons, for points and small pictures."""

import math

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from flaxgen.nets import layers
from flaxgen.nets.layers import check_given, check_width


class Generator(nn.Module):
    """Latents to examples of `shape`, (2,) points or (height, width, channels) pictures, by `depth` hidden layers.

    With classes a learned vector of the label is added to the first layer. `bounded` keeps the result in [-1, 1].
    """

    shape: tuple[int, ...] = (2,)
    latent_dim: int = 2
    num_classes: int = 0
    width: int = 128
    depth: int = 3
    bounded: bool = False

    @nn.compact
    def __call__(self, z: Float[Array, "B Z"], label: Int[Array, " B"] | None = None) -> Float[Array, "B ..."]:
        """The examples of latents.

        Raises:
            ValueError: if z is not `latent_dim` wide, or a label is missing or not known to this net.
        """
        check_width("z", z, "latent_dim", self.latent_dim)
        check_given("label", label, "num_classes", self.num_classes)
        h = _hidden(z, label, self.num_classes, self.width, self.depth)
        y = layers.dense(math.prod(self.shape), name="out", dtype=jnp.float32)(h)
        return (jnp.tanh(y) if self.bounded else y).reshape(-1, *self.shape)


class Discriminator(nn.Module):
    """Logits of examples being real; fields are as in `Generator`."""

    shape: tuple[int, ...] = (2,)
    num_classes: int = 0
    width: int = 128
    depth: int = 3

    @nn.compact
    def __call__(self, x: Float[Array, "B ..."], label: Int[Array, " B"] | None = None) -> Float[Array, " B"]:
        """The logits of examples.

        Raises:
            ValueError: if they are not of `shape`, or a label is missing or not known to this net.
        """
        if x.shape[1:] != self.shape:
            raise ValueError(f"this discriminator is for examples of shape {self.shape}, got {x.shape[1:]}")
        check_given("label", label, "num_classes", self.num_classes)
        h = _hidden(x.reshape(len(x), -1), label, self.num_classes, self.width, self.depth)
        return layers.dense(1, name="out", dtype=jnp.float32)(h)[:, 0]


def _hidden(
    x: Float[Array, "B I"], label: Int[Array, " B"] | None, num_classes: int, width: int, depth: int
) -> Float[Array, "B O"]:
    """`depth` layers of leaky ReLUs, in the module that calls."""
    for i in range(depth):
        x = layers.dense(width, name=f"dense_{i}", dtype=jnp.float32)(x)
        if i == 0 and label is not None:
            x = x + nn.Embed(num_classes, width, embedding_init=nn.initializers.normal(1.0), name="label")(label)
        x = nn.leaky_relu(x, 0.2)
    return x
