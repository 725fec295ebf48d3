"""What a prior's run over codes is, as plain values, and what of the data it reads: an autoencoder's codes, or
pixels."""

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flaxgen.data import Data
from flaxgen.family.companions import Cached, Joined, check_companion, load_companion, open_cache
from flaxgen.family.family import Family
from flaxgen.family.matching import open_matching
from flaxgen.family.trained import Files
from flaxgen.nets.code_transformer import CodeTransformer, MaskedCodeTransformer
from flaxgen.nets.pixelcnn import PixelCNN
from flaxgen.nets.pixelcnn_plus import PixelCNNPlus
from flaxgen.nets.pixelsnail import PixelSNAIL
from flaxgen.train.config import require
from flaxgen.train.run import GradientRun
from flaxgen.types import Source
from flaxgen.zoo.autoencoder import FAMILY as AUTOENCODER

NAME = "autoencoder"


@dataclass(frozen=True)
class Drawing:
    """How codes are drawn: from softmax(logits / temperature) within the `top_k` likeliest (0: all), then the nucleus
    `top_p`, with classifier-free `guidance`. A masked net fills in all codes in `steps` rounds, and `noise` is what its
    authors' code calls the choice temperature. At most `batch` pictures are drawn at once."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    guidance: float = 1.0
    steps: int = 12
    noise: float = 4.5
    batch: int = 64

    def __post_init__(self):
        require(self.temperature >= 0, f"temperature={self.temperature}: expected 0 (the likeliest) or more")
        require(self.top_k >= 0, f"top_k={self.top_k}: expected 0 (all) or more codes")
        require(0 < self.top_p <= 1, f"top_p={self.top_p}: expected a share in (0, 1]")
        require(self.guidance >= 0, f"guidance={self.guidance}: expected 0 or more")
        require(self.noise >= 0, f"noise={self.noise}: expected 0 or more")
        for name in ("steps", "batch"):
            require(getattr(self, name) >= 1, f"{name}={getattr(self, name)}: expected 1 or more")

    def kind(self) -> "Drawing":
        """What has to be compiled: these settings without those that may change freely."""
        return replace(self, temperature=1.0, top_p=1.0, guidance=1.0 if self.guidance == 1 else 2.0, noise=0.0)


@dataclass(frozen=True, kw_only=True)
class Config(GradientRun):
    """A prior's run over the codes of `data` by the autoencoder in that directory, kept in `cache` ("": there). A net
    with `pixel_channels` reads pixels instead, each value one of its `codes` levels, and needs no autoencoder. Labels
    are hidden from the share `condition_dropout` of the examples, behind the net's last class, for guidance. A masked
    net learns with `smoothing` of its targets, from pictures of which the share `least_masked` is masked or more."""

    data: Data
    net: CodeTransformer | MaskedCodeTransformer | PixelCNN | PixelSNAIL | PixelCNNPlus
    autoencoder: str = ""
    cache: str = ""
    condition_dropout: float = 0.0
    smoothing: float = 0.1
    least_masked: float = 0.5
    drawing: Drawing = Drawing()

    def __post_init__(self):
        super().__post_init__()
        require(
            0 <= self.condition_dropout < 1, f"condition_dropout={self.condition_dropout}: expected a share below 1"
        )
        require(0 <= self.smoothing < 1, f"smoothing={self.smoothing}: expected a share below 1")
        require(0 <= self.least_masked <= 1, f"least_masked={self.least_masked}: expected a share")
        require(
            not self.condition_dropout or self.net.num_classes > 1,
            f"condition_dropout={self.condition_dropout} hides labels, and this net has none: set net.num_classes to "
            "the number of classes and one more",
        )
        require(
            not (self.data.flip or self.data.random_crop) or of_pixels(self),
            "data.flip and data.random_crop change pictures, and their codes are computed once: set them false",
        )
        require(
            not (of_pixels(self) and self.autoencoder),
            f"autoencoder={self.autoencoder}: a net with net.pixel_channels reads pixels, leave one of them out",
        )


def of_pixels(config: Config) -> bool:
    """Whether it is a model of pixels, and not of an autoencoder's codes."""
    return channels_of(config) > 0


def channels_of(config: Config) -> int:
    """The channels of a pixel, 0 of codes."""
    return 0 if isinstance(config.net, CodeTransformer | MaskedCodeTransformer) else config.net.pixel_channels


def is_mixture(config: Config) -> bool:
    """Whether the net gives the numbers of a mixture of logistics, and not logits."""
    return isinstance(config.net, PixelCNNPlus) or (isinstance(config.net, PixelSNAIL) and of_pixels(config))


def grid_shape(config: Config) -> tuple[int, ...]:
    """[h w] of codes, [h w C] of pixels."""
    channels = (channels_of(config),) if of_pixels(config) else ()
    return (config.net.height, config.net.width, *channels)


def num_labels(config: Config) -> int:
    """How many labels stand for a class."""
    return config.net.num_classes - bool(config.condition_dropout)


def batch_spec(config: Config) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of a batch as the loader gives it."""
    size = config.batch_size
    field, dtype = ("image", jnp.uint8) if of_pixels(config) else ("codes", jnp.int32)
    spec = {field: jax.ShapeDtypeStruct((size, *grid_shape(config)), dtype)}
    return spec | ({"label": jax.ShapeDtypeStruct((size,), jnp.int32)} if config.net.num_classes else {})


def to_levels(images: Any, levels: int) -> jax.Array:
    """Pixels 0 .. 255 as one of so many levels."""
    return images.astype(jnp.int32) if levels == 256 else jnp.round(images * ((levels - 1) / 255)).astype(jnp.int32)


def from_levels(values: np.ndarray, levels: int) -> np.ndarray:
    """The inverse of `to_levels`, as uint8."""
    return np.round(values * (255 / (levels - 1))).astype(np.uint8)


def load_autoencoder(config: Config) -> Any:
    """The autoencoder whose codes these are.

    Raises:
        ValueError: if it is not there, has no codes, or others than the net reads.
    """
    found = load_companion(AUTOENCODER, config.autoencoder)
    found.check_codes()
    check_fits(config, found.config)
    return found


def check_fits(config: Config, autoencoder: Any) -> None:
    """Raises ValueError unless the net is for the codes of an autoencoder of this config."""
    net, codes = config.net, autoencoder.bottleneck.num_codes
    require(net.codes == codes, f"net.codes={net.codes}, the autoencoder has {codes}: set net.codes={codes}")
    side = autoencoder.net.image_size // autoencoder.net.factor
    require(
        (net.height, net.width) == (side, side),
        f"net.height={net.height} and net.width={net.width}, the autoencoder's map of codes is {side} x {side}",
    )


def prepare(config: Config, found: Files) -> Files:
    """The name of the autoencoder.

    Raises:
        ValueError: if it is not there, does not fit the net, or is not the one found.
    """
    if of_pixels(config):
        return found
    return check_companion(found, NAME, load_autoencoder(config).fingerprint)


@functools.lru_cache(maxsize=4)
def open_codes(config: Config) -> Cached:
    """The codes of the data by the run's autoencoder."""
    autoencoder = load_autoencoder(config)
    return Cached(*open_cache(autoencoder.encoder, config.data, Path(config.cache or Path(autoencoder.name) / "codes")))


def open_source(family: Family, config: Config, files: Files) -> Source:
    """The codes or pixels of the data, with their labels where the net reads them."""
    classes = num_labels(config)
    if of_pixels(config):
        shapes = {name: spec.shape[1:] for name, spec in batch_spec(config).items()}
        return open_matching(config.data, shapes, classes)
    cached = open_codes(config)
    codes = (cached, lambda example: {"codes": example["codes"]})
    if not classes:
        return Joined(codes)
    labelled = open_matching(config.data, {"label": ()}, classes)
    return Joined(codes, (labelled, lambda example: {"label": example["label"]}))
