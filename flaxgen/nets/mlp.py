"""A denoiser for points: residual MLP blocks for 2-D toys and other small vectors."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from flaxgen.nets import layers


class MLP(nn.Module):
    """Predicts from a noisy point and the time, by `depth` residual blocks of `width` units.

    `features` is the dimensions of a point. `num_classes` is the rows of the label table, the null label's included,
    `embedding_dim` the width of that condition; 0 is none. `learned_variance` doubles the output.
    """

    features: int = 2
    width: int = 128
    depth: int = 4
    dropout: float = 0.0
    num_classes: int = 0
    embedding_dim: int = 0
    learned_variance: bool = False
    time_order: str = "sin_cos"
    time_shift: int = 0

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B D"],
        time: Float[Array, " B"],
        label: Int[Array, " B"] | None = None,
        embedding: Float[Array, "B E"] | None = None,
        tokens: Float[Array, "B N F"] | None = None,
        token_mask: Bool[Array, "B N"] | None = None,
        low_res: Float[Array, "B h w C"] | None = None,
        train: bool = False,
    ) -> Float[Array, "B _"]:
        """The prediction for x at `time`, in the units the net was trained with (0 .. T-1 of a table).

        Raises:
            ValueError: if a condition is missing or not known to this net, or x has other than `features` dimensions.
        """
        for name, value in (("tokens", tokens), ("token_mask", token_mask), ("low_res", low_res)):
            if value is not None:
                raise ValueError(f"an MLP takes no condition {name!r}: leave it out or use a UNet")
        if x.shape[-1] != self.features:
            raise ValueError(f"x has {x.shape[-1]} dimensions, features={self.features} expects {self.features}")
        layers.check_positive(self, "width")
        emb = layers.Conditioning(
            self.width,
            self.width,
            time_order=self.time_order,
            time_shift=self.time_shift,
            num_classes=self.num_classes,
            embedding_dim=self.embedding_dim,
            name="condition",
        )(time, label, embedding)
        rate = self.dropout if train else 0.0
        h = layers.dense(self.width, name="in", dtype=jnp.float32)(x)
        for i in range(self.depth):
            r = nn.silu(nn.LayerNorm(name=f"block_{i}_norm")(h))
            r = layers.dense(self.width, name=f"block_{i}_1", dtype=jnp.float32)(r)
            r = r + layers.dense(self.width, name=f"block_{i}_embedding", dtype=jnp.float32)(nn.silu(emb))
            r = nn.Dropout(rate, deterministic=rate == 0)(nn.silu(r))
            h = h + layers.dense(self.width, name=f"block_{i}_2", dtype=jnp.float32, zero=True)(r)
        h = nn.silu(nn.LayerNorm(name="norm_out")(h))
        return layers.dense(self.features * (1 + self.learned_variance), name="out", dtype=jnp.float32, zero=True)(h)
