"""unCLIP's decoder: a U-Net that draws what a CLIP image embedding and a caption say [Ramesh22, sec. 2.1]."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from flaxgen.nets import layers
from flaxgen.nets.clip import TextTower, last_token
from flaxgen.nets.unet import DTYPES, UNet

NORM_EPS = 1e-5


class Decoder(nn.Module):
    """A UNet conditioned on a CLIP image embedding and a caption, as in [Ramesh22, sec. 2.1] and [Karlo].

    The time embedding is MLP(time) + linear(image embedding) + linear(text embedding). Attention reads `image_tokens`
    tokens made of the image embedding, then norm(linear(text hidden states)). `unet` needs `added` and a `token_dim`;
    `embedding_dim` is the width of both embeddings, `text_dim` that of the text hidden states. There is always a
    learned null image embedding. `null_text` adds a learned null text embedding and hidden state; without it, no
    caption is "" encoded, as in Karlo. The text hidden states are given, CLIP's in Karlo, or with `text` they are those
    of a text transformer that is trained with the decoder, and its last token joins the time embedding too, as in
    [Nichol21b, sec. 3] and [Ramesh22].
    """

    unet: UNet
    embedding_dim: int
    text_dim: int
    image_tokens: int = 4
    null_text: bool = False
    text: TextTower | None = None

    @nn.compact
    def __call__(  # noqa: PLR0913 - every condition by keyword
        self,
        x: Float[Array, "B H W C"],
        time: Float[Array, " B"],
        image_embedding: Float[Array, "B D"],
        text_embedding: Float[Array, "B D"],
        text_hidden: Float[Array, "B L F"] | None,
        text_mask: Bool[Array, "B L"],
        has_image: Bool[Array, " B"] | None = None,
        has_text: Bool[Array, " B"] | None = None,
        text_ids: Int[Array, "B L"] | None = None,
        train: bool = False,
    ) -> Float[Array, "B H W O"]:
        """The prediction for x at `time`, as of a UNet.

        A net with `text` takes the caption's tokens as `text_ids`, and None as `text_hidden`; any other takes
        `text_hidden` alone. `text_mask` is True where a hidden state may be read. Where `has_image` or `has_text` is
        False, that condition is its learned null instead; None is True everywhere.

        Raises:
            ValueError: if the UNet cannot take these conditions, a width is wrong, or a condition is missing or not
                known to this net.
        """
        self._check(image_embedding, text_embedding, has_text)
        text_hidden = self._hidden(text_hidden, text_ids)
        image_embedding = self._or_null("null_image", image_embedding, has_image)
        if self.null_text:
            text_embedding = self._or_null("null_text", text_embedding, has_text)
            text_hidden = self._or_null("null_text_hidden", text_hidden, has_text)
            if has_text is not None:
                first = jnp.arange(text_mask.shape[1]) == 0
                text_mask = jnp.where(has_text[:, None], text_mask, first[None])
        tokens, token_mask = self._tokens(image_embedding, text_hidden, text_mask)
        added = self._dense("image_embedding", self.unet.time_width, image_embedding)
        added = added + self._dense("text_embedding", self.unet.time_width, text_embedding)
        if self.text is not None:
            added = added + self._dense("text_end", self.unet.time_width, last_token(text_hidden, text_mask))
        return self.unet(x, time, tokens=tokens, token_mask=token_mask, added=added, train=train)

    def _hidden(self, text_hidden: Array | None, text_ids: Array | None) -> Float[Array, "B L F"]:
        """The text hidden states, given or of the net's own tower."""
        given, wanted, other = text_hidden, "text_hidden", text_ids
        if self.text is not None:
            given, wanted, other = text_ids, "text_ids", text_hidden
        if given is None or other is not None:
            tower = "no text tower" if self.text is None else "a text tower"
            raise ValueError(f"this decoder has {tower}: it takes the caption as {wanted!r}, and nothing else")
        hidden = given if self.text is None else self.text(given)
        layers.check_width("text_hidden", hidden, "text_dim", self.text_dim)
        return hidden

    def _or_null(self, name: str, value: Array, has: Bool[Array, " B"] | None) -> Array:
        """`value` where the example has one, else the learned null; the null is there even when none needs it."""
        null = self.param(name, nn.initializers.normal(0.02), (value.shape[-1],))
        if has is None:
            return value
        ones = (1,) * (value.ndim - 1)
        return jnp.where(has.reshape(-1, *ones), value, null.reshape(*ones, -1))

    def _tokens(self, image_embedding, text_hidden, text_mask) -> tuple[Float[Array, "B N E"], Bool[Array, "B N"]]:
        """Image tokens, which are always visible, then text tokens."""
        width = self.unet.token_dim
        image = self._dense("image_tokens", self.image_tokens * width, image_embedding)
        image = split_tokens(image, self.image_tokens)
        text = self._dense("text_tokens", width, text_hidden)
        text = nn.LayerNorm(NORM_EPS, dtype=DTYPES[self.unet.dtype], name="text_norm")(text)
        visible = jnp.ones(image.shape[:2], bool)
        return jnp.concatenate((image, text), axis=1), jnp.concatenate((visible, text_mask), axis=1)

    def _dense(self, name: str, features: int, value: Array) -> Array:
        return layers.dense(features, name=name, dtype=DTYPES[self.unet.dtype])(value)

    def _check(self, image_embedding, text_embedding, has_text) -> None:
        unet = self.unet
        layers.check_choice("dtype", unet.dtype, tuple(DTYPES))
        if not unet.added or unet.token_dim < 1:
            raise ValueError(
                f"a decoder's unet has added={unet.added} and token_dim={unet.token_dim}: set added=True and "
                "token_dim to the width of the tokens it attends to"
            )
        if not any(value.reads_tokens for value in unet.attentions):
            raise ValueError(
                f"a decoder's unet reads its tokens nowhere: middle={unet.middle!r}, attention={unet.attention!r}; "
                "set one of them to a TokenAttention or a SpatialTransformer"
            )
        if has_text is not None and not self.null_text:
            raise ValueError("null_text=False has no null for 'has_text': leave it out and encode an empty caption")
        for name, value in (("image_embedding", image_embedding), ("text_embedding", text_embedding)):
            layers.check_width(name, value, "embedding_dim", self.embedding_dim)


def split_tokens(x: Float[Array, "B F"], tokens: int) -> Float[Array, "B N E"]:
    """One vector as `tokens` tokens, channels first: channel c of token n stands at c * tokens + n [Karlo]."""
    return x.reshape(x.shape[0], -1, tokens).transpose(0, 2, 1)
