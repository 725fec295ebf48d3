"""The generator of StyleGAN2 [Karras20], as StyleGAN2-ADA has it [Karras20b]."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from flaxgen.nets import stylegan2_layers as layers
from flaxgen.nets.layers import check_choice, check_given, check_width
from flaxgen.resample import upsample2d
from flaxgen.types import Keys, Scalar


class Mapping(nn.Module):
    """`depth` layers from a latent, a label or both to a style [Karras19, sec. 2], each of `features` units.

    Latents are normalised, and so is the label's row. Weights learn at `rate` times the others' learning rate.
    """

    features: int
    depth: int
    num_classes: int = 0
    rate: float = 0.01

    @nn.compact
    def __call__(self, z: Float[Array, "B Z"] | None, label: Int[Array, " B"] | None = None) -> Float[Array, "B D"]:
        """The style of every example.

        Raises:
            ValueError: if a label is missing or not known to this net.
        """
        check_given("label", label, "num_classes", self.num_classes)
        inputs = [] if z is None else [layers.normalize_second_moment(z)]
        if label is not None:
            row = layers.Dense(self.features, name="embed")(jax.nn.one_hot(label, self.num_classes))
            inputs.append(layers.normalize_second_moment(row))
        h = jnp.concatenate(inputs, axis=-1)
        for i in range(self.depth):
            h = layers.Dense(self.features, rate=self.rate, linear=False, name=f"dense_{i}")(h)
        return h


class StyledConv(nn.Module):
    """A modulated convolution, noise, bias and activation; `noise_const` is the noise of calls without keys."""

    features: int
    up: bool = False
    clamp: float = 0.0

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W I"], w: Float[Array, "B D"], noise_keys: Keys | None, gain: float = 1.0
    ) -> Float[Array, "B h w O"]:
        y = layers.Modulated(self.features, up=self.up, name="conv")(x, w)
        size, strength = y.shape[1], self.param("noise_strength", nn.initializers.zeros, ())
        const = self.variable("buffers", "noise_const", self._draw, size)
        if noise_keys is None:
            noise = const.value[None]
        else:
            noise = jax.vmap(lambda key: jax.random.normal(key, (size, size)))(noise_keys)
        y = y + (noise * strength)[..., None].astype(y.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return layers.activate(y, bias, gain=gain, clamp=self.clamp)

    def _draw(self, size: int) -> Float[Array, "S S"]:
        return jax.random.normal(self.make_rng("params"), (size, size))


class ToImage(nn.Module):
    """Colours of a pixel's features: a modulated convolution of one pixel, not demodulated."""

    channels: int
    clamp: float = 0.0

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], w: Float[Array, "B D"]) -> Float[Array, "B H W C"]:
        y = layers.Modulated(self.channels, size=1, demodulate=False, name="conv")(x, w)
        bias = self.param("bias", nn.initializers.zeros, (self.channels,))
        return layers.activate(y, bias, linear=True, clamp=self.clamp).astype(jnp.float32)


class Block(nn.Module):
    """Doubles the picture: two styled convolutions, and colours where the architecture has them.

    Without an input it begins with the learned constant.
    """

    size: int
    features: int
    channels: int
    architecture: str
    last: bool
    clamp: float
    dtype: Any

    @nn.compact
    def __call__(self, x: Array | None, image: Array | None, w: Float[Array, "B L D"], noise_keys: Keys | None):
        """(features, image or None) from those of half the size; `w` starts with this block's layer."""
        layer, residual = 0, self.architecture == "resnet" and x is not None
        skip = None
        if x is None:
            const = self.param("const", layers.UNIT, (self.size, self.size, self.features)).astype(self.dtype)
            x = jnp.broadcast_to(const[None], (len(w), *const.shape))
        else:
            x = x.astype(self.dtype)
            if residual:
                skip = layers.Conv(self.features, size=1, up=True, bias=False, name="skip")(x, layers.HALF)
            conv = StyledConv(self.features, up=True, clamp=self.clamp, name="conv_0")
            x, layer = conv(x, w[:, 0], _fold(noise_keys, 0)), 1
        conv = StyledConv(self.features, clamp=self.clamp, name="conv_1")
        x = conv(x, w[:, layer], _fold(noise_keys, 1), layers.HALF if residual else 1.0)
        x = x if skip is None else x + skip
        image = None if image is None else upsample2d(image, layers.FILTER)
        if self.last or self.architecture == "skip":
            colours = ToImage(self.channels, clamp=self.clamp, name="to_image")(x, w[:, layer + 1])
            image = colours if image is None else image + colours
        return x, image


def _fold(keys: Keys | None, number: int) -> Keys | None:
    return None if keys is None else jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)


class Synthesis(nn.Module):
    """The picture of one style a layer. Fields are as in `Generator`."""

    image_size: int
    channels: int
    channel_base: int
    channel_max: int
    architecture: str
    clamp: float
    dtype: str
    dtype_blocks: int

    @nn.compact
    def __call__(self, w: Float[Array, "B L D"], noise_keys: Keys | None = None) -> Float[Array, "B H W C"]:
        check_choice("architecture", self.architecture, layers.ARCHITECTURES)
        widths = layers.widths(self.image_size, self.channel_base, self.channel_max)
        dtypes = layers.block_dtypes(self.image_size, self.dtype, self.dtype_blocks)
        x = image = None
        for i, size in enumerate(widths):
            last, first_layer = size == self.image_size, max(0, 2 * i - 1)
            shape = (size, widths[size], self.channels, self.architecture, last, self.clamp, dtypes[size])
            block = Block(*shape, name=f"block_{size}")
            x, image = block(x, image, w[:, first_layer : first_layer + 3], _fold(noise_keys, size))
        assert image is not None
        return image


class Generator(nn.Module):
    """Latents to pictures; the defaults are StyleGAN2-ADA's for CIFAR-10, but for 8 mapping layers instead of 2.

    Blocks at s pixels have min(channel_base / s, channel_max) channels. `architecture` is "skip" (every block adds
    colours), "resnet" or "orig". Activations stay within +-`clamp`; 0 does not clamp. The `dtype_blocks` largest blocks
    compute in `dtype`. Beside "params" there are "buffers": `w_avg`, the mean style that training tracks (see
    `track_style`), and the constant noise.
    """

    image_size: int = 32
    channels: int = 3
    latent_dim: int = 512
    style_dim: int = 512
    num_classes: int = 0
    mapping_depth: int = 8
    channel_base: int = 32768
    channel_max: int = 512
    architecture: str = "skip"
    clamp: float = 256.0
    dtype: str = "float32"
    dtype_blocks: int = 4

    def setup(self):
        layers.sizes(self.image_size)
        self.mapping = Mapping(self.style_dim, self.mapping_depth, self.num_classes)
        self.synthesis = Synthesis(
            self.image_size,
            self.channels,
            self.channel_base,
            self.channel_max,
            self.architecture,
            self.clamp,
            self.dtype,
            self.dtype_blocks,
        )
        self.w_avg = self.variable("buffers", "w_avg", jnp.zeros, (self.style_dim,))

    @property
    def num_layers(self) -> int:
        """Styles that a picture is made of: two of them a size."""
        return 2 * int(math.log2(self.image_size)) - 2

    def __call__(
        self,
        z: Float[Array, "B Z"],
        label: Int[Array, " B"] | None = None,
        *,
        truncation: Scalar = 1.0,
        noise_keys: Keys | None = None,
    ) -> Float[Array, "B H W C"]:
        """The pictures of latents, about in [-1, 1]; see `map` and `synthesize`."""
        return self.synthesize(self.map(z, label, truncation=truncation), noise_keys)

    def map(
        self,
        z: Float[Array, "B Z"],
        label: Int[Array, " B"] | None = None,
        *,
        truncation: Scalar = 1.0,
        cutoff: int | None = None,
    ) -> Float[Array, "B L D"]:
        """The same style for every layer; the first `cutoff` of them (None: all) are moved to `truncation` times as far
        from the mean style as they are [Karras19, app. B].

        Raises:
            ValueError: if z is not `latent_dim` wide, or a label is missing or not known to this net.
        """
        check_width("z", z, "latent_dim", self.latent_dim)
        w = jnp.repeat(self.mapping(z, label)[:, None], self.num_layers, axis=1)
        if isinstance(truncation, float | int) and truncation == 1:
            return w
        mean = self.w_avg.value[None, None]
        near = mean + truncation * (w - mean)
        return near if cutoff is None else jnp.concatenate((near[:, :cutoff], w[:, cutoff:]), axis=1)

    def synthesize(self, w: Float[Array, "B L D"], noise_keys: Keys | None = None) -> Float[Array, "B H W C"]:
        """The pictures of one style a layer; noise is drawn from an example's key, without keys it is constant.

        Raises:
            ValueError: if there are more or fewer styles than layers.
        """
        if w.shape[1] != self.num_layers:
            size = f"{self.image_size} pixels"
            raise ValueError(f"w has {w.shape[1]} styles, a generator of {size} has {self.num_layers} layers")
        check_width("w", w, "style_dim", self.style_dim)
        return self.synthesis(w, noise_keys)


def track_style(buffers: dict[str, Any], mean: Float[Array, " D"], decay: Scalar) -> dict[str, Any]:
    """The buffers with w_avg moved to the mean style of a batch; NVlabs' decay is 0.995 a step [Karras19, app. B]."""
    return {**buffers, "w_avg": mean + decay * (buffers["w_avg"] - mean)}
