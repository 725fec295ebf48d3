"""ControlNet: a copy of the way down of a UNet that reads a picture beside it, and moves what the UNet passes on
[Zhang23]."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from flaxgen.nets import layers
from flaxgen.nets.resnet import Context, between, encode, make_levels
from flaxgen.nets.unet import DTYPES, Residuals, UNet, conditioning


class HintNet(nn.Module):
    """3 x 3 convolutions from a picture to feature maps of a latent's size [Zhang23, sec. 3.3]: `widths` channels, half
    as large at each but the first; the last one starts at 0."""

    widths: tuple[int, ...]
    channels: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, hint: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        h = nn.silu(layers.conv(self.widths[0], name="conv_in", dtype=self.dtype)(hint))
        for i, (width, wider) in enumerate(zip(self.widths, self.widths[1:], strict=False)):
            h = nn.silu(layers.conv(width, name=f"conv_{2 * i}", dtype=self.dtype)(h))
            halved = nn.Conv(
                wider, (3, 3), 2, ((1, 1), (1, 1)), dtype=self.dtype, kernel_init=layers.INIT, name=f"conv_{2 * i + 1}"
            )
            h = nn.silu(halved(h))
        return layers.conv(self.channels, name="conv_out", dtype=self.dtype, zero=True)(h)


class ControlNet(nn.Module):
    """The way down and the middle of such a `unet`, into which a hint goes behind its first convolution; all that it
    passes goes through 1 x 1 convolutions that start at 0, so that it begins as nothing [Zhang23, sec. 3.2].

    The hint is a picture in [0, 1] of `hint_channels`, `factor` times as large as x. `unet` is a description: it has no
    parameters here, and its way up is left out.
    """

    unet: UNet
    hint_channels: int = 3
    hint_widths: tuple[int, ...] = (16, 32, 96, 256)

    @property
    def factor(self) -> int:
        """Pixels of a hint for one of x."""
        return 2 ** (len(self.hint_widths) - 1)

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B H W C"],
        time: Float[Array, " B"],
        hint: Float[Array, "_ h w c"],
        label: Int[Array, " B"] | None = None,
        tokens: Float[Array, "B N E"] | None = None,
        token_mask: Bool[Array, "B N"] | None = None,
        vector: Float[Array, "B V"] | None = None,
    ) -> Residuals:
        """What the UNet adds to its own feature maps for x at `time` and the same conditions; one hint may be for all.

        Raises:
            ValueError: if the hint is not `factor` times as large as x, or a condition is missing or not known.
        """
        unet, dtype = self.unet, DTYPES[self.unet.dtype]
        unet.check(x, tokens, token_mask)
        self._check_hint(x, hint)
        context = Context(conditioning(unet)(time, label, vector=vector), tokens, token_mask)
        first = unet.conv_in_channels or unet.channels
        h = layers.conv(first, name="conv_in", dtype=dtype)(x)
        h = h + HintNet(self.hint_widths, first, dtype, name="hint")(hint)
        passed = encode(unet.blocks(), h, context, make_levels(unet.widths, unet.depth, unet.attention))
        middle = passed[-1]
        if unet.middle != "none":
            middle = between(unet.blocks(), middle, context, None if isinstance(unet.middle, str) else unet.middle)
        skips = tuple(_zero(f"zero_{i}", value, dtype) for i, value in enumerate(passed))
        return Residuals(skips, _zero("zero_middle", middle, dtype))

    def _check_hint(self, x, hint) -> None:
        layers.check_positive(self, "hint_channels")
        if not self.hint_widths or min(self.hint_widths) < 1:
            raise ValueError(f"hint_widths={self.hint_widths}: expected one width or more, each 1 or more")
        if self.unet.patch > 1 or self.unet.positions:
            said = f"patch={self.unet.patch} and positions={self.unet.positions}"
            raise ValueError(f"a UNet with {said} has no ControlNet")
        expected = (*(self.factor * side for side in x.shape[1:3]), self.hint_channels)
        if hint.shape[1:] != expected or len(hint) not in (1, len(x)):
            raise ValueError(f"hint has shape {hint.shape}, expected [{len(x)} or 1, {', '.join(map(str, expected))}]")


def _zero(name: str, value: Array, dtype: Any) -> Array:
    return layers.conv(value.shape[-1], name=name, dtype=dtype, size=1, zero=True)(value)
