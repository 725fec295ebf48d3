"""What lies between encoder and decoder, as values: nothing, a Gaussian, or the codes of `codebooks.py` and
`levels.py`.

Each bottleneck has the same methods, which is all that training, drawing and priors know of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from flaxgen.latents import gaussian
from flaxgen.train.config import require
from flaxgen.types import Keys, Metrics, Params, PRNGKey

Map = Float[Array, "B h w D"]
Features = Float[Array, "B h w C"]
"""What the encoder gives: of a Gaussian twice as many channels as the decoder reads."""
Codes = Int[Array, "B h w"]


class Sizes(NamedTuple):
    """How many numbers a picture has, and how many pictures a batch has on all devices and in all parts together."""

    picture: int
    batch: int


class Passed(NamedTuple):
    """What a bottleneck makes of a batch in training: what the decoder reads, what is added to the loss, metrics, and
    sums over the pictures for its statistics to follow."""

    z: Map
    cost: Float[Array, ""]
    metrics: Metrics
    seen: PyTree = ()


@dataclass(frozen=True)
class Bottleneck:
    """What all have in common; this one lets everything through, which makes a plain autoencoder [Hinton06].

    `draws` says whether latents can be drawn without a prior, and `moments` whether the encoder has to give two numbers
    for each that the decoder reads.
    """

    draws: ClassVar[bool] = False
    moments: ClassVar[bool] = False

    @property
    def num_codes(self) -> int | Mapping[str, int]:
        """How many codes there are, of two levels by name, 0 where latents are numbers."""
        return 0

    @property
    def width(self) -> int:
        """How many channels the decoder has to read, 0 for any."""
        return 0

    def init(self, key: PRNGKey, latent_dim: int) -> Params:
        """Parameters of its own."""
        return {}

    def init_statistics(self, params: Params) -> PyTree:
        """What it follows from step to step."""
        return ()

    def train(self, params: Params, h: Features, keys: Keys, statistics: PyTree, sizes: Sizes) -> Passed:
        """A batch, or a part of one, on its way to the decoder; costs in nats are divided by `sizes.picture`."""
        return Passed(h, jnp.zeros(()), {})

    def follow(self, statistics: PyTree, seen: PyTree) -> PyTree:
        """The statistics after a step that has seen these sums over the whole batch."""
        return statistics

    def settle(self, params: Params, statistics: PyTree) -> Params:
        """The parameters that its statistics put in their place."""
        return params

    def quantise(self, params: Params, h: Features) -> Map:
        """What the decoder reads of a picture, without chance."""
        return h

    def to_codes(self, params: Params, h: Features) -> Codes:
        """The codes of a picture."""
        raise ValueError("the latents of this autoencoder are numbers: it has no codes")

    def from_codes(self, params: Params, codes: Codes) -> Map:
        """What the decoder reads of codes."""
        raise ValueError("the latents of this autoencoder are numbers: it has no codes")


@dataclass(frozen=True)
class Gaussian(Bottleneck):
    """Mean and variance of a Gaussian, whose KL to N(0, 1) is weighted by `beta` [Kingma14; Higgins17]; a channel's KL
    below `free_nats` costs nothing more to lower [Kingma16]."""

    beta: float = 1.0
    free_nats: float = 0.0
    draws: ClassVar[bool] = True
    moments: ClassVar[bool] = True

    def __post_init__(self):
        require(self.beta >= 0, f"beta={self.beta}: expected 0 or more")
        require(self.free_nats >= 0, f"free_nats={self.free_nats}: expected 0 (none) or more nats a channel")

    def train(self, params: Params, h: Features, keys: Keys, statistics: PyTree, sizes: Sizes) -> Passed:
        mean, log_variance = gaussian.split_moments(h)
        kl = gaussian.kl_to_normal(mean, log_variance)
        cost = self.beta * gaussian.free_bits(kl, self.free_nats).mean() / sizes.picture
        total = kl.reshape(len(kl), -1).sum(-1).mean()
        return Passed(gaussian.draw(mean, log_variance, keys), cost, {"kl": total})

    def quantise(self, params: Params, h: Features) -> Map:
        return gaussian.split_moments(h)[0]
