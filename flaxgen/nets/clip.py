"""CLIP: a picture and a caption in one space, and the contrastive loss that brings them there [Radford21]."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from flaxgen.nets import layers
from flaxgen.nets.transformer import Transformer, causal_mask
from flaxgen.nets.unet import DTYPES
from flaxgen.types import Metrics, Scalar

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Of the pixels, in [0, 1], that the published models were trained on."""


class TextEncoding(NamedTuple):
    """A caption as one vector, not normalised, and as one after the final norm at every token."""

    embedding: Float[Array, "B D"]
    hidden: Float[Array, "B L W"]


class VisionTower(nn.Module):
    """ViT with a class token, and a norm before the transformer [Radford21, sec. 2.4]; the defaults are ViT-L/14's.

    `dtype` is what is computed in, "float32" or "bfloat16"; parameters and the output are float32. `remat` trades a
    second forward pass for memory. `position_std` is the deviation of what places start as; 0 is width^-1/2, as
    published.
    """

    image_size: int = 224
    patch: int = 14
    width: int = 1024
    depth: int = 24
    heads: int = 16
    mlp_ratio: float = 4.0
    activation: str = "quick_gelu"
    norm_eps: float = 1e-5
    dtype: str = "float32"
    remat: bool = False
    position_std: float = 0.0

    @nn.compact
    def __call__(self, x: Float[Array, "B H W 3"]) -> Float[Array, "B F"]:
        """The class token of pictures whose pixels have been brought to mean 0 and deviation 1.

        Raises:
            ValueError: if the pictures are not of `image_size`, or the patches do not divide it.
        """
        _check_fields(self)
        if self.image_size % self.patch:
            raise ValueError(f"patch={self.patch} does not divide image_size={self.image_size}")
        if x.shape[1:] != (self.image_size, self.image_size, 3):
            size = f"{self.image_size}x{self.image_size}x3"
            raise ValueError(f"this CLIP is for pictures of {size}, got {'x'.join(map(str, x.shape[1:]))}: resize them")
        dtype, init = DTYPES[self.dtype], nn.initializers.normal(self.width**-0.5)
        sides = (self.patch, self.patch)
        patches = nn.Conv(self.width, sides, sides, "VALID", use_bias=False, dtype=dtype, name="patches")(x)
        patches = patches.reshape(len(x), -1, self.width)
        first = self.param("class_token", init, (self.width,)).astype(dtype)
        tokens = jnp.concatenate((jnp.broadcast_to(first, (len(x), 1, self.width)), patches), axis=1)
        places = nn.initializers.normal(self.position_std) if self.position_std else init
        positions = self.param("positions", places, tokens.shape[1:]).astype(dtype)
        h = nn.LayerNorm(self.norm_eps, dtype=dtype, name="norm_in")(tokens + positions[None])
        h, _ = _transformer(self)(h)
        return nn.LayerNorm(self.norm_eps, dtype=dtype, name="norm_out")(h[:, 0]).astype(jnp.float32)


class TextTower(nn.Module):
    """A causal transformer over tokens [Radford21, sec. 2.4]; defaults are ViT-L/14's, fields as `VisionTower`'s.

    `token_std` and `position_std` are the deviations of what tokens and places start as. As published they are so small
    that after the first attention every token is the mean of those before it, and who stands where is learned late.
    """

    vocab_size: int = 49408
    context: int = 77
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: float = 4.0
    activation: str = "quick_gelu"
    norm_eps: float = 1e-5
    dtype: str = "float32"
    remat: bool = False
    token_std: float = 0.02
    position_std: float = 0.01

    @nn.compact
    def __call__(self, ids: Int[Array, "B L"]) -> Float[Array, "B L F"]:
        """Every token after the final norm; a token sees itself and those before it, padding included.

        Raises:
            ValueError: if there are more tokens than `context`.
        """
        _check_fields(self)
        length = ids.shape[1]
        if length > self.context:
            raise ValueError(f"{length} tokens are more than the context={self.context} of this CLIP: cut the captions")
        dtype, normal = DTYPES[self.dtype], nn.initializers.normal
        embed = nn.Embed(self.vocab_size, self.width, dtype=dtype, embedding_init=normal(self.token_std), name="tokens")
        positions = self.param("positions", normal(self.position_std), (self.context, self.width)).astype(dtype)
        h, _ = _transformer(self)(embed(ids) + positions[None, :length], causal_mask(length, length))
        return nn.LayerNorm(self.norm_eps, dtype=dtype, name="norm_out")(h).astype(jnp.float32)


def _check_fields(tower: VisionTower | TextTower) -> None:
    layers.check_choice("dtype", tower.dtype, tuple(DTYPES))
    layers.count_heads(tower.width, tower.heads, 0)


def _transformer(tower: VisionTower | TextTower) -> Transformer:
    dtype = DTYPES[tower.dtype]
    shape = (tower.depth, tower.heads, tower.mlp_ratio, tower.activation, tower.norm_eps)
    return Transformer(*shape, dtype=dtype, remat=tower.remat, name="transformer")


class CLIP(nn.Module):
    """Two towers and their projections to one space of `embedding_dim` dimensions [Radford21, fig. 3].

    Either tower may be None; what was saved of a CLIP is often one alone, and at times without its projection: unless
    `projected` an embedding is what the tower gives, and `embedding_dim` its width. `mean` and `std` are of pixels in
    [0, 1]. The logit scale is learned as its logarithm. It is at most `max_logit_scale`, and what is beyond keeps its
    gradient: training brings the parameter back to the bound after each update [Radford21, sec. 2.5].
    """

    vision: VisionTower | None = VisionTower()
    text: TextTower | None = TextTower()
    embedding_dim: int = 768
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD
    logit_scale_init: float = math.log(1 / 0.07)
    max_logit_scale: float = 100.0
    projected: bool = True

    def setup(self):
        for name, tower in (("image_projection", self.vision), ("text_projection", self.text)):
            if tower is not None and not self.projected and tower.width != self.embedding_dim:
                raise ValueError(f"projected=False: embedding_dim={self.embedding_dim} is not the width={tower.width}")
            if tower is not None and self.projected:
                init = nn.initializers.normal(tower.width**-0.5)
                setattr(self, name, nn.Dense(self.embedding_dim, use_bias=False, kernel_init=init))
        if self.vision is not None and self.text is not None:
            self.logit_scale = self.param("logit_scale", nn.initializers.constant(self.logit_scale_init), ())

    def encode_image(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B D"]:
        """Embeddings, not normalised, of pictures in [-1, 1].

        Raises:
            ValueError: if the pictures are not of the vision tower's size, or there is no such tower.
        """
        if self.vision is None:
            raise ValueError("this CLIP has no vision tower (vision=None) and reads no pictures")
        mean, std = (jnp.array(value, jnp.float32)[None, None, None] for value in (self.mean, self.std))
        seen = self.vision((images.astype(jnp.float32) / 2 + 0.5 - mean) / std)
        return self.image_projection(seen) if self.projected else seen

    def encode_text(self, ids: Int[Array, "B L"], mask: Bool[Array, "B L"]) -> TextEncoding:
        """Captions' embeddings, read from the last token where `mask` is True, and all tokens' hidden states.

        Raises:
            ValueError: if there are more tokens than the text tower's context, or there is no such tower.
        """
        if self.text is None:
            raise ValueError("this CLIP has no text tower (text=None) and reads no captions")
        hidden = self.text(ids)
        last = last_token(hidden, mask)
        return TextEncoding(self.text_projection(last) if self.projected else last, hidden)

    def __call__(
        self, images: Float[Array, "B H W 3"], ids: Int[Array, "M L"], mask: Bool[Array, "M L"]
    ) -> tuple[Float[Array, "B D"], Float[Array, "M D"], Float[Array, ""]]:
        """The embeddings of pictures and of captions, and the logit scale: what `contrastive_loss` takes."""
        image, text = self.encode_image(images), self.encode_text(ids, mask).embedding
        return image, text, self.scale(self.logit_scale)

    def scale(self, logarithm: Float[Array, ""]) -> Float[Array, ""]:
        """The logit scale of its logarithm, at most `max_logit_scale`; beyond it the gradient is that of the bound."""
        beyond = jnp.maximum(logarithm - math.log(self.max_logit_scale), 0)
        return jnp.exp(logarithm - jax.lax.stop_gradient(beyond))


def last_token(hidden: Float[Array, "B L F"], mask: Bool[Array, "B L"]) -> Float[Array, "B F"]:
    """The hidden state of the last token where `mask` is True."""
    last = mask.shape[1] - 1 - jnp.argmax(mask[:, ::-1], axis=1)
    return jnp.take_along_axis(hidden, last[:, None, None], axis=1)[:, 0]


def normalise(x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
    """Vectors at length 1; the zero vector stays, with a finite gradient."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), 1e-24))


def contrastive_loss(
    image_embedding: Float[Array, "B D"],
    text_embedding: Float[Array, "B D"],
    logit_scale: Scalar,
    axis_name: str | None = None,
) -> tuple[Float[Array, ""], Metrics]:
    """Which caption belongs to a picture, and which picture to a caption: the mean cross-entropy [Radford21, fig. 3].

    Candidates are the whole global batch. With `axis_name` this device's embeddings are its rows of the batch, the
    others' are gathered, and the loss and the metrics are of this device's rows: their mean over the devices is the
    global batch's, and so is that of the gradients.
    """
    image, text = normalise(image_embedding), normalise(text_embedding)
    images, texts, first = image, text, 0
    if axis_name is not None:
        images, texts = (jax.lax.all_gather(x, axis_name, tiled=True) for x in (image, text))
        first = jax.lax.axis_index(axis_name) * len(image)
    own = first + jnp.arange(len(image))
    image_loss, image_to_text = _cross_entropy(logit_scale * image @ texts.T, own)
    text_loss, text_to_image = _cross_entropy(logit_scale * text @ images.T, own)
    loss = (image_loss + text_loss) / 2
    metrics = {
        "loss": loss,
        "image_to_text": image_to_text,
        "text_to_image": text_to_image,
        "logit_scale": jnp.asarray(logit_scale, jnp.float32),
    }
    return loss, metrics


def false_caption_loss(
    image_embedding: Float[Array, "B D"],
    text_embedding: Float[Array, "B D"],
    false_embedding: Float[Array, "B K D"],
    logit_scale: Scalar,
) -> tuple[Float[Array, ""], Metrics]:
    """Which of K + 1 captions belongs to a picture, its own or one of K that are nearly true: the mean cross-entropy.

    What only the arrangement of the same words tells apart is learned from such captions [Yuksekgonul23, sec. 4]; here
    they have a term of their own, as among those of the whole batch they are too few to count.
    """
    image, captions = normalise(image_embedding), jnp.concatenate((text_embedding[:, None], false_embedding), axis=1)
    logits = logit_scale * jnp.einsum("bd,bkd->bk", image, normalise(captions))
    loss, share = _cross_entropy(logits, jnp.zeros(len(image), int))
    return loss, {"false_loss": loss, "true_to_false": share}


def _cross_entropy(logits: Float[Array, "B N"], own: Int[Array, " B"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The mean of -log softmax at each row's own column, and how often that column is the largest."""
    log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), own[:, None], axis=1)
    return -log_p.mean(), (jnp.argmax(logits, axis=1) == own).astype(jnp.float32).mean()
