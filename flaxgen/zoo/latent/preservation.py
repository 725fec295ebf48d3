"""What a class of pictures looks like is kept while a net learns one thing of it: DreamBooth's prior preservation
[Ruiz23, sec. 3.3]."""

from collections.abc import Mapping
from typing import Any, cast

import jax

from flaxgen.types import Loss, Metrics, Source
from flaxgen.zoo.latent.config import PRIOR


class Paired:
    """Every example of one source with one of class pictures, whose fields are called PRIOR and their name; the shorter
    source begins again until the longer one ends."""

    def __init__(self, own: Source, prior: Source):
        self._own, self._prior = own, prior

    def __len__(self) -> int:
        return max(len(self._own), len(self._prior))

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        own, prior = (source[index % len(source)] for source in (self._own, self._prior))
        return {**own, **{PRIOR + name: value for name, value in prior.items()}}


def preserving(loss: Loss, weight: float) -> Loss:
    """The loss of the examples and `weight` times that of the class pictures beside them [Ruiz23, eq. 2], each of both
    with a time and noise of its own."""

    def both(params, batch, keys):
        own_keys, prior_keys = jax.vmap(lambda key: tuple(jax.random.split(key)))(keys)
        own = {name: value for name, value in batch.items() if not name.startswith(PRIOR)}
        value, metrics = loss(params, own, own_keys)
        prior, _ = loss(params, {name: batch[PRIOR + name] for name in own}, prior_keys)
        total = value + weight * prior
        return total, {**cast(Metrics, metrics), "loss": total, "own": value, "prior": prior}

    return both
