"""The encoder of T5, which tells nets like Stable Diffusion 3's what a caption says [Raffel20; Shazeer20]."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from flaxgen.nets import layers
from flaxgen.nets.unet import DTYPES


class T5Encoder(nn.Module):
    """Every token's state, by `depth` blocks of `width` channels; the defaults are T5 v1.1 XXL's.

    Places are known by distance alone: attention adds a number for each of `buckets` of distances, those from
    `distance` on in one, which all blocks share; and it is not scaled [Raffel20, sec. 2.1]. `dtype` is what is computed
    in, "float32" or "bfloat16"; parameters and output are float32.
    """

    vocab_size: int = 32128
    width: int = 4096
    depth: int = 24
    heads: int = 64
    head_width: int = 64
    mlp_width: int = 10240
    buckets: int = 32
    distance: int = 128
    norm_eps: float = 1e-6
    dtype: str = "float32"

    @nn.compact
    def __call__(self, ids: Int[Array, "B L"]) -> Float[Array, "B L W"]:
        """The states of all tokens, padding included, which is read like words.

        Raises:
            ValueError: if a field is out of range.
        """
        layers.check_choice("dtype", self.dtype, tuple(DTYPES))
        layers.check_positive(self, "depth", "heads", "head_width", "mlp_width")
        dtype = DTYPES[self.dtype]
        h = nn.Embed(
            self.vocab_size, self.width, dtype=dtype, embedding_init=nn.initializers.normal(1.0), name="tokens"
        )(ids)
        table = self.param("places", nn.initializers.normal(self.width**-0.5), (self.buckets, self.heads))
        bias = table[bucket_of(ids.shape[1], self.buckets, self.distance)].transpose(2, 0, 1)[None].astype(dtype)
        for i in range(self.depth):
            h = Block(self.heads, self.head_width, self.mlp_width, self.norm_eps, dtype, name=f"block_{i}")(h, bias)
        return nn.RMSNorm(self.norm_eps, dtype, name="norm_out")(h).astype(jnp.float32)


class Block(nn.Module):
    """Attention and a gated MLP, each of what is normalised before it [Shazeer20]; nothing has biases."""

    heads: int
    head_width: int
    mlp_width: int
    norm_eps: float = 1e-6
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B L W"], bias: Float[Array, "1 N L L"]) -> Float[Array, "B L W"]:
        inner = self.heads * self.head_width
        h = nn.RMSNorm(self.norm_eps, self.dtype, name="norm_1")(x)
        query, key, value = (
            layers.split_heads(self._dense(inner, name, h), self.heads) for name in ("query", "key", "value")
        )
        read = layers.attention(query, key, value, bias=bias, scale=1.0).reshape(*x.shape[:-1], inner)
        x = layers.once(x + self._dense(x.shape[-1], "out", read))
        h = nn.RMSNorm(self.norm_eps, self.dtype, name="norm_2")(x)
        gate = nn.gelu(self._dense(self.mlp_width, "mlp_gate", h), approximate=True)
        return layers.once(x + self._dense(x.shape[-1], "mlp_2", gate * self._dense(self.mlp_width, "mlp_1", h)))

    def _dense(self, features: int, name: str, h: Array) -> Array:
        return layers.dense(features, name=name, dtype=self.dtype, bias=False)(h)


def bucket_of(length: int, buckets: int, distance: int) -> Int[np.ndarray, "{length} {length}"]:
    """The bucket of each distance between a place that reads and one that is read: one half of them for those behind
    it, in each half the nearest by themselves and from there on by their logarithm [Raffel20, sec. 2.1].

    Raises:
        ValueError: if there are fewer than four buckets, or no distance beyond those that are told apart.
    """
    half = buckets // 2
    near = half // 2
    if near < 1 or distance <= near:
        raise ValueError(f"buckets={buckets}, distance={distance}: expected 4 or more, and more than {max(near, 1)}")
    ahead = np.arange(length)[None] - np.arange(length)[:, None]
    far = np.abs(ahead)
    logarithm = np.log(np.maximum(far, near).astype(np.float32) / near) / math.log(distance / near)
    beyond = np.minimum(near + (logarithm * (half - near)).astype(np.int64), half - 1)
    return half * (ahead > 0) + np.where(far < near, far, beyond)
