"""The Inception-v3 whose features FID, KID and the Inception Score are defined on [Szegedy16, Heusel17].

It is TensorFlow's graph of 2015-12-05, which differs from later Inceptions: means over a border count the pixels inside
only, the last block takes maxima, there are 1008 logits, and pictures are resized as TensorFlow 1 did. The blocks are
tables; names in them are those of the published weights.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Shaped

SIZE = 299
"""The pixels that every picture is resized to, each way."""
EPS = 1e-3
LOGITS = 1008
FEATURES = {"64": 64, "192": 192, "768": 768, "2048": 2048, "logits_unbiased": LOGITS, "logits": LOGITS}
"""What the net gives and how wide it is: means over all pixels at four depths, logits without and with their bias."""


class Unit(NamedTuple):
    """A convolution without bias, batch normalisation and ReLU."""

    name: str
    features: int
    size: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: str = "SAME"


Fork = tuple[Unit, ...]
"""Units that read the same; what they give is joined."""


class Block(NamedTuple):
    """Branches that read the same and whose outputs are joined, the pooling branch last.

    `pool` is "mean" or "max", of the 3x3 pixels around every pixel, with a unit `branch_pool` of `pool_features` behind
    it; or "halve", which is maxima at every second pixel and nothing behind.
    """

    name: str
    branches: tuple[tuple[Fork, ...], ...]
    pool: str
    pool_features: int = 0

    def pool_unit(self) -> Unit | None:
        return None if self.pool == "halve" else Unit("branch_pool", self.pool_features)


def _chain(*units: Unit | Fork) -> tuple[Fork, ...]:
    return tuple((unit,) if isinstance(unit, Unit) else unit for unit in units)


def _double(*features: int, halve: bool = False) -> tuple[Fork, ...]:
    """Two 3x3 convolutions behind a 1x1."""
    first, second, third = features
    last = {"stride": 2, "padding": "VALID"} if halve else {}
    return _chain(
        Unit("branch3x3dbl_1", first),
        Unit("branch3x3dbl_2", second, (3, 3)),
        Unit("branch3x3dbl_3", third, (3, 3), **last),
    )


def _block_a(name: str, pool_features: int) -> Block:
    five = _chain(Unit("branch5x5_1", 48), Unit("branch5x5_2", 64, (5, 5)))
    return Block(name, (_chain(Unit("branch1x1", 64)), five, _double(64, 96, 96)), "mean", pool_features)


def _block_b(name: str) -> Block:
    three = _chain(Unit("branch3x3", 384, (3, 3), 2, "VALID"))
    return Block(name, (three, _double(64, 96, 96, halve=True)), "halve")


def _block_c(name: str, width: int) -> Block:
    row, column = (1, 7), (7, 1)
    seven = _chain(Unit("branch7x7_1", width), Unit("branch7x7_2", width, row), Unit("branch7x7_3", 192, column))
    double = _chain(
        Unit("branch7x7dbl_1", width),
        Unit("branch7x7dbl_2", width, column),
        Unit("branch7x7dbl_3", width, row),
        Unit("branch7x7dbl_4", width, column),
        Unit("branch7x7dbl_5", 192, row),
    )
    return Block(name, (_chain(Unit("branch1x1", 192)), seven, double), "mean", 192)


def _block_d(name: str) -> Block:
    three = _chain(Unit("branch3x3_1", 192), Unit("branch3x3_2", 320, (3, 3), 2, "VALID"))
    seven = _chain(
        Unit("branch7x7x3_1", 192),
        Unit("branch7x7x3_2", 192, (1, 7)),
        Unit("branch7x7x3_3", 192, (7, 1)),
        Unit("branch7x7x3_4", 192, (3, 3), 2, "VALID"),
    )
    return Block(name, (three, seven), "halve")


def _block_e(name: str, pool: str) -> Block:
    def fork(stem: str) -> Fork:
        return (Unit(f"{stem}a", 384, (1, 3)), Unit(f"{stem}b", 384, (3, 1)))

    three = _chain(Unit("branch3x3_1", 384), fork("branch3x3_2"))
    double = _chain(Unit("branch3x3dbl_1", 448), Unit("branch3x3dbl_2", 384, (3, 3)), fork("branch3x3dbl_3"))
    return Block(name, (_chain(Unit("branch1x1", 320)), three, double), pool, 192)


STEM = (
    (
        Unit("Conv2d_1a_3x3", 32, (3, 3), 2, "VALID"),
        Unit("Conv2d_2a_3x3", 32, (3, 3), padding="VALID"),
        Unit("Conv2d_2b_3x3", 64, (3, 3)),
    ),
    (Unit("Conv2d_3b_1x1", 80), Unit("Conv2d_4a_3x3", 192, (3, 3), padding="VALID")),
)
"""The units before the first and before the second pooling."""
BLOCKS = (
    (
        _block_a("Mixed_5b", 32),
        _block_a("Mixed_5c", 64),
        _block_a("Mixed_5d", 64),
        _block_b("Mixed_6a"),
        _block_c("Mixed_6b", 128),
        _block_c("Mixed_6c", 160),
        _block_c("Mixed_6d", 160),
        _block_c("Mixed_6e", 192),
    ),
    (_block_d("Mixed_7a"), _block_e("Mixed_7b", "mean"), _block_e("Mixed_7c", "max")),
)
"""The blocks before the features "768" and before "2048"."""


def resize(images: Float[Array, "B H W C"], size: int = SIZE) -> Float[Array, "B {size} {size} C"]:
    """Bilinear as in TensorFlow 1: output pixel i reads at i * (input size / size), and what becomes smaller is not
    smoothed before.

    Positions are float32, as there: they decide which two pixels are read.
    """
    for axis in (2, 1):
        length = images.shape[axis]
        position = np.arange(size, dtype=np.float32) * np.float32(length / size)
        low = position.astype(np.int32)
        part = (position - low.astype(np.float32)).reshape((1, size, 1, 1) if axis == 1 else (1, 1, size, 1))
        first, second = (jnp.take(images, index, axis) for index in (low, np.minimum(low + 1, length - 1)))
        images = first + (second - first) * part
    return images


def _combine(x: Float[Array, "B H W C"], operation: Callable[[Array, Array], Array], stride: int) -> Array:
    """Every 3x3 pixels into one. On CPUs slices are many times faster than XLA's window."""
    for axis in (1, 2):
        end = (x.shape[axis] - 3) // stride * stride + 1
        first, second, third = (jax.lax.slice_in_dim(x, i, i + end, stride, axis) for i in range(3))
        x = operation(operation(first, second), third)
    return x


def _pad(x: Float[Array, "B H W C"], value: float) -> Float[Array, "B H+2 W+2 C"]:
    return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=value)


def mean_pool(x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
    """Means of the 3x3 pixels around every pixel, of those that there are: 4 in a corner, 6 at a border."""
    rows, columns = (np.convolve(np.ones(n), np.ones(3), "same") for n in x.shape[1:3])
    counts = np.outer(rows, columns).astype(np.float32)
    return _combine(_pad(x, 0.0), jnp.add, 1) / counts[None, :, :, None]


def max_pool(x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
    """Maxima of the 3x3 pixels around every pixel."""
    return _combine(_pad(x, -jnp.inf), jnp.maximum, 1)


def halve(x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
    """Maxima of the 3x3 pixels around every second pixel, the border left out."""
    return _combine(x, jnp.maximum, 2)


class NormConv(nn.Module):
    """A unit; its batch normalisation [Ioffe15] keeps the statistics of the training."""

    unit: Unit

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"]) -> Float[Array, "B h w O"]:
        unit, ones, zeros = self.unit, nn.initializers.ones, nn.initializers.zeros
        width = (unit.features,)
        kernel = self.param("kernel", nn.initializers.he_normal(), (*unit.size, x.shape[-1], *width))
        scale, bias = self.param("scale", ones, width), self.param("bias", zeros, width)
        mean, variance = self.param("mean", zeros, width), self.param("variance", ones, width)
        h = jax.lax.conv_general_dilated(
            x,
            kernel,
            (unit.stride, unit.stride),
            unit.padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=jax.lax.Precision.HIGHEST,
        )
        factor = scale * jax.lax.rsqrt(variance + EPS)
        return nn.relu(h * factor[None, None, None] + (bias - mean * factor)[None, None, None])


class Mixed(nn.Module):
    """A block."""

    block: Block

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"]) -> Float[Array, "B h w O"]:
        outputs = []
        for branch in self.block.branches:
            h = x
            for fork in branch:
                h = jnp.concatenate([NormConv(unit, name=unit.name)(h) for unit in fork], axis=-1)
            outputs.append(h)
        pooled, unit = {"mean": mean_pool, "max": max_pool, "halve": halve}[self.block.pool](x), self.block.pool_unit()
        if unit:
            pooled = NormConv(unit, name=unit.name)(pooled)
        return jnp.concatenate([*outputs, pooled], axis=-1)


class Inception(nn.Module):
    """Features of pictures, in float32 whatever the device prefers."""

    @nn.compact
    def __call__(self, images: Shaped[Array, "B H W C"]) -> dict[str, Float[Array, "B _"]]:
        """All of FEATURES, of uint8 RGB pictures of any size; under `jax.jit` only what the caller returns is computed.

        Raises:
            ValueError: if the pictures are not uint8 of three channels.
        """
        if images.dtype != jnp.uint8 or images.shape[-1] != 3:
            raise ValueError(
                f"Inception takes uint8 RGB pictures [B H W 3], got {images.dtype} {list(images.shape)}: "
                "round to 0..255, and repeat a single channel three times"
            )
        x, features = (resize(images.astype(jnp.float32)) - 128) / 128, {}
        for name, units in zip(("64", "192"), STEM, strict=True):
            for unit in units:
                x = NormConv(unit, name=unit.name)(x)
            x = halve(x)
            features[name] = x.mean((1, 2))
        for name, blocks in zip(("768", "2048"), BLOCKS, strict=True):
            for block in blocks:
                x = Mixed(block, name=block.name)(x)
            features[name] = x.mean((1, 2))
        head = nn.Dense(LOGITS, use_bias=False, precision=jax.lax.Precision.HIGHEST, name="fc")
        bias = self.param("fc_bias", nn.initializers.zeros, (LOGITS,))
        features["logits_unbiased"] = head(features["2048"])
        features["logits"] = features["logits_unbiased"] + bias[None]
        return features
