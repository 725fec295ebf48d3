"""A VQ-VAE-2 with all its parts: codes of the top are drawn, those of the bottom given them, and both decoded
[Razavi19]."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import numpy as np
from jaxtyping import Float

from flaxgen.data import Data
from flaxgen.family import coded
from flaxgen.family.composite import Assembled, Parts
from flaxgen.family.drawing import numbered
from flaxgen.family.levels import BOTTOM, LEVELS, TOP
from flaxgen.family.pictures import Pictures
from flaxgen.family.requests import Sample, check_beside, label_option, sampled
from flaxgen.family.trained import Progress
from flaxgen.train.config import require
from flaxgen.types import PRNGKey
from flaxgen.zoo.codes.config import Config, Drawing, num_labels
from flaxgen.zoo.codes.maps import check_maps
from flaxgen.zoo.codes.model import Model, check_drawing


@dataclass(frozen=True, kw_only=True)
class SampleLevels(coded.FromCodes, Sample):
    """Draw samples."""

    examples: ClassVar[tuple[str, ...]] = (
        "flaxgen sample models/vqvae2 --num 64 --class 3 --temperature 0.9 --out grid.png",
        "flaxgen sample models/vqvae2 --complete image.png --rows 2 --num 8 --out completed.png",
    )

    label: int | None = label_option()


Known = dict[str, tuple[np.ndarray, int]]
"""Of each level's map, codes and how many of its upper rows are kept."""


class Whole(Assembled):
    """A VQ-VAE-2 with its parts."""

    @property
    def autoencoder(self) -> Any:
        """What makes codes of pictures and back; ValueError where it is missing."""
        return self._part("autoencoder")

    @property
    def priors(self) -> dict[str, Model]:
        """What draws each level, from the first to the last; ValueError where one is missing."""
        return {level: self._part(level) for level in LEVELS}

    @property
    def data(self) -> Data:
        """What its top was trained on."""
        return self.priors[TOP].config.data

    def _part(self, name: str) -> Any:
        require(name in self.parts, f"this model lacks the part {name!r}: add it with `flaxgen compose`")
        return self.parts[name]

    def draw_codes(
        self,
        key: PRNGKey,
        numbers: range,
        *,
        label: int | None = None,
        drawing: dict[str, Drawing] | None = None,
        known: Known | None = None,
    ) -> dict[str, np.ndarray]:
        """Codes of both levels of the numbers; the rest is as in a prior's `draw_codes`, with `drawing` and `known` by
        level. A level without classes is drawn without `label`.

        Raises:
            ValueError: if a value is out of range or not for this model.
        """
        codes: dict[str, np.ndarray] = {}
        for i, (level, prior) in enumerate(self.priors.items()):
            codes[level] = prior.draw_codes(
                jax.random.fold_in(key, i),
                numbers,
                label=label if num_labels(prior.config) else None,
                drawing=None if drawing is None else drawing[level],
                known=None if known is None else known[level],
                condition=codes.get(TOP),
            )
        return codes

    def generate(
        self, key: PRNGKey, num: int | range = 64, *, label: int | None = None
    ) -> Float[np.ndarray, "N H W C"]:
        """`num` pictures, in [-1, 1], or those of a range of numbers; the rest is as in `draw_codes`."""
        return self.autoencoder.decode_codes(self.draw_codes(key, numbered(num), label=label))


def _drawings(model: Whole, request: SampleLevels) -> dict[str, Drawing]:
    """How each level is drawn; guidance is for those that know the null label."""
    found = {}
    for level, prior in model.priors.items():
        guided = prior.config.condition_dropout > 0 or level == TOP
        names = tuple(name for name in coded.ASKED if guided or name != "guidance")
        found[level] = coded.asked(prior.config.drawing, request, names)
    return found


def draw_samples(model: Whole, request: SampleLevels, progress: Progress) -> Pictures:
    """What a request asks for."""
    known = None
    if request.complete is not None:
        progress("encoding")
        known = _known(model, request)
    progress("drawing codes")
    key, drawings = jax.random.key(request.seed), _drawings(model, request)
    codes = model.draw_codes(key, request.numbers, label=request.label, drawing=drawings, known=known)
    progress("decoding")
    return replace(sampled(model.priors[TOP], request, model.autoencoder.decode_codes(codes)), extra=codes)


def _known(model: Whole, request: SampleLevels) -> Known:
    """What is kept of the picture to complete: rows of the top's map, and those of the bottom's below them."""
    autoencoder = model.autoencoder
    pixels = request.complete.with_channels(autoencoder.config.net.in_channels)
    codes = autoencoder.encode_codes(autoencoder.fit([pixels]))
    rows = request.rows or codes[TOP].shape[1] // 2
    times = codes[BOTTOM].shape[1] // codes[TOP].shape[1]
    return {TOP: (codes[TOP][0], rows), BOTTOM: (codes[BOTTOM][0], times * rows)}


def check_sample(model: Whole, request: SampleLevels) -> None:
    """Raises ValueError unless such a model can do that."""
    priors, drawings = model.priors, _drawings(model, request)
    for level, prior in priors.items():
        check_drawing(prior.config, drawings[level])
    classes = max(num_labels(prior.config) for prior in priors.values())
    if request.label is not None:
        require(classes > 0, f"label={request.label}: this model knows no classes")
        require(request.label < classes, f"label={request.label}: expected a class from 0 to {classes - 1}")
    coded.check_rows(request.rows, priors[TOP].config.net.height)
    check_beside(priors[TOP].config, request, are_points=False)
    require("autoencoder" in model.parts, "this model lacks the part 'autoencoder': add it with `flaxgen compose`")


def check_parts(parts: Parts) -> None:
    """Raises ValueError unless each prior draws the level that it is called, of the autoencoder that is there."""
    for level in LEVELS:
        if level not in parts:
            continue
        config: Config = parts[level].config
        said = f"the {config.level} level of two" if config.level else "the one map of an autoencoder without levels"
        require(config.level == level, f"part {level} draws {said}: expected a prior with level={level}")
        if "autoencoder" in parts:
            check_maps(config, parts["autoencoder"])
            coded.name_autoencoder(parts[level].files, parts["autoencoder"])
    labels = {level: num_labels(parts[level].config) for level in LEVELS if level in parts}
    known = set(labels.values()) - {0}
    require(len(known) < 2, f"the top knows {labels.get(TOP)} classes and the bottom {labels.get(BOTTOM)}: expected as "
            "many, or none")  # fmt: skip


def settings(model: Whole, request: SampleLevels) -> dict[str, Any]:
    """How each level is drawn, by name."""
    drawings = _drawings(model, request)
    return {f"{name}_{level}": drawings[level].used()[name] for level in LEVELS for name in coded.ASKED}
