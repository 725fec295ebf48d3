"""Residual blocks, resampling and levels: what U-shaped nets and encoders are built from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from flaxgen.nets import layers
from flaxgen.nets.attention import Attention, make_block
from flaxgen.nets.layers import Guide, Image


def nearest(x: Image) -> Float[Array, "B 2*H 2*W C"]:
    """Every pixel four times."""
    b, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c)).reshape(b, 2 * h, 2 * w, c)


def average_pool(x: Image) -> Float[Array, "B H//2 W//2 C"]:
    """Means of 2 x 2 pixels."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


def max_pool(x: Image) -> Float[Array, "B H//2 W//2 C"]:
    """Maxima of 2 x 2 pixels; equal ones share the gradient."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).max((2, 4))


def space_to_depth(x: Image, patch: int) -> Float[Array, "B h w D"]:
    """Patches of patch x patch pixels as pixels of patch^2 C channels, in the order (row, column, channel)."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // patch, patch, w // patch, patch, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h // patch, w // patch, patch * patch * c)


def depth_to_space(x: Image, patch: int) -> Float[Array, "B h w D"]:
    """The inverse of `space_to_depth`."""
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, patch, patch, c // patch**2).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h * patch, w * patch, c // patch**2)


RESIZE = {"none": lambda x: x, "up": nearest, "down": average_pool}


class ResBlock(nn.Module):
    """norm, SiLU, conv, + embedding, norm, SiLU, dropout, zero conv [Ho20, app. B]; with `scale_shift` the embedding
    scales and shifts the second norm, and with `resize` both branches change size before the first conv
    [Dhariwal21, sec. 3]. `skip_scale` multiplies the sum of both branches [Song21b, app. H]. Autoencoders have no
    embedding, and some a `guide` that makes both norms SpatialNorms."""

    channels: int
    resize: str = "none"
    scale_shift: bool = False
    dropout: float = 0.0
    norm_groups: int = 32
    norm_eps: float = 1e-5
    dtype: Any = jnp.float32
    activation: str = "silu"
    skip_scale: float = 1.0

    @nn.compact
    def __call__(
        self, x: Image, emb: Float[Array, "B F"] | None = None, guide: Guide | None = None
    ) -> Float[Array, "B h w D"]:
        resize, activate = RESIZE[self.resize], layers.ACTIVATIONS[self.activation]
        h = activate(layers.norm(self.norm_groups, self.norm_eps, self.dtype, "norm_1", guide)(x))
        h = layers.conv(self.channels, name="conv_1", dtype=self.dtype)(resize(h))
        norm = layers.norm(self.norm_groups, self.norm_eps, self.dtype, "norm_2", guide)
        if emb is None:
            h = norm(h)
        else:
            width = self.channels * (1 + self.scale_shift)
            move = layers.dense(width, name="embedding", dtype=self.dtype)(activate(emb))
            h = norm(h, *jnp.split(move, 2, axis=-1)) if self.scale_shift else norm(h + move[:, None, None])
        h = nn.Dropout(self.dropout, deterministic=self.dropout == 0)(activate(h))
        h = layers.conv(self.channels, name="conv_2", dtype=self.dtype, zero=True)(h)
        x = resize(x)
        if x.shape[-1] != self.channels:
            x = layers.conv(self.channels, name="shortcut", dtype=self.dtype, size=1)(x)
        return layers.once((x + h) * self.skip_scale)


class Downsample(nn.Module):
    """A 3 x 3 conv of stride 2; `padding` is the zeros (before, after) each axis."""

    padding: tuple[int, int] = (0, 1)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Image) -> Float[Array, "B h w C"]:
        before, after = self.padding
        padding = ((before, after), (before, after))
        return nn.Conv(x.shape[-1], (3, 3), 2, padding, dtype=self.dtype, kernel_init=layers.INIT, name="conv")(x)


class Upsample(nn.Module):
    """Every pixel four times, then a 3 x 3 conv."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Image) -> Float[Array, "B 2*H 2*W C"]:
        return layers.conv(x.shape[-1], name="conv", dtype=self.dtype)(nearest(x))


class Level(NamedTuple):
    """One resolution: how many channels and residual blocks, and how these attend."""

    channels: int
    depth: int
    attention: Attention | None


class Context(NamedTuple):
    """What conditions every block: the conditioning vector, the tokens that attention may read, and the picture that
    norms read."""

    emb: Float[Array, "B F"] | None = None
    tokens: Float[Array, "B N D"] | None = None
    token_mask: Bool[Array, "B N"] | None = None
    guide: Guide | None = None


@dataclass(frozen=True)
class Blocks:
    """The blocks of one net with their common options in place; a block is (picture, Context) -> picture.

    `resample` is how levels change size: "conv" (strided, and nearest then conv) or "resnet" (inside a residual block).
    """

    scale_shift: bool
    dropout: float
    norm_groups: int
    norm_eps: float
    resample: str
    downsample_padding: tuple[int, int]
    dtype: Any
    remat: bool
    activation: str = "silu"
    skip_scale: float = 1.0

    def resblock(self, channels: int, name: str, resize: str = "none") -> Callable[[Image, Context], Array]:
        """With `remat` the backward pass computes what is inside a block again instead of keeping it."""
        block = (nn.remat(ResBlock) if self.remat else ResBlock)(
            channels,
            resize,
            self.scale_shift,
            self.dropout,
            self.norm_groups,
            self.norm_eps,
            self.dtype,
            self.activation,
            self.skip_scale,
            name=name,
        )
        return lambda h, context: block(h, context.emb, context.guide)

    def attention(self, value: Attention | None, name: str) -> Callable[[Image, Context], Array]:
        """The block that `value` describes; None leaves the picture as it is."""
        if value is None:
            return lambda h, context: h
        block = make_block(value, self.norm_groups, self.norm_eps, self.dtype, self.remat, name)

        def attend(h: Image, context: Context) -> Image:
            guide = () if context.guide is None else (context.guide,)
            return block(h, context.tokens, context.token_mask, *guide)

        return attend

    def down(self, channels: int, name: str) -> Callable[[Image, Context], Array]:
        if self.resample == "resnet":
            return self.resblock(channels, name, "down")
        block = Downsample(self.downsample_padding, self.dtype, name=name)
        return lambda h, context: block(h)

    def up(self, channels: int, name: str) -> Callable[[Image, Context], Array]:
        if self.resample == "resnet":
            return self.resblock(channels, name, "up")
        block = Upsample(self.dtype, name=name)
        return lambda h, context: block(h)


def encode(blocks: Blocks, h: Image, context: Context, levels: Sequence[Level]) -> list[Array]:
    """Down through the levels; everything that was passed, the deepest last.

    Call it inside a module's `__call__`: the blocks become that module's.
    """
    passed = [h]
    for i, level in enumerate(levels):
        for j in range(level.depth):
            h = blocks.resblock(level.channels, f"down_{i}_resblock_{j}")(passed[-1], context)
            passed.append(blocks.attention(level.attention, f"down_{i}_attention_{j}")(h, context))
        if i < len(levels) - 1:
            passed.append(blocks.down(level.channels, f"down_{i}_resample")(passed[-1], context))
    return passed


def between(blocks: Blocks, h: Image, context: Context, value: Attention | None) -> Image:
    """The middle of a net: a residual block, what `value` describes, and a residual block.

    Call it inside a module's `__call__`, as `encode`.
    """
    channels = h.shape[-1]
    h = blocks.resblock(channels, "middle_resblock_0")(h, context)
    h = blocks.attention(value, "middle_attention")(h, context)
    return blocks.resblock(channels, "middle_resblock_1")(h, context)


def make_levels(
    channels: Sequence[int], depth: int | Sequence[int], attention: Sequence[Attention | None]
) -> list[Level]:
    """The levels of a net, of one depth or one each; without `attention` none attends.

    Raises:
        ValueError: if depths or attentions are not as many as the levels.
    """
    depths = [depth] * len(channels) if isinstance(depth, int) else depth
    attention = attention or [None] * len(channels)
    for name, values in (("depth", depths), ("attention", attention)):
        if len(values) != len(channels):
            raise ValueError(f"{name} has {len(values)} values, but this net has {len(channels)} levels: give each one")
    return [Level(*level) for level in zip(channels, depths, attention, strict=True)]


def check_widths(channels: int, multipliers: tuple[int | float, ...]) -> None:
    """Raises ValueError unless there are levels, each of them with channels."""
    if not multipliers or min(round(channels * multiplier) for multiplier in multipliers) < 1:
        raise ValueError(f"channels={channels} times multipliers={multipliers}: expected levels of 1 channel or more")


def check_size(height: int, width: int, levels: int, patch: int = 1) -> None:
    """Raises ValueError unless `levels` levels after patches of `patch` pixels divide the picture."""
    multiple = patch * 2 ** (levels - 1)
    if height % multiple or width % multiple:
        raise ValueError(
            f"image size {height}x{width} cannot be divided by this net: {levels} levels and patch={patch} need a "
            f"multiple of {multiple}"
        )
