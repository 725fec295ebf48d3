"""The autoencoder of latent diffusion: by its fields diffusers' AutoencoderKL and VQModel, VQGAN [Esser21] and MoVQ
[Zheng22]."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from flaxgen.nets import layers
from flaxgen.nets.attention import SelfAttention
from flaxgen.nets.resnet import Blocks, Context, Level, between, check_size, check_widths, encode, make_levels
from flaxgen.nets.unet import DTYPES, MIDDLES


class Encoder(nn.Module):
    """Residual blocks of halving levels, the middle and a convolution to `code_dim` channels, behind which stands with
    `quant_conv` a 1 x 1 convolution."""

    levels: tuple[Level, ...]
    blocks: Blocks
    middle: SelfAttention | str
    out_channels: int
    code_dim: int
    quant_conv: bool

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        blocks, context, dtype = self.blocks, Context(), self.blocks.dtype
        h = layers.conv(self.levels[0].channels, name="conv_in", dtype=dtype)(x)
        h = encode(blocks, h, context, self.levels)[-1]
        h = _middle(blocks, h, context, self.middle)
        h = nn.silu(layers.norm(blocks.norm_groups, blocks.norm_eps, dtype, "norm_out")(h))
        h = layers.conv(self.out_channels, name="conv_out", dtype=dtype)(h)
        return layers.conv(self.code_dim, name="quant_conv", dtype=dtype, size=1)(h) if self.quant_conv else h


class Decoder(nn.Module):
    """The way back: with `post_quant_conv` a 1 x 1 convolution, the middle, and levels that double, one residual block
    more in each than in the encoder. With `spatial_norm` every norm reads the latents as they are given."""

    levels: tuple[Level, ...]
    blocks: Blocks
    middle: SelfAttention | str
    in_channels: int
    out_channels: int
    post_quant_conv: bool
    spatial_norm: bool

    @nn.compact
    def __call__(self, z: Float[Array, "B h w D"]) -> Float[Array, "B H W C"]:
        blocks, dtype = self.blocks, self.blocks.dtype
        context = Context(guide=z if self.spatial_norm else None)
        if self.post_quant_conv:
            z = layers.conv(self.in_channels, name="post_quant_conv", dtype=dtype, size=1)(z)
        h = layers.conv(self.levels[-1].channels, name="conv_in", dtype=dtype)(z)
        h = _middle(blocks, h, context, self.middle)
        for i, level in enumerate(reversed(self.levels)):
            for j in range(level.depth + 1):
                h = blocks.resblock(level.channels, f"up_{i}_resblock_{j}")(h, context)
                h = blocks.attention(level.attention, f"up_{i}_attention_{j}")(h, context)
            if i < len(self.levels) - 1:
                h = blocks.up(level.channels, f"up_{i}_resample")(h, context)
        h = nn.silu(layers.norm(blocks.norm_groups, blocks.norm_eps, dtype, "norm_out", context.guide)(h))
        return layers.conv(self.out_channels, name="conv_out", dtype=dtype)(h)


def _middle(blocks: Blocks, h: Array, context: Context, value: SelfAttention | str) -> Array:
    return h if value == "none" else between(blocks, h, context, None if isinstance(value, str) else value)


class Autoencoder(nn.Module):
    """Pictures to latents and back; the defaults are Stable Diffusion's [Rombach22, app. G].

    Level i has `channels * multipliers[i]` channels and feature maps of `image_size / 2^i` pixels, `depth` residual
    blocks down and one more up, each followed by `attention[i]` where that is not None; an empty `attention` is none
    anywhere. `middle` is the attention between the two residual blocks of the deepest level, "resblocks" those alone,
    "none" neither. Codes have `latent_channels`; with `moments` the encoder gives twice as many, the mean and the log
    variance of each. With `quant_convs` 1 x 1 convolutions stand around the latents, which then have `code_channels`
    (0: `latent_channels`). With `spatial_norm` all norms of the decoder read the latents [Zheng22]. Other sizes than
    `image_size` work too, if the levels divide them. `dtype` is what is computed in; parameters and outputs are
    float32. `remat` trades a second forward pass for memory.
    """

    image_size: int = 256
    in_channels: int = 3
    channels: int = 128
    multipliers: tuple[int | float, ...] = (1, 2, 4, 4)
    depth: int | tuple[int, ...] = 2
    attention: tuple[SelfAttention | None, ...] = ()
    middle: SelfAttention | str = SelfAttention()
    latent_channels: int = 4
    moments: bool = True
    quant_convs: bool = True
    code_channels: int = 0
    spatial_norm: bool = False
    norm_groups: int = 32
    norm_eps: float = 1e-6
    dtype: str = "float32"
    remat: bool = False

    def setup(self):
        self._check()
        dtype = DTYPES[self.dtype]
        blocks = Blocks(
            scale_shift=False,
            dropout=0.0,
            norm_groups=self.norm_groups,
            norm_eps=self.norm_eps,
            resample="conv",
            downsample_padding=(0, 1),
            dtype=dtype,
            remat=self.remat,
        )
        levels = tuple(make_levels(self.widths, self.depth, self.attention))
        both = {"levels": levels, "blocks": blocks, "middle": self.middle}
        out_channels = self.latent_channels * (1 + self.moments)
        self.encoder = Encoder(**both, out_channels=out_channels, code_dim=self.code_dim, quant_conv=self.quant_convs)
        self.decoder = Decoder(
            **both,
            in_channels=self.latent_channels,
            out_channels=self.in_channels,
            post_quant_conv=self.quant_convs,
            spatial_norm=self.spatial_norm,
        )

    @property
    def out_channels(self) -> int:
        """Channels that `decode` gives."""
        return self.in_channels

    @property
    def factor(self) -> int:
        """How many times smaller the latents are than the picture, each way."""
        return 2 ** (len(self.multipliers) - 1)

    @property
    def latent_dim(self) -> int:
        """The channels that `decode` reads."""
        return self.code_channels or self.latent_channels

    @property
    def code_dim(self) -> int:
        """The channels that `encode` gives."""
        return self.latent_dim * (1 + self.moments)

    @property
    def widths(self) -> list[int]:
        """The channels of every level."""
        return [round(self.channels * multiplier) for multiplier in self.multipliers]

    def encode(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        """The codes of pictures in [-1, 1]: `code_dim` channels, with `moments` the means and then the log variances.

        Raises:
            ValueError: if x has not `in_channels`, or the levels do not divide it.
        """
        check_pictures(x, self.in_channels)
        check_size(x.shape[1], x.shape[2], len(self.multipliers))
        return self.encoder(x).astype(jnp.float32)

    def decode(self, z: Float[Array, "B h w D"]) -> Float[Array, "B H W C"]:
        """The pictures of latents, about [-1, 1].

        Raises:
            ValueError: if z has not `latent_dim` channels.
        """
        check_latents(z, self.latent_dim)
        return self.decoder(z).astype(jnp.float32)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Both ways, so that `init` makes the parameters of both; variances are left out."""
        return self.decode(self.encode(x)[..., : self.latent_dim])

    def _check(self) -> None:
        layers.check_positive(self, "channels", "in_channels", "latent_channels", "norm_groups")
        check_widths(self.channels, self.multipliers)
        layers.check_choice("dtype", self.dtype, tuple(DTYPES))
        if isinstance(self.middle, str):
            layers.check_choice("middle", self.middle, MIDDLES)
        if self.code_channels and not self.quant_convs and self.code_channels != self.latent_channels:
            raise ValueError(
                f"code_channels={self.code_channels} without quant_convs: expected 0, or "
                f"latent_channels={self.latent_channels}"
            )


def check_pictures(x: Any, channels: int) -> None:
    """Raises ValueError unless pictures have so many channels."""
    if x.shape[-1] != channels:
        raise ValueError(f"x has {x.shape[-1]} channels, in_channels={channels} expects {channels}")


def check_latents(z: Any, channels: int) -> None:
    """Raises ValueError unless latents have so many channels."""
    if z.shape[-1] != channels:
        hint = ": of means and log variances give the means, or a sample" if z.shape[-1] == 2 * channels else ""
        raise ValueError(f"z has {z.shape[-1]} channels, this decoder reads {channels}{hint}")
