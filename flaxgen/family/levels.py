"""Two levels of codes: a codebook for a small map of the whole, and one for a larger map of what it leaves open
[Razavi19]."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
from jaxtyping import PyTree

from flaxgen.family.bottlenecks import Bottleneck, Map, Passed, Sizes
from flaxgen.family.codebooks import Codebook
from flaxgen.nets.vqvae2 import join
from flaxgen.types import Keys, Params, PRNGKey

TOP, BOTTOM = "top", "bottom"
LEVELS = (TOP, BOTTOM)
"""From the first that is drawn to the last."""


class TwoMaps(NamedTuple):
    """What an encoder of two levels says: what the top quantises, and what the bottom does, given the map that the
    top's codes stand for."""

    top: Map
    bottom: Callable[[Map], Map]


@dataclass(frozen=True)
class Levels(Bottleneck):
    """A codebook for either level: the bottom quantises what its encoder says once the top is quantised and decoded.
    What it is given of pictures are `TwoMaps`; parameters, statistics, codes and metrics are those of `top` and
    `bottom`, by name."""

    top: Codebook = Codebook()
    bottom: Codebook = Codebook()

    @property
    def num_codes(self) -> Mapping[str, int]:
        return {TOP: self.top.codes, BOTTOM: self.bottom.codes}

    def init(self, key: PRNGKey, latent_dim: int) -> Params:
        keys = dict(zip(LEVELS, jax.random.split(key), strict=True))
        return {name: self._of(name).init(keys[name], latent_dim // 2) for name in LEVELS}

    def init_statistics(self, params: Params) -> PyTree:
        return {name: self._of(name).init_statistics(params[name]) for name in LEVELS}

    def train(self, params: Params, h: Any, keys: Keys, statistics: PyTree, sizes: Sizes) -> Passed:
        own = {name: jax.vmap(jax.random.fold_in, (0, None))(keys, level) for level, name in enumerate(LEVELS)}
        top = self.top.train(params[TOP], h.top, own[TOP], statistics[TOP], sizes)
        bottom = self.bottom.train(params[BOTTOM], h.bottom(top.z), own[BOTTOM], statistics[BOTTOM], sizes)
        both = {TOP: top, BOTTOM: bottom}
        metrics = {f"{said}_{name}": value for name, one in both.items() for said, value in one.metrics.items()}
        seen = {name: one.seen for name, one in both.items()}
        return Passed(join(top.z, bottom.z), top.cost + bottom.cost, metrics, seen)

    def follow(self, statistics: PyTree, seen: PyTree) -> PyTree:
        return {name: self._of(name).follow(statistics[name], seen[name]) for name in LEVELS}

    def settle(self, params: Params, statistics: PyTree) -> Params:
        return {**params, **{name: self._of(name).settle(params[name], statistics[name]) for name in LEVELS}}

    def quantise(self, params: Params, h: Any) -> Map:
        return self.from_codes(params, self.to_codes(params, h))

    def to_codes(self, params: Params, h: Any) -> Mapping[str, Any]:
        top = self.top.to_codes(params[TOP], h.top)
        below = h.bottom(self.top.from_codes(params[TOP], top))
        return {TOP: top, BOTTOM: self.bottom.to_codes(params[BOTTOM], below)}

    def from_codes(self, params: Params, codes: Mapping[str, Any]) -> Map:
        return join(*(self._of(name).from_codes(params[name], codes[name]) for name in LEVELS))

    def _of(self, name: str) -> Codebook:
        return self.top if name == TOP else self.bottom


def by_name(codes: Any, single: str = "codes") -> dict[str, Any]:
    """The maps of codes, or what else there is one of for each map, by name; what has no levels is called `single`."""
    return dict(codes) if isinstance(codes, Mapping) else {single: codes}
