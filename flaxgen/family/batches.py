"""What of a batch goes where: the example that is learned, and the condition, which is hidden now and then."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from flaxgen.data import unit_range
from flaxgen.diffusion.losses import Inputs


class Drop(NamedTuple):
    """With `probability` the fields named in `null` take its values, all of them together; a leaf of `null` has the
    rank of its field and a leading 1."""

    probability: float
    null: Mapping[str, Any]


def read_batch(field: str = "image", condition: Sequence[str] = (), drops: Sequence[Drop] = ()) -> Inputs:
    """x0 from `field`, scaled to [-1, 1] if 8-bit; the condition from the fields named, each `Drop` applied with a draw
    of its own, for guidance without a classifier [Ho22, alg. 1].

    Raises:
        ValueError: if a probability is out of [0, 1], or a null names no field of the condition.
    """
    for drop in drops:
        if not 0 <= drop.probability <= 1:
            raise ValueError(f"drop probability={drop.probability} must be between 0 and 1")
        if unknown := set(drop.null) - set(condition):
            raise ValueError(f"null of {sorted(unknown)} drops no field of the condition {list(condition)}")

    def inputs(batch, key):
        given = {name: batch[name] for name in condition}
        for i, drop in enumerate(drops):
            dropped = jax.random.bernoulli(jax.random.fold_in(key, i), drop.probability)
            given |= {
                name: jnp.where(dropped, jnp.asarray(null, given[name].dtype), given[name])
                for name, null in drop.null.items()
            }
        return unit_range(batch[field]), given

    return inputs
