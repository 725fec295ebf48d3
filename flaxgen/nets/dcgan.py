"""DCGAN: a generator and a discriminator of strided convolutions [Radford16], and spectral norms [Miyato18]."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from flaxgen.nets.layers import check_choice, check_given, check_width
from flaxgen.nets.strided import enlarge, shrink

INIT = nn.initializers.normal(0.02)
BASE, TAPS = 4, 4
"""Pixels a side of the smallest picture, and of every kernel."""
SIZES = (16, 32, 64, 128)
NORMS = ("batch", "layer", "none")
MOMENTUM = 0.9
EPSILON = 1e-5


def check_size(image_size: int) -> int:
    """How often 4 pixels double to `image_size`.

    Raises:
        ValueError: if it is not one of 16, 32, 64, 128.
    """
    if image_size not in SIZES:
        raise ValueError(f"image_size={image_size} is not one of {', '.join(map(str, SIZES))}: DCGAN doubles from 4")
    return int(math.log2(image_size // BASE))


class Norm(nn.Module):
    """To mean 0 and variance 1, then scaled and shifted a channel: over batch and pixels ("batch" [Ioffe15]), or the
    channels and pixels of an example ("layer"), or not at all ("none").

    Over the batch, `train` takes the statistics of the batch, all of it where `axis_name` names the devices it is split
    over; else their running means are taken, "buffers" that a call with `train` moves where they are mutable.
    """

    kind: str
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B H W C"]:
        check_choice("norm", self.kind, NORMS)
        if self.kind == "none":
            return x
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        if self.kind == "layer":
            mean, variance = x.mean((1, 2, 3), keepdims=True), x.var((1, 2, 3), keepdims=True)
        else:
            mean, variance = (value[None, None, None] for value in self._batch_moments(x, train))
        factor = scale[None, None, None] * jax.lax.rsqrt(variance + EPSILON)
        return (x - mean) * factor + bias[None, None, None]

    def _batch_moments(self, x: Float[Array, "B H W C"], train: bool) -> tuple[Array, Array]:
        running_mean = self.variable("buffers", "mean", jnp.zeros, (x.shape[-1],))
        running_variance = self.variable("buffers", "variance", jnp.ones, (x.shape[-1],))
        if not train:
            return running_mean.value, running_variance.value
        mean = self._over_devices(x.mean((0, 1, 2)))
        variance = self._over_devices(jnp.square(x - mean[None, None, None]).mean((0, 1, 2)))
        if self.is_mutable_collection("buffers") and not self.is_initializing():
            for running, value in ((running_mean, mean), (running_variance, variance)):
                running.value = jax.lax.stop_gradient(MOMENTUM * running.value + (1 - MOMENTUM) * value)
        return mean, variance

    def _over_devices(self, value: Float[Array, " C"]) -> Float[Array, " C"]:
        if self.axis_name is None or self.is_initializing():
            return value
        return jax.lax.pmean(value, self.axis_name)


class Spectral(nn.Module):
    """A kernel over its largest singular value, as a matrix from all but the last axis to that [Miyato18, sec. 2].

    The value is found by power iteration from `u`, a "buffer" that a call with `train` moves one iteration on where it
    is mutable; otherwise it stays as it is.
    """

    @nn.compact
    def __call__(self, kernel: Float[Array, "*I O"], train: bool) -> Float[Array, "*I O"]:
        matrix = kernel.reshape(-1, kernel.shape[-1])
        direction = self.variable("buffers", "u", self._draw, kernel.shape[-1])
        fixed = jax.lax.stop_gradient(matrix)
        u = direction.value
        v = _unit(fixed @ u)
        if train and self.is_mutable_collection("buffers") and not self.is_initializing():
            u = _unit(v @ fixed)
            direction.value = u
        return kernel / (v @ matrix @ u)

    def _draw(self, size: int) -> Float[Array, " O"]:
        return _unit(jax.random.normal(self.make_rng("params"), (size,)))


def _unit(x: Float[Array, " N"]) -> Float[Array, " N"]:
    return x / (jnp.linalg.norm(x) + 1e-12)


class Generator(nn.Module):
    """Latents to pictures in [-1, 1]: 4 pixels of `width` times half the picture's size / 4 channels, then doubled.

    With classes a learned vector of the label stands beside the latent. Norms are as in `Norm`.
    """

    image_size: int = 32
    channels: int = 3
    latent_dim: int = 128
    num_classes: int = 0
    width: int = 64
    norm: str = "batch"
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, z: Float[Array, "B Z"], label: Int[Array, " B"] | None = None, train: bool = False
    ) -> Float[Array, "B H W C"]:
        """The pictures of latents.

        Raises:
            ValueError: if z is not `latent_dim` wide, a label is missing or not known to this net, or the size is none
                that it has.
        """
        doublings = check_size(self.image_size)
        check_width("z", z, "latent_dim", self.latent_dim)
        check_given("label", label, "num_classes", self.num_classes)
        if label is not None:
            table = nn.Embed(
                self.num_classes, self.latent_dim, embedding_init=nn.initializers.normal(1.0), name="label"
            )
            z = jnp.concatenate((z, table(label)), axis=-1)
        channels = self.width * 2 ** (doublings - 1)
        h = nn.Dense(BASE * BASE * channels, kernel_init=INIT, name="in")(z).reshape(-1, BASE, BASE, channels)
        for i in range(doublings):
            h = nn.relu(Norm(self.norm, self.axis_name, name=f"norm_{i}")(h, train))
            channels = self.channels if i == doublings - 1 else channels // 2
            kernel = self.param(f"kernel_{i}", INIT, (TAPS, TAPS, channels, h.shape[-1]))
            h = jnp.asarray(enlarge(h, kernel, 2))[:, 1:-1, 1:-1]
        bias = self.param("bias", nn.initializers.zeros, (self.channels,))
        return jnp.tanh(h + bias[None, None, None])


class Discriminator(nn.Module):
    """Logits of pictures being real, by convolutions that halve them down to 4 pixels.

    With classes the features' product with a learned vector of the label is added [Miyato18b]. Norms are as in `Norm`
    and leave the first convolution out; gradient penalties ask for "layer" or "none". With `spectral` every kernel is
    normalised as in `Spectral`.
    """

    image_size: int = 32
    channels: int = 3
    num_classes: int = 0
    width: int = 64
    norm: str = "batch"
    spectral: bool = False
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], label: Int[Array, " B"] | None = None, train: bool = False
    ) -> Float[Array, " B"]:
        """The logits of pictures in [-1, 1].

        Raises:
            ValueError: if the pictures are not of `image_size`, or a label is missing or not known to this net.
        """
        halvings = check_size(self.image_size)
        check_given("label", label, "num_classes", self.num_classes)
        if x.shape[1:] != (self.image_size, self.image_size, self.channels):
            size = f"{self.image_size}x{self.image_size}x{self.channels}"
            raise ValueError(f"this discriminator is for pictures of {size}, got {'x'.join(map(str, x.shape[1:]))}")
        for i in range(halvings):
            kernel = self._kernel(f"kernel_{i}", (TAPS, TAPS, x.shape[-1], self.width * 2**i), train)
            x = jnp.asarray(shrink(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), kernel, 2))
            x = x + self.param(f"bias_{i}", nn.initializers.zeros, (x.shape[-1],))[None, None, None]
            x = x if i == 0 else Norm(self.norm, self.axis_name, name=f"norm_{i}")(x, train)
            x = nn.leaky_relu(x, 0.2)
        features = x.reshape(len(x), -1)
        logits = features @ self._kernel("out", (features.shape[-1], 1), train)
        logits = logits[:, 0] + self.param("out_bias", nn.initializers.zeros, (1,))
        if label is None:
            return logits
        table = self._kernel("label", (self.num_classes, features.shape[-1]), train)
        return logits + (table[label] * features).sum(-1)

    def _kernel(self, name: str, shape: tuple[int, ...], train: bool) -> Float[Array, "..."]:
        kernel = self.param(name, INIT, shape)
        return Spectral(name=f"{name}_spectral")(kernel, train) if self.spectral else kernel
