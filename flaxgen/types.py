"""The interfaces every part of flaxgen is written against; nothing else lives here."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Float, Key, PyTree, Shaped, UInt8

Params: TypeAlias = PyTree
State: TypeAlias = Any
Batch: TypeAlias = Mapping[str, Array]
Metrics: TypeAlias = Mapping[str, Array]
Condition: TypeAlias = Mapping[str, Array]
"""What a net reads beside (x, t), by the keyword of its `__call__`: `label`, `embedding`, `tokens`, `low_res` ...
Every leaf has the batch axis in front."""

Scalar: TypeAlias = float | int | Float[Array, ""]
Time: TypeAlias = Scalar
"""Diffusion time in [0, 1]: 0 is clean, 1 is noise. One time a call; batches of times come from `jax.vmap`."""
PRNGKey: TypeAlias = Key[Array, ""]
Keys: TypeAlias = Key[Array, " B"]
"""One key an example, so that what is drawn for an example depends on its place in the batch and on nothing else."""


class AlphaSigma(NamedTuple):
    """The two scalars of x_t = alpha x0 + sigma eps."""

    alpha: Float[Array, ""]
    sigma: Float[Array, ""]


Schedule: TypeAlias = Callable[[Time], AlphaSigma]


class Denoised(NamedTuple):
    """A prediction of x0 and, of nets that learn it, the variance: var_mix in [0, 1] runs from posterior to beta."""

    x0: Float[Array, "B ..."]
    var_mix: Float[Array, "B ..."] | None = None


Denoiser: TypeAlias = Callable[[Float[Array, "B ..."], Time], Denoised]
Bind: TypeAlias = Callable[[Condition], Denoiser]
"""A denoiser that still waits for its condition; guidance binds it twice."""


class Sampler(NamedTuple):
    """How to walk from noise to data: `init` makes the state of x_T (its field `x` is the sample), `step` moves it
    from time t to the cleaner time s."""

    init: Callable[[Float[Array, "B ..."]], Any]
    step: Callable[[Denoiser, Any, Time, Time, PRNGKey], Any]


class Codec(NamedTuple):
    """To the space a model works in, and back; the identity for pixels."""

    encode: Callable[[Params, Float[Array, "B H W C"]], Float[Array, "B h w c"]]
    decode: Callable[[Params, Float[Array, "B h w c"]], Float[Array, "B H W C"]]


class Held(NamedTuple):
    """What a state holds beside what follows gradients: `statistics`, which a step moves by what it has seen of its
    batch (counts of a codebook, running means), and `frozen` weights, which nothing moves."""

    statistics: PyTree = ()
    frozen: Params = ()


class Seen(NamedTuple):
    """What a loss returns beside its value: metrics and what its statistics follow, each a mean over the batch, so that
    means over devices and parts of a batch are exact. A sum is such a mean times the batch size."""

    metrics: Metrics
    statistics: PyTree


Loss: TypeAlias = Callable[..., tuple[Float[Array, ""], Metrics | Seen]]
"""(params, batch, keys) to the value and metrics; where the state holds more, (params, batch, keys, held) to the value
and metrics, or `Seen`."""
TrainStep: TypeAlias = Callable[[State, Batch, PRNGKey], tuple[State, Metrics]]


class TrainState(NamedTuple):
    """Everything that training needs from step to step, as arrays only."""

    step: Shaped[Array, ""]
    params: Params
    ema_params: Params
    opt_state: PyTree
    held: Held = Held()

    def __repr__(self) -> str:
        count = sum(leaf.size for leaf in jax.tree.leaves(self.params))
        return f"TrainState(step={self.step}, {count:,} parameters)"


@runtime_checkable  # beartype checks it in the tests
class Source(Protocol):
    """Random access to examples, each a dict of numpy arrays and str."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Mapping[str, Any]: ...


class Experiment(NamedTuple):
    """What train/loop.py runs; every family, GANs included, is one.

    `init(key)` makes the state (its field `step` counts train steps). `make_train_step(axis_name)` makes the step for
    one device, reducing over `axis_name` where that is not None. `source` holds the examples; of each, the fields named
    in `batch_fields` are stacked into batches. `preview(state, key)` draws one uint8 picture of what the model makes.
    """

    init: Callable[[PRNGKey], State]
    make_train_step: Callable[[str | None], TrainStep]
    source: Source
    batch_fields: tuple[str, ...]
    preview: Callable[[State, PRNGKey], UInt8[np.ndarray, "H W C"]] | None = None
