"""A classifier of noisy pictures, for classifier guidance."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from flaxgen.nets import layers
from flaxgen.nets.attention import SelfAttention, attention_at
from flaxgen.nets.resnet import Blocks, Context, between, check_size, check_widths, encode, make_levels


class AttentionPool(nn.Module):
    """The mean of all pixels asks them what to report: attention with one query [Radford21, sec. 2.4].

    Learned positions tie it to one picture size.
    """

    features: int
    head_channels: int

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B F"]:
        b, height, width, channels = x.shape
        pixels = x.reshape(b, height * width, channels)
        tokens = jnp.concatenate((pixels.mean(1, keepdims=True), pixels), axis=1)
        shape, init = (height * width + 1, channels), nn.initializers.normal(channels**-0.5)
        tokens = tokens + self.param("positions", init, shape)[None]
        heads = layers.count_heads(channels, 1, self.head_channels)
        query, key, value = (
            layers.split_heads(layers.dense(channels, name=name, dtype=jnp.float32)(inputs), heads)
            for name, inputs in (("query", tokens[:, :1]), ("key", tokens), ("value", tokens))
        )
        h = layers.attention(query, key, value).reshape(b, channels)
        return layers.dense(self.features, name="out", dtype=jnp.float32)(h)


class NoisyClassifier(nn.Module):
    """Class logits of a noisy picture: the downward half of the ADM net, its middle, and attention pooling
    [Dhariwal21, sec. 4 and app. H].

    Pictures have to be `image_size` wide. Blocks attend where feature maps are as wide as one of
    `attention_resolutions`, by heads of `head_channels` channels; the other fields are as in `UNet`.
    """

    num_classes: int
    image_size: int = 64
    in_channels: int = 3
    channels: int = 128
    multipliers: tuple[int | float, ...] = (1, 2, 3, 4)
    depth: int = 4
    attention_resolutions: tuple[int, ...] = (32, 16, 8)
    head_channels: int = 64
    dropout: float = 0.0
    time_order: str = "cos_sin"
    time_shift: int = 0
    norm_groups: int = 32
    norm_eps: float = 1e-5

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], time: Float[Array, " B"], train: bool = False
    ) -> Float[Array, "B N"]:
        """Logits of the classes of x, seen at `time` in the units of the denoising net.

        Raises:
            ValueError: if x is not the size the net is for, or the levels do not divide it.
        """
        if x.shape[1:] != (self.image_size, self.image_size, self.in_channels):
            size = f"{self.image_size}x{self.image_size}x{self.in_channels}"
            raise ValueError(f"this classifier is for pictures of {size}, got {'x'.join(map(str, x.shape[1:]))}")
        layers.check_positive(self, "channels", "norm_groups", "num_classes")
        check_widths(self.channels, self.multipliers)
        check_size(self.image_size, self.image_size, len(self.multipliers))
        sizes = [self.image_size // 2**i for i in range(len(self.multipliers))]
        widths = [round(self.channels * multiplier) for multiplier in self.multipliers]
        attention = SelfAttention(head_channels=self.head_channels)
        levels = make_levels(widths, self.depth, attention_at(attention, self.attention_resolutions, sizes))
        blocks = Blocks(
            scale_shift=True,
            dropout=self.dropout if train else 0.0,
            norm_groups=self.norm_groups,
            norm_eps=self.norm_eps,
            resample="resnet",
            downsample_padding=(1, 1),
            dtype=jnp.float32,
            remat=False,
        )
        emb = layers.Conditioning(
            self.channels, 4 * self.channels, time_order=self.time_order, time_shift=self.time_shift, name="condition"
        )(time)
        context = Context(emb)
        h = layers.conv(self.channels, name="conv_in", dtype=jnp.float32)(x)
        h = encode(blocks, h, context, levels)[-1]
        h = between(blocks, h, context, attention)
        h = nn.silu(layers.GroupNorm(self.norm_groups, self.norm_eps, name="norm_out")(h))
        return AttentionPool(self.num_classes, self.head_channels, name="pool")(h)
