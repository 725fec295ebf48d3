"""The denoising U-Net: by its fields the DDPM net [Ho20], the ADM net [Dhariwal21] and diffusers' UNet2DModel."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from flaxgen.nets import layers
from flaxgen.nets.attention import Attention, SelfAttention, TokenAttention, attention_at
from flaxgen.nets.resnet import (
    Blocks,
    Context,
    between,
    check_size,
    check_widths,
    depth_to_space,
    encode,
    make_levels,
    space_to_depth,
)

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
MIDDLES = ("resblocks", "none")
RESAMPLES = ("conv", "resnet")
OLD_ATTENTION = {
    "attention_resolutions": (16,),
    "heads": 1,
    "head_channels": 0,
    "middle": "attention",
    "middle_norm_groups": None,
}
"""Fields of version 0.1.0 that `attention` and `middle` stand for now, and what they were without a word."""


class Residuals(NamedTuple):
    """What another net adds inside a UNet [Zhang23, eq. 2]: to each feature map that is passed from the way down to the
    way up, the largest first, and to what comes out of the middle."""

    skips: tuple[Float[Array, "..."], ...]
    middle: Float[Array, "..."]


class UNet(nn.Module):
    """Predicts from a noisy picture and the time; the defaults are the CIFAR-10 net of [Ho20, app. B].

    Level i has `channels * multipliers[i]` channels, and `depth` (one for all, or one a level) residual blocks down and
    one more up, each followed by `attention[i]` where that is not None; an empty `attention` is none anywhere. Its
    feature maps are `image_size / patch / 2^i` pixels wide; other sizes work too, if the levels divide them. `middle`
    is the attention between the two residual blocks of the deepest level, "resblocks" those alone, "none" neither.
    `conv_in_channels` is the width of the first convolution and 0 is `channels`, from which the time embedding follows.
    `num_classes` is the rows of the label table, the null label's included; `embedding_dim`, `token_dim` and
    `vector_dim` the widths of those conditions; 0 is none. `low_res` makes it an upsampler [Ho22b], told with
    `noise_level` how much noise was put on the low-resolution picture; with `added` it takes a vector of the width
    `time_width` that is added to the time embedding; with `guidance_dim` the scale of the guidance that it imitates, as
    so many waves [Meng23]. `learned_variance` doubles the output channels.
    With `positions` the first feature map is given where each of its pixels is, beside what padding lets on.
    `skip_scale` multiplies what residual blocks return, 1/sqrt(2) in [Saharia22, app. B]. `time_embedding` "fourier"
    takes a noise level > 0 as time, and divides the output by it. `dtype` is what is computed in; parameters and output
    are float32. `remat` trades a second forward pass for memory.
    """

    image_size: int = 32
    in_channels: int = 3
    out_channels: int = 3
    channels: int = 128
    multipliers: tuple[int | float, ...] = (1, 2, 2, 2)
    conv_in_channels: int = 0
    depth: int | tuple[int, ...] = 2
    attention: tuple[Attention | None, ...] = (None, SelfAttention(), None, None)
    middle: Attention | str = SelfAttention()
    dropout: float = 0.0
    num_classes: int = 0
    embedding_dim: int = 0
    token_dim: int = 0
    vector_dim: int = 0
    guidance_dim: int = 0
    low_res: bool = False
    noise_level: bool = False
    added: bool = False
    learned_variance: bool = False
    scale_shift: bool = False
    skip_scale: float = 1.0
    activation: str = "silu"
    resample: str = "conv"
    downsample_padding: tuple[int, int] = (0, 1)
    patch: int = 1
    positions: bool = False
    time_embedding: str = "sinusoidal"
    time_channels: int = 0
    time_order: str = "sin_cos"
    time_shift: int = 1
    norm_groups: int = 32
    norm_eps: float = 1e-6
    dtype: str = "float32"
    remat: bool = False

    @property
    def time_width(self) -> int:
        """The width of the time embedding that conditions every block."""
        return self.time_channels or 4 * self.channels

    @property
    def widths(self) -> list[int]:
        """The channels of every level."""
        return [round(self.channels * multiplier) for multiplier in self.multipliers]

    @property
    def attentions(self) -> list[Attention]:
        """Those of all levels that attend, and of the middle."""
        values = (*self.attention, self.middle)
        return [value for value in values if value is not None and not isinstance(value, str)]

    @nn.compact
    def __call__(  # noqa: PLR0913 - every condition there is, by keyword
        self,
        x: Float[Array, "B H W C"],
        time: Float[Array, " B"],
        label: Int[Array, " B"] | None = None,
        embedding: Float[Array, "B D"] | None = None,
        tokens: Float[Array, "B N E"] | None = None,
        token_mask: Bool[Array, "B N"] | None = None,
        low_res: Float[Array, "B h w C"] | None = None,
        level: Float[Array, " B"] | None = None,
        added: Float[Array, "B F"] | None = None,
        vector: Float[Array, "B V"] | None = None,
        guidance: Float[Array, " B"] | None = None,
        residuals: Residuals | None = None,
        train: bool = False,
    ) -> Float[Array, "B H W O"]:
        """The prediction for x at `time`, in the units the net was trained with (0 .. T-1 of a table).

        `token_mask` is True where a token may be read; `low_res` is resized to x, and `level` in [0, 1] is that of the
        noise on it. `residuals` are those of a `ControlNet`. With `train` and dropout, `rngs` needs a key `dropout`.

        Raises:
            ValueError: if a condition is missing or not known to this net, residuals are another net's, or the levels
                do not divide x.
        """
        self.check(x, tokens, token_mask, low_res)
        dtype = DTYPES[self.dtype]
        emb = conditioning(self)(time, label, embedding, level, added, vector, guidance)
        h = x if low_res is None else jnp.concatenate((x, resize_to(low_res, x)), axis=-1)
        first = self.conv_in_channels or self.channels
        h = layers.conv(first, name="conv_in", dtype=dtype)(space_to_depth(h, self.patch))
        if self.positions:
            places = layers.sinusoidal_places(h.shape[1], h.shape[2], first)
            h = h + layers.dense(first, name="positions", dtype=dtype)(places)[None]
        h = self._decode(h, Context(emb, tokens, token_mask), self.blocks(train), residuals)
        h = layers.GroupNorm(self.norm_groups, self.norm_eps, dtype, name="norm_out")(h)
        h = layers.ACTIVATIONS[self.activation](h)
        channels = self.out_channels * (1 + self.learned_variance)
        h = layers.conv(channels * self.patch**2, name="conv_out", dtype=dtype, zero=True)(h)
        out = depth_to_space(h, self.patch).astype(jnp.float32)
        return out / time[:, None, None, None] if self.time_embedding == "fourier" else out

    def _decode(self, h: Array, context: Context, blocks: Blocks, residuals: Residuals | None) -> Array:
        """Down, through the middle and up again; every block up reads what the block of its size passed down."""
        levels = make_levels(self.widths, self.depth, self.attention)
        passed = encode(blocks, h, context, levels)
        h = passed[-1]
        if self.middle != "none":
            h = between(blocks, h, context, None if isinstance(self.middle, str) else self.middle)
        if residuals is not None:
            passed, h = _moved(passed, residuals.skips), _moved([h], [residuals.middle])[0]
        for i, level in enumerate(reversed(levels)):
            for j in range(level.depth + 1):
                h = jnp.concatenate((h, passed.pop()), axis=-1)
                h = blocks.resblock(level.channels, f"up_{i}_resblock_{j}")(h, context)
                h = blocks.attention(level.attention, f"up_{i}_attention_{j}")(h, context)
            if passed:
                h = blocks.up(level.channels, f"up_{i}_resample")(h, context)
        return h

    def blocks(self, train: bool = False) -> Blocks:
        """The blocks of this net, with its common options."""
        return Blocks(
            scale_shift=self.scale_shift,
            dropout=self.dropout if train else 0.0,
            norm_groups=self.norm_groups,
            norm_eps=self.norm_eps,
            resample=self.resample,
            downsample_padding=self.downsample_padding,
            dtype=DTYPES[self.dtype],
            remat=self.remat,
            activation=self.activation,
            skip_scale=self.skip_scale,
        )

    def check(self, x, tokens=None, token_mask=None, low_res=None) -> None:
        """Raises ValueError unless the fields go together, and such a net reads these."""
        layers.check_positive(self, "channels", "in_channels", "out_channels", "patch", "norm_groups")
        check_widths(self.channels, self.multipliers)
        layers.check_choice("dtype", self.dtype, tuple(DTYPES))
        layers.check_choice("activation", self.activation, tuple(layers.ACTIVATIONS))
        if isinstance(self.middle, str):
            layers.check_choice("middle", self.middle, MIDDLES)
        layers.check_choice("resample", self.resample, RESAMPLES)
        layers.check_given("tokens", tokens, "token_dim", self.token_dim)
        layers.check_given("low_res", low_res, "low_res", self.low_res)
        if not self.token_dim and any(value.reads_tokens for value in self.attentions):
            raise ValueError("token_dim=0, but this net's attention reads tokens: set token_dim to their width")
        if self.noise_level and not self.low_res:
            raise ValueError("noise_level=True is the level of the noise on 'low_res': set low_res=True too")
        check_size(x.shape[1], x.shape[2], len(self.multipliers), self.patch)
        if x.shape[-1] != self.in_channels:
            raise ValueError(f"x has {x.shape[-1]} channels, in_channels={self.in_channels} expects {self.in_channels}")
        if tokens is not None:
            layers.check_width("tokens", tokens, "token_dim", self.token_dim)
        elif token_mask is not None:
            raise ValueError("the condition 'token_mask' is given without 'tokens'")

    @classmethod
    def upgrade(cls, fields: dict[str, Any]) -> dict[str, Any]:
        """The JSON fields of a net as version 0.1.0 wrote them, in today's; see `train.config.decode`."""
        if "attention" in fields:
            return fields
        old = {name: fields.get(name, default) for name, default in OLD_ATTENTION.items()}
        kept = {name: value for name, value in fields.items() if name not in OLD_ATTENTION}
        size = kept.get("image_size", cls.image_size) // kept.get("patch", cls.patch)
        sizes = [size // 2**i for i in range(len(kept.get("multipliers", cls.multipliers)))]
        kind = TokenAttention if kept.get("token_dim", cls.token_dim) else SelfAttention
        value = {"type": kind.__name__, "heads": old["heads"], "head_channels": old["head_channels"]}
        attending = value | {"norm_groups": old["middle_norm_groups"]}
        return kept | {
            "attention": list(attention_at(value, old["attention_resolutions"], sizes)),
            "middle": attending if old["middle"] == "attention" else old["middle"],
        }


def conditioning(unet: UNet) -> layers.Conditioning:
    """What a UNet conditions on beside x and tokens.

    Call it inside a module's `__call__`, as `encode`: it becomes that module's.
    """
    return layers.Conditioning(
        unet.channels,
        unet.time_width,
        unet.time_embedding,
        unet.time_order,
        unet.time_shift,
        unet.num_classes,
        unet.embedding_dim,
        DTYPES[unet.dtype],
        unet.noise_level,
        unet.added,
        unet.vector_dim,
        unet.activation,
        unet.guidance_dim,
        name="condition",
    )


def _moved(maps: Sequence[Array], residuals: Sequence[Array]) -> list[Array]:
    """Each feature map with what is added to it; ValueError unless they are of the same shapes."""
    shapes, found = ([value.shape[1:] for value in values] for values in (maps, residuals))
    if shapes != found:
        raise ValueError(
            f"residuals are of shapes {found}, this net's feature maps of {shapes}: they are another net's"
        )
    return [h + residual for h, residual in zip(maps, residuals, strict=True)]


def resize_to(low_res: Float[Array, "B h w C"], x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
    """The low-resolution picture at the size of x, by antialiased bicubic interpolation."""
    return jax.image.resize(low_res, (*x.shape[:3], low_res.shape[-1]), "bicubic")
