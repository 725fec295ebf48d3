"""Bottlenecks of codes: a codebook, relaxed draws of one, levels, signs."""

import math
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from flaxgen.family.bottlenecks import Bottleneck, Codes, Features, Map, Passed, Sizes
from flaxgen.latents import codebook, finite, gumbel
from flaxgen.train.config import require
from flaxgen.types import Keys, Metrics, Params, PRNGKey

USAGE_DECAY = 0.99
"""Of the running count of codes that are not moved by one."""


@dataclass(frozen=True)
class Codebook(Bottleneck):
    """The nearest of `codes` vectors [vdOord17]. These follow a running mean of the vectors that chose them, with
    `decay`, or with `update="gradient"` their own gradient; vectors are drawn to them by `commitment`.

    A code whose running count falls below the share `restart` of the mean count begins again at a vector of the batch
    (0: never) [Dhariwal20]. With `normalise` vectors and codes have length 1 [Yu21].
    """

    codes: int = 512
    commitment: float = 0.25
    update: Literal["average", "gradient"] = "average"
    decay: float = 0.99
    restart: float = 0.05
    normalise: bool = False

    def __post_init__(self):
        require(self.codes >= 2, f"codes={self.codes}: expected 2 or more")
        require(self.commitment >= 0, f"commitment={self.commitment}: expected 0 or more")
        require(0 <= self.decay < 1, f"decay={self.decay}: expected a number in [0, 1)")
        require(0 <= self.restart < 1, f"restart={self.restart}: expected a share of the mean count in [0, 1)")
        require(
            not self.restart or self.update == "average",
            f"restart={self.restart} moves codes that follow averages: set update=average, or restart=0",
        )

    @property
    def num_codes(self) -> int:
        return self.codes

    @property
    def _count_decay(self) -> float:
        return self.decay if self.update == "average" else USAGE_DECAY

    def init(self, key: PRNGKey, latent_dim: int) -> Params:
        return {"codebook": jax.random.normal(key, (self.codes, latent_dim)) / math.sqrt(latent_dim)}

    def init_statistics(self, params: Params) -> PyTree:
        averages = codebook.fresh_averages(self._vectors(params))
        return averages if self.update == "average" else averages.count

    def train(self, params: Params, h: Features, keys: Keys, statistics: PyTree, sizes: Sizes) -> Passed:
        z, vectors = self._unit(h.astype(jnp.float32)), self._vectors(params)
        flat, still = z.reshape(-1, z.shape[-1]), jax.lax.stop_gradient
        codes = codebook.nearest(still(flat), still(vectors))
        q = vectors[codes].reshape(z.shape)
        distance = jnp.mean((z - still(q)) ** 2)
        cost, seen = self.commitment * distance, codebook.sums(still(flat), codes, self.codes)
        if self.update == "gradient":
            cost, seen = cost + jnp.mean((still(z) - q) ** 2), seen.count
        elif self.restart:
            vectors_a_batch = sizes.batch * flat.shape[0] / z.shape[0]
            share = min(1.0, self.codes / vectors_a_batch)
            seen = (seen, codebook.propose(still(flat), self.codes, share, keys))
        metrics = {"commitment": distance, **_usage(self._count(statistics), self._decay)}
        return Passed(codebook.straight_through(still(q), z), cost, metrics, seen)

    def follow(self, statistics: PyTree, seen: PyTree) -> PyTree:
        if self.update == "gradient":
            return _follow_count(statistics, seen, self._decay)
        proposed = None
        if self.restart:
            seen, proposed = seen
        averages = codebook.follow(statistics, seen, self.decay)
        return averages if proposed is None else codebook.restart(averages, proposed, self.restart)

    def settle(self, params: Params, statistics: PyTree) -> Params:
        if self.update == "gradient":
            return params
        return {**params, "codebook": codebook.codes_of(statistics, params["codebook"])}

    def quantise(self, params: Params, h: Features) -> Map:
        return self.from_codes(params, self.to_codes(params, h))

    def to_codes(self, params: Params, h: Features) -> Codes:
        return codebook.nearest(self._unit(h.astype(jnp.float32)), self._vectors(params))

    def from_codes(self, params: Params, codes: Codes) -> Map:
        return self._vectors(params)[codes]

    @property
    def _decay(self) -> float:
        return self.decay if self.update == "average" else USAGE_DECAY

    def _count(self, statistics: PyTree) -> Float[Array, " K"]:
        return statistics.count if self.update == "average" else statistics

    def _unit(self, z: Array) -> Array:
        return codebook.unit(z) if self.normalise else z

    def _vectors(self, params: Params) -> Float[Array, "K D"]:
        return self._unit(params["codebook"].astype(jnp.float32))


@dataclass(frozen=True)
class Gumbel(Bottleneck):
    """One of `codes` by relaxed draws of a softmax over what the encoder says of each [Ramesh21, sec. 2.1]. Along half
    cosines, the temperature falls to its end in `temperature_steps`, and the weight `beta` of the KL to equal
    probabilities rises from 0 in `beta_steps` (0: at once). With `hard` the decoder reads one code and not weights,
    and gradients are those of the weights.
    """

    codes: int = 8192
    temperature: float = 1.0
    temperature_end: float = 1 / 16
    temperature_steps: int = 150_000
    beta: float = 6.6
    beta_steps: int = 5000
    hard: bool = False

    def __post_init__(self):
        require(self.codes >= 2, f"codes={self.codes}: expected 2 or more")
        for name in ("temperature", "temperature_end"):
            require(getattr(self, name) > 0, f"{name}={getattr(self, name)}: expected a number above 0")
        for name in ("temperature_steps", "beta_steps", "beta"):
            require(getattr(self, name) >= 0, f"{name}={getattr(self, name)}: expected 0 or more")

    @property
    def num_codes(self) -> int:
        return self.codes

    @property
    def width(self) -> int:
        return self.codes

    def init_statistics(self, params: Params) -> PyTree:
        return {"step": jnp.zeros(()), "count": jnp.ones(self.codes)}

    def train(self, params: Params, h: Features, keys: Keys, statistics: PyTree, sizes: Sizes) -> Passed:
        step = statistics["step"]
        temperature = gumbel.anneal(step, self.temperature, self.temperature_end, self.temperature_steps)
        beta = gumbel.anneal(step, 0.0, self.beta, self.beta_steps)
        weights = gumbel.relax(h, keys, temperature)
        if self.hard:
            one = jax.nn.one_hot(jnp.argmax(weights, -1), self.codes)
            weights = codebook.straight_through(one, weights)
        kl = gumbel.kl_to_uniform(h).reshape(len(h), -1).sum(-1).mean()
        chosen = jax.ops.segment_sum(jnp.ones(h[..., 0].size), jnp.argmax(h, -1).reshape(-1), self.codes)
        metrics = {"kl": kl, "temperature": temperature, **_usage(statistics["count"], USAGE_DECAY)}
        return Passed(weights, beta * kl / sizes.picture, metrics, chosen)

    def follow(self, statistics: PyTree, seen: PyTree) -> PyTree:
        return {"step": statistics["step"] + 1, "count": _follow_count(statistics["count"], seen, USAGE_DECAY)}

    def quantise(self, params: Params, h: Features) -> Map:
        return self.from_codes(params, self.to_codes(params, h))

    def to_codes(self, params: Params, h: Features) -> Codes:
        return jnp.argmax(h, -1).astype(jnp.int32)

    def from_codes(self, params: Params, codes: Codes) -> Map:
        return jax.nn.one_hot(codes, self.codes)


@dataclass(frozen=True)
class Finite(Bottleneck):
    """Each channel rounded to `levels` values, prod(levels) codes without a codebook [Mentzer24]."""

    levels: tuple[int, ...] = (8, 6, 5)

    def __post_init__(self):
        require(bool(self.levels) and min(self.levels) >= 3, f"levels={self.levels}: expected numbers of 3 or more")

    @property
    def num_codes(self) -> int:
        return math.prod(self.levels)

    @property
    def width(self) -> int:
        return len(self.levels)

    def init_statistics(self, params: Params) -> PyTree:
        return jnp.ones(self.num_codes)

    def train(self, params: Params, h: Features, keys: Keys, statistics: PyTree, sizes: Sizes) -> Passed:
        z = finite.round_levels(h, self.levels)
        codes = finite.codes_of_levels(jax.lax.stop_gradient(z), self.levels).reshape(-1)
        seen = jax.ops.segment_sum(jnp.ones(codes.size), codes, self.num_codes)
        return Passed(z, jnp.zeros(()), _usage(statistics, USAGE_DECAY), seen)

    def follow(self, statistics: PyTree, seen: PyTree) -> PyTree:
        return _follow_count(statistics, seen, USAGE_DECAY)

    def quantise(self, params: Params, h: Features) -> Map:
        return finite.round_levels(h, self.levels)

    def to_codes(self, params: Params, h: Features) -> Codes:
        return finite.codes_of_levels(finite.round_levels(h, self.levels), self.levels)

    def from_codes(self, params: Params, codes: Codes) -> Map:
        return finite.levels_of_codes(codes, self.levels)


@dataclass(frozen=True)
class Signs(Bottleneck):
    """The signs of `bits` channels, 2^bits codes without a codebook, with `entropy` as the weight of a loss that makes
    each sign sure and all codes alike, at `sharpness`; vectors are drawn to their codes by `commitment` [Yu24]."""

    bits: int = 10
    entropy: float = 0.1
    sharpness: float = 100.0
    commitment: float = 0.25

    def __post_init__(self):
        require(1 <= self.bits <= 18, f"bits={self.bits}: expected 1 to 18")
        for name in ("entropy", "commitment", "sharpness"):
            require(getattr(self, name) >= 0, f"{name}={getattr(self, name)}: expected 0 or more")

    @property
    def num_codes(self) -> int:
        return 2**self.bits

    @property
    def width(self) -> int:
        return self.bits

    def init_statistics(self, params: Params) -> PyTree:
        return {"count": jnp.ones(self.num_codes), "mean": jnp.full(self.num_codes, 1 / self.num_codes, jnp.float32)}

    def train(self, params: Params, h: Features, keys: Keys, statistics: PyTree, sizes: Sizes) -> Passed:
        flat = h.astype(jnp.float32).reshape(-1, self.bits)
        z, still = finite.sign(flat), jax.lax.stop_gradient
        near = finite.sign_log_probabilities(flat, self.sharpness)
        mean = jnp.exp(still(near)).sum(0)
        each, together = finite.entropy_terms(near, statistics["mean"])
        distance = jnp.mean((flat - still(z)) ** 2)
        cost = self.entropy * (each - together) + self.commitment * distance
        codes = finite.codes_of_signs(still(z))
        seen = {
            "count": jax.ops.segment_sum(jnp.ones(codes.size), codes, self.num_codes),
            "mean": mean,
        }
        metrics = {"commitment": distance, "entropy": each, **_usage(statistics["count"], USAGE_DECAY)}
        return Passed(z.reshape(h.shape), cost, metrics, seen)

    def follow(self, statistics: PyTree, seen: PyTree) -> PyTree:
        mean = seen["mean"] / jnp.maximum(seen["mean"].sum(), 1e-30)
        return {
            "count": _follow_count(statistics["count"], seen["count"], USAGE_DECAY),
            "mean": _follow_count(statistics["mean"], mean, USAGE_DECAY),
        }

    def quantise(self, params: Params, h: Features) -> Map:
        return finite.sign(h)

    def to_codes(self, params: Params, h: Features) -> Codes:
        return finite.codes_of_signs(finite.sign(h))

    def from_codes(self, params: Params, codes: Codes) -> Map:
        return finite.signs_of_codes(codes, self.bits)


def _follow_count(count: Array, seen: Array, decay: float) -> Array:
    return decay * count + (1 - decay) * seen


def _usage(count: Float[Array, " K"], decay: float) -> Metrics:
    """How the codes are used, over the running count and not in one batch."""
    return {"perplexity": codebook.perplexity(count), "used": codebook.share_used(count, decay)}
