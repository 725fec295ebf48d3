"""What a prior's run over codes is, as plain values, and what of the data it reads: an autoencoder's codes, or
pixels."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from flaxgen.data import Data
from flaxgen.family.coded import CodeDrawing, check_plain
from flaxgen.family.levels import BOTTOM
from flaxgen.nets.code_condition import CodeMap
from flaxgen.nets.code_transformer import CodeTransformer, MaskedCodeTransformer
from flaxgen.nets.pixelcnn import PixelCNN
from flaxgen.nets.pixelcnn_plus import PixelCNNPlus
from flaxgen.nets.pixelsnail import PixelSNAIL
from flaxgen.train.config import require
from flaxgen.train.run import GradientRun


@dataclass(frozen=True)
class Drawing(CodeDrawing):
    """How codes are drawn. A masked net fills in all codes in `steps` rounds, and `noise` is what its authors' code
    calls the choice temperature; the rest is as in `CodeDrawing`."""

    steps: int = 12
    noise: float = 4.5

    def __post_init__(self):
        super().__post_init__()
        require(self.noise >= 0, f"noise={self.noise}: expected 0 or more")
        require(self.steps >= 1, f"steps={self.steps}: expected 1 or more")

    def kind(self) -> "Drawing":
        """What has to be compiled: these settings without those that may change freely."""
        return replace(super().kind(), noise=0.0)


@dataclass(frozen=True, kw_only=True)
class Config(GradientRun):
    """A prior's run over the codes of `data` by the autoencoder in that directory, kept in `cache` ("": there). A net
    with `pixel_channels` reads pixels instead, each value one of its `codes` levels, and needs no autoencoder. Labels
    are hidden from the share `condition_dropout` of the examples, behind the net's last class, for guidance. A masked
    net learns with `smoothing` of its targets, from pictures of which the share `least_masked` is masked or more.
    Of an autoencoder with two maps `level` says which is drawn: the top one, or the bottom one given the top."""

    data: Data
    net: CodeTransformer | MaskedCodeTransformer | PixelCNN | PixelSNAIL | PixelCNNPlus
    level: Literal["", "top", "bottom"] = ""
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
        condition = condition_of(self)
        require(
            bool(condition) == (self.level == BOTTOM),
            f"level={self.level!r} with net.condition={condition}: the bottom is drawn given the top, so set "
            "net.condition=CodeMap(...) there, which PixelCNN and PixelSNAIL have, and leave it out elsewhere",
        )
        require(
            not self.level or not of_pixels(self),
            f"level={self.level}: a net with net.pixel_channels reads pixels, leave one of them out",
        )
        if not of_pixels(self):
            check_plain(self.data)
        require(
            not (of_pixels(self) and self.autoencoder),
            f"autoencoder={self.autoencoder}: a net with net.pixel_channels reads pixels, leave one of them out",
        )


def condition_of(config: Config) -> CodeMap | None:
    """The map of codes that is given, None where none is."""
    return getattr(config.net, "condition", None)


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
    size, given = config.batch_size, condition_of(config)
    field, dtype = ("image", jnp.uint8) if of_pixels(config) else ("codes", jnp.int32)
    spec = {field: jax.ShapeDtypeStruct((size, *grid_shape(config)), dtype)}
    if given is not None:
        spec["condition"] = jax.ShapeDtypeStruct((size, given.height, given.width), jnp.int32)
    return spec | ({"label": jax.ShapeDtypeStruct((size,), jnp.int32)} if config.net.num_classes else {})


def to_levels(images: Any, levels: int) -> jax.Array:
    """Pixels 0 .. 255 as one of so many levels."""
    return images.astype(jnp.int32) if levels == 256 else jnp.round(images * ((levels - 1) / 255)).astype(jnp.int32)


def from_levels(values: np.ndarray, levels: int) -> np.ndarray:
    """The inverse of `to_levels`, as uint8."""
    return np.round(values * (255 / (levels - 1))).astype(np.uint8)
