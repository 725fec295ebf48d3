"""Latents of pictures in buckets, sizes of about one area: how they are kept, and told apart [NovelAI22]."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from flaxgen.data import Groups, open_source
from flaxgen.family.companions import Cached, Encoder
from flaxgen.train.config import require
from flaxgen.zoo.latent.config import SIZES, Config, multiple
from flaxgen.zoo.latent.text import GOOD

FIELDS = ("latent", "bucket", "origin")
"""What is kept of a picture: its latents [M D] row by row, behind them zeros up to the largest bucket's number, which
bucket they are of, and the `origin` that `data.Images` says."""


def check_buckets(config: Config, factor: int) -> None:
    """Raises ValueError unless an autoencoder of that factor and the net take pictures of all sizes in the buckets."""
    step = factor * multiple(config)
    for height, width in config.buckets:
        fits = height % step == 0 and width % step == 0
        require(fits, f"buckets has {height}x{width} (height x width): expected multiples of {step}")


def as_bucketed(encoder: Encoder, config: Config, factor: int) -> Encoder:
    """An autoencoder as a companion that says FIELDS of pictures in the config's buckets."""
    counts = [height * width // factor**2 for height, width in config.buckets]

    def encode(examples: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
        bucket, origin = (np.stack([example[name] for example in examples]) for name in FIELDS[1:])
        rows = np.zeros((len(examples), max(counts), config.net.out_channels), np.float32)
        for number in np.unique(bucket).tolist():
            (members,) = np.nonzero(bucket == number)
            latents = encoder.encode([examples[i] for i in members.tolist()])["latent"]
            rows[members, : counts[number]] = latents.reshape(len(members), counts[number], -1)
        return {"latent": rows, "bucket": bucket, "origin": origin}

    named = f"{encoder.fingerprint}-{config.buckets}"
    return encoder._replace(
        fields=FIELDS, encode=encode, fingerprint=named, open=lambda data: open_source(data, config.buckets)
    )


class Bucketed:
    """Latents of a cache as their maps, in `groups` by their buckets: a source of `latent` [h w D], and of `sizes`,
    what a net reads of a picture's own [Podell23, sec. 2.2]."""

    def __init__(self, cached: Cached, config: Config, factor: int):
        self.groups = Groups(cached.first("bucket", len(cached)))
        self._cached, self._config = cached, config
        self._shapes = [(height // factor, width // factor) for height, width in config.buckets]

    def __len__(self) -> int:
        return len(self._cached)

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        example = self._cached[index]
        height, width = self._shapes[example["bucket"]]
        latent = example["latent"][: height * width].reshape(height, width, -1)
        return {"latent": latent, SIZES: self._sizes(example)}

    def _sizes(self, example: Mapping[str, Any]) -> Float[np.ndarray, " V"]:
        """The size that a picture had, where it was cut, and its size now; a refiner is told the aesthetic score."""
        size = self._config.buckets[example["bucket"]] if self._config.sizes == 6 else (GOOD,)
        return np.asarray([*example["origin"], *size], np.float32)

    def drawn(self, field: str, num: int) -> Float[np.ndarray, "K 1 1 D"]:
        """The latents of `num` pictures, at most all, one by one, as maps of one."""
        rows, buckets = (self._cached.drawn(name, num) for name in (field, "bucket"))
        counts = [height * width for height, width in self._shapes]
        own = [row[: counts[bucket]] for row, bucket in zip(rows, buckets, strict=True)]
        return np.concatenate(own)[:, None, None]
