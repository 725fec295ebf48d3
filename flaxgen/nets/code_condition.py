"""A map of codes that a net over a finer map is conditioned on [Razavi19, sec. 3.2]."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from flaxgen.nets import layers
from flaxgen.nets.vqvae import Residuals


@dataclass(frozen=True)
class CodeMap:
    """A map of `height` x `width` codes out of `codes`, read whole by `depth` residual blocks `channels` wide."""

    height: int = 32
    width: int = 32
    codes: int = 512
    channels: int = 128
    depth: int = 20


class ReadMap(nn.Module):
    """Features of a map for every place of a finer one: a table, residual blocks of 3 x 3 convolutions, and a
    transposed one in which a code writes to the places that it stands for."""

    map: CodeMap
    dtype: Any

    @nn.compact
    def __call__(self, codes: Int[Array, "B u v"], height: int, width: int) -> Float[Array, "B {height} {width} F"]:
        layers.check_positive(self.map, "height", "width", "codes", "channels", "depth")
        layers.check_grid(self.map, codes)
        if height % self.map.height or width % self.map.width:
            raise ValueError(
                f"condition: a map of {self.map.height}x{self.map.width}, expected one whose sides divide "
                f"{height}x{width}"
            )
        channels, dtype = self.map.channels, self.dtype
        # not "code": that is the table of what is predicted
        x = nn.Embed(self.map.codes, channels, dtype=dtype, name="table")(codes)
        x = Residuals(self.map.depth, channels, dtype, name="residuals")(x)
        times = (height // self.map.height, width // self.map.width)
        return nn.ConvTranspose(
            channels, times, times, "VALID", dtype=dtype, kernel_init=layers.INIT, name="enlarge"
        )(x)  # fmt: skip


def read_condition(net: Any, codes: Int[Array, "B u v"] | None, dtype: Any) -> Float[Array, "B h w F"] | None:
    """The features of the map that a net of `height` x `width` has as its `condition`, None where it has none; call it
    inside a module's `__call__`.

    Raises:
        ValueError: if the map is missing, not asked for, or of another size.
    """
    layers.check_given("condition", codes, "condition", net.condition is not None)
    if net.condition is None:
        return None
    assert codes is not None
    return ReadMap(net.condition, dtype, name="condition_map")(codes, net.height, net.width).astype(dtype)


def condition_like(net: Any) -> Int[Array, "1 u v"] | None:
    """Codes of the shape that a net is conditioned on, for making parameters; None where there are none."""
    asked: CodeMap | None = getattr(net, "condition", None)
    return None if asked is None else jnp.zeros((1, asked.height, asked.width), jnp.int32)
