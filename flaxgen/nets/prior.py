"""The diffusion prior of unCLIP [Ramesh22, sec. 2.2]: from a caption to the CLIP embedding of a picture of it."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from flaxgen.nets import layers
from flaxgen.nets.transformer import Transformer, causal_mask
from flaxgen.nets.unet import DTYPES

EXTRA = 4
"""Tokens behind the text: its embedding, the time, the noised image embedding, and the one that is read out."""


class DiffusionPrior(nn.Module):
    """Predicts the whitened image embedding x0 from a noised one, the time and a caption; the defaults are Karlo's.

    A causal transformer over `context` text tokens (`text_dim` wide), the caption's CLIP embedding, the time, x and a
    learned token, from whose place x0 is read. Whitening, (embedding - mean) / std, is not part of the net. `dtype` is
    what is computed in; parameters and output are float32. `remat` trades a second forward pass for memory.
    """

    embedding_dim: int = 768
    text_dim: int = 768
    context: int = 77
    width: int = 2048
    depth: int = 20
    heads: int = 32
    activation: str = "gelu"
    dtype: str = "float32"
    remat: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B D"],
        time: Float[Array, " B"],
        text_embedding: Float[Array, "B D"],
        text_hidden: Float[Array, "B L W"],
        text_mask: Bool[Array, "B L"],
        train: bool = False,
    ) -> Float[Array, "B D"]:
        """x0 for x at `time`, in the units the net was trained with (0 .. T-1 of a table).

        `text_embedding` is projected, not normalised; `text_hidden` is after CLIP's last norm and not projected.
        `text_mask` is True at the tokens of the caption and False at padding. Nothing depends on `train`.

        Raises:
            ValueError: if an input has another size than the fields say.
        """
        layers.check_choice("dtype", self.dtype, tuple(DTYPES))
        layers.check_width("x", x, "embedding_dim", self.embedding_dim)
        check_text(self, text_embedding, text_hidden)
        dtype = DTYPES[self.dtype]
        learned = self.param("prediction", nn.initializers.normal(0.02), (self.width,))
        single = (
            layers.dense(self.width, name="text_embedding_in", dtype=dtype)(text_embedding),
            layers.Conditioning(self.width, self.width, time_order="cos_sin", dtype=dtype, name="condition")(time),
            layers.dense(self.width, name="x_in", dtype=dtype)(x),
            jnp.broadcast_to(learned.astype(dtype)[None], (x.shape[0], self.width)),
        )
        text = layers.dense(self.width, name="text_in", dtype=dtype)(text_hidden)
        tokens = jnp.concatenate((text, jnp.stack(single, axis=1)), axis=1)
        places = self.context + EXTRA
        positions = self.param("positions", nn.initializers.normal(0.02), (places, self.width))
        blocks = Transformer(
            self.depth, self.heads, activation=self.activation, dtype=dtype, remat=self.remat, name="transformer"
        )
        mask = causal_mask(places, places) & readable(text_mask, EXTRA)
        h = blocks(tokens + positions.astype(dtype)[None], mask)[0][:, -1]
        h = nn.LayerNorm(1e-5, dtype=dtype, name="norm_out")(h)
        return layers.dense(self.embedding_dim, name="out", dtype=dtype, zero=True)(h).astype(jnp.float32)


def readable(text_mask: Bool[Array, "B L"], extra: int) -> Bool[Array, "B 1 1 S"]:
    """True at the places that attention may read: the text that is not padding, and `extra` places behind it."""
    return jnp.pad(text_mask, ((0, 0), (0, extra)), constant_values=True)[:, None, None]


def check_text(net, text_embedding: Float[Array, "B D"], text_hidden: Float[Array, "B L W"]) -> None:
    """Raises ValueError unless the caption's arrays have the sizes that the prior's fields say."""
    layers.check_width("text_embedding", text_embedding, "embedding_dim", net.embedding_dim)
    layers.check_width("text_hidden", text_hidden, "text_dim", net.text_dim)
    if text_hidden.shape[1] != net.context:
        raise ValueError(
            f"the condition 'text_hidden' has {text_hidden.shape[1]} places, expected context={net.context}"
        )
