"""The discriminator of StyleGAN2 [Karras20], as StyleGAN2-ADA has it [Karras20b]."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from flaxgen.nets import stylegan2_layers as layers
from flaxgen.nets.layers import check_choice, check_given
from flaxgen.nets.stylegan2 import Mapping
from flaxgen.resample import downsample2d


class Block(nn.Module):
    """Halves the picture: features of colours where the architecture has them, and two convolutions."""

    inputs: int
    features: int
    architecture: str
    first: bool
    clamp: float
    dtype: Any

    @nn.compact
    def __call__(self, x: Array | None, image: Array | None):
        """(features, image or None) of half the size."""
        x = None if x is None else x.astype(self.dtype)
        if image is not None and (self.first or self.architecture == "skip"):
            conv = layers.Conv(self.inputs, size=1, clamp=self.clamp, name="from_image")
            colours = conv(image.astype(self.dtype))
            x = colours if x is None else x + colours
            image = downsample2d(image, layers.FILTER) if self.architecture == "skip" else None
        assert x is not None
        residual = self.architecture == "resnet"
        y = layers.Conv(self.inputs, clamp=self.clamp, name="conv_0")(x)
        conv = layers.Conv(self.features, down=True, clamp=self.clamp, name="conv_1")
        y = conv(y, layers.HALF if residual else 1.0)
        if residual:
            y = y + layers.Conv(self.features, size=1, down=True, bias=False, name="skip")(x, layers.HALF)
        return y, image


class Epilogue(nn.Module):
    """From 4 pixels to `outputs` numbers, with the deviation over the minibatch as further channels."""

    features: int
    outputs: int
    architecture: str
    clamp: float
    group: int
    deviations: int
    axis_name: str | None

    @nn.compact
    def __call__(self, x: Float[Array, "B 4 4 C"], image: Array | None) -> Float[Array, "B N"]:
        x = x.astype(jnp.float32)
        if image is not None and self.architecture == "skip":
            x = x + layers.Conv(self.features, size=1, name="from_image")(image)
        if self.deviations:
            axis_name = None if self.is_initializing() else self.axis_name
            channels = minibatch_deviation(x, self.group, self.deviations, axis_name)
            x = jnp.concatenate((x, jnp.broadcast_to(channels[:, None, None], (*x.shape[:3], self.deviations))), -1)
        x = layers.Conv(self.features, clamp=self.clamp, name="conv")(x)
        h = layers.Dense(self.features, linear=False, name="dense")(x.reshape(len(x), -1))
        return layers.Dense(self.outputs, name="out")(h)


class Discriminator(nn.Module):
    """Logits of pictures being real; the defaults are StyleGAN2-ADA's for 32 pixels, its CIFAR-10 net is "orig".

    Fields are as in `Generator`; `architecture` is "resnet", "skip" or "orig". With classes the logit is the product
    with the label's vector [Miyato18b], from a mapping of its own. Deviations are of groups of `group` examples of the
    whole batch, in `deviations` channels; 0 has none. Where the batch is split over devices, `axis_name` gathers it.
    """

    image_size: int = 32
    channels: int = 3
    num_classes: int = 0
    mapping_depth: int = 8
    channel_base: int = 32768
    channel_max: int = 512
    architecture: str = "resnet"
    clamp: float = 256.0
    group: int = 4
    deviations: int = 1
    dtype: str = "float32"
    dtype_blocks: int = 4
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], label: Int[Array, " B"] | None = None) -> Float[Array, " B"]:
        """The logits of pictures in [-1, 1].

        Raises:
            ValueError: if the pictures are not of `image_size`, a label is missing or not known to this net, or the
                batch is not divisible by the group.
        """
        check_choice("architecture", self.architecture, layers.ARCHITECTURES)
        check_given("label", label, "num_classes", self.num_classes)
        widths = layers.widths(self.image_size, self.channel_base, self.channel_max)
        dtypes = layers.block_dtypes(self.image_size, self.dtype, self.dtype_blocks)
        if x.shape[1:] != (self.image_size, self.image_size, self.channels):
            size = f"{self.image_size}x{self.image_size}x{self.channels}"
            raise ValueError(f"this discriminator is for pictures of {size}, got {'x'.join(map(str, x.shape[1:]))}")
        h, image = None, x
        for size in reversed(list(widths)[1:]):
            shape = (widths[size], widths[size // 2], self.architecture, h is None, self.clamp, dtypes[size])
            h, image = Block(*shape, name=f"block_{size}")(h, image)
        if h is None:
            raise ValueError(f"image_size={self.image_size} leaves nothing to halve: expected 8 or more")
        width = widths[layers.BASE]
        outputs = width if self.num_classes else 1
        shape = (width, outputs, self.architecture, self.clamp, self.group, self.deviations, self.axis_name)
        out = Epilogue(*shape, name="block_4")(h, image)
        if label is None:
            return out[:, 0]
        vector = Mapping(width, self.mapping_depth, self.num_classes, name="mapping")(None, label)
        return (out * vector).sum(-1) / math.sqrt(width)


def minibatch_deviation(
    x: Float[Array, "B H W C"], group: int, channels: int, axis_name: str | None = None
) -> Float[Array, "B F"]:
    """How much an example's group differs within itself: the deviation over the group, averaged over pixels and each of
    `channels` runs of channels [Karras18, sec. 3].

    Of N examples, i, i + N / group, i + 2 N / group ... are a group, as in StyleGAN2; a smaller batch is one group.
    With `axis_name` the batch is that of all devices, and the result this device's part.

    Raises:
        ValueError: if the batch is not divisible by the group, or the channels not by `channels`.
    """
    whole = x if axis_name is None else jax.lax.all_gather(x, axis_name, tiled=True)
    total, size = len(whole), min(group, len(whole))
    if size < 1 or total % size:
        raise ValueError(f"a batch of {total} is not divisible by the minibatch deviation's group={group}")
    if x.shape[-1] % channels:
        raise ValueError(f"deviations={channels} does not divide the {x.shape[-1]} channels")
    groups = whole.reshape(size, total // size, -1, channels, x.shape[-1] // channels)
    variance = jnp.square(groups - groups.mean(0, keepdims=True)).mean(0)
    deviation = jnp.sqrt(variance + layers.EPSILON).mean((1, 3))
    everyone = jnp.tile(deviation, (size, 1))
    if axis_name is None:
        return everyone
    return jax.lax.dynamic_slice_in_dim(everyone, jax.lax.axis_index(axis_name) * len(x), len(x))
