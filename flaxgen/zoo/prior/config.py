"""What a prior's run is, as plain values, and the statistics of embeddings that belong to a prior beside its
weights."""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from flaxgen.data import Data
from flaxgen.family.companions import Cached, check_companion, load_companion
from flaxgen.family.denoising import Objective
from flaxgen.family.process import Process
from flaxgen.family.sampling import Sampling
from flaxgen.family.trained import Files
from flaxgen.nets.ar_prior import ARPrior
from flaxgen.nets.prior import DiffusionPrior
from flaxgen.tokens.quantise import fit_quantiser
from flaxgen.train.config import require
from flaxgen.train.optim import Optimizer
from flaxgen.train.run import GradientRun
from flaxgen.zoo.clip import FAMILY as CLIP

STATISTICS = "statistics.safetensors"
FITTED = 100_000
"""Embeddings that the statistics are taken of, at most: drawn from all of them, as classes often lie together."""
TEXT = ("text_embedding", "text_hidden", "text_mask")


@dataclass(frozen=True, kw_only=True)
class Config(GradientRun):
    """A prior's run, on the embeddings of `data` by the CLIP in the directory `clip`, kept in `cache` ("": there).

    A `DiffusionPrior` follows `process`, `objective` and `sampling`. An `ARPrior` draws its codes at `temperature` from
    the nucleus `top_p`. Both hide the caption from the share `objective.condition_dropout` of the examples, and are
    drawn from with `sampling.guidance`; of `candidates` embeddings the one that fits the caption best is taken
    [Ramesh22, sec. 2.2].
    """

    data: Data
    net: DiffusionPrior | ARPrior
    clip: str = ""
    cache: str = ""
    process: Process = Process(schedule="cosine", prediction="x0")
    objective: Objective = Objective(condition_dropout=0.1)
    optimizer: Optimizer = Optimizer(name="adamw", learning_rate=1.1e-4, weight_decay=6.02e-2)
    sampling: Sampling = Sampling(sampler="ddpm", steps=25, grid="linspace", limit=10.0, guidance=4.0)
    candidates: int = 2
    temperature: float = 1.0
    top_p: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        require(self.candidates >= 1, f"candidates={self.candidates}: expected 1 or more")
        require(self.temperature >= 0, f"temperature={self.temperature}: expected 0 or more")
        require(0 < self.top_p <= 1, f"top_p={self.top_p}: expected a share in (0, 1]")
        require(
            self.process.timesteps > 0 and self.objective.loss == "mse",
            f"objective.loss={self.objective.loss} with process.timesteps={self.process.timesteps}: a prior is trained "
            "in table time with objective.loss=mse",
        )


def batch_spec(config: Config) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of a batch as the loader gives it."""
    size, net = config.batch_size, config.net
    text = {
        "text_embedding": jax.ShapeDtypeStruct((size, net.embedding_dim), jnp.float32),
        "text_hidden": jax.ShapeDtypeStruct((size, net.context, net.text_dim), jnp.float16),
        "text_mask": jax.ShapeDtypeStruct((size, net.context), jnp.bool_),
    }
    return {"image_embedding": jax.ShapeDtypeStruct((size, net.embedding_dim), jnp.float32)} | text


def prepare(config: Config, found: Files) -> Files:
    """The name of the CLIP, and the statistics of its embeddings: those found, or new ones.

    Raises:
        ValueError: if the CLIP is not there, is not the one found, or does not fit the net.
    """
    clip = load_companion(CLIP, config.clip)
    named = check_companion(found, "CLIP", clip.fingerprint)
    if STATISTICS in found:
        return {**found, **named}
    source = open_embeddings(config)
    fitted = _fit(config, source) | {f"empty_{name}": source.empty[name] for name in TEXT}
    return {STATISTICS: safetensors.numpy.save({k: np.ascontiguousarray(v) for k, v in fitted.items()}), **named}


def open_embeddings(config: Config) -> Cached:
    """The embeddings of the data by the run's CLIP.

    Raises:
        ValueError: if the CLIP or the data cannot be read, or do not fit the net.
    """
    source = load_companion(CLIP, config.clip).cached(config.data, config.cache)
    source.check_widths(config.net, config.net.context)
    return source


def _fit(config: Config, source: Cached) -> dict[str, np.ndarray]:
    """What turns embeddings into what the net works on: mean and deviation, or principal components and buckets."""
    image = source.drawn("image_embedding", FITTED)
    if isinstance(config.net, ARPrior):
        dots = (image * source.drawn("text_embedding", FITTED)).sum(-1)
        return {name: np.asarray(v) for name, v in fit_quantiser(image, dots, config.net.dims)._asdict().items()}
    wide = image.astype(np.float64)
    return {"mean": wide.mean(0).astype(np.float32), "std": np.maximum(wide.std(0), 1e-6).astype(np.float32)}


def blank_statistics(config: Config) -> dict[str, np.ndarray]:
    """Statistics of the right shapes that say nothing, for a training step without data."""
    net, spec = config.net, batch_spec(config)
    empty = {f"empty_{name}": np.zeros(spec[name].shape[1:], spec[name].dtype) for name in TEXT}
    if isinstance(net, ARPrior):
        ends = {"low": np.zeros(net.dims), "high": np.ones(net.dims), "dot_quantiles": np.linspace(0, 1, 2)}
        fitted = {"mean": np.zeros(net.embedding_dim), "components": np.eye(net.embedding_dim)[:, : net.dims], **ends}
    else:
        fitted = {"mean": np.zeros(net.embedding_dim), "std": np.ones(net.embedding_dim)}
    return {name: value.astype(np.float32) for name, value in fitted.items()} | empty


def read_statistics(found: Files) -> dict[str, np.ndarray]:
    """What `prepare` fitted.

    Raises:
        ValueError: if it is not among a prior's files, or damaged.
    """
    require(STATISTICS in found, f"this prior has no {STATISTICS} beside its weights")
    try:
        return safetensors.numpy.load(found[STATISTICS])
    except safetensors.SafetensorError as error:
        raise ValueError(f"{STATISTICS} is damaged: {error}") from error


def empty_text(statistics: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The text fields of the empty caption, with a batch axis of 1: the condition that says nothing.

    Raises:
        ValueError: if it was imported without the CLIP that encodes it.
    """
    require(
        all(f"empty_{name}" in statistics for name in TEXT),
        "this prior was imported alone and knows no empty caption: import the folder of its whole pipeline",
    )
    return {name: statistics[f"empty_{name}"][None] for name in TEXT}
