"""What a prior over codes can be asked, and the declaration of the family."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import numpy as np

from flaxgen.data import to_pixels
from flaxgen.data.transforms import middle_square
from flaxgen.family import coded
from flaxgen.family.companions import Joined
from flaxgen.family.composite import Composite, Part
from flaxgen.family.family import Family
from flaxgen.family.levels import BOTTOM, TOP
from flaxgen.family.matching import open_matching, real_examples
from flaxgen.family.pictures import Pictures
from flaxgen.family.request import option
from flaxgen.family.requests import (
    OfPictures,
    Sample,
    check_beside,
    check_pictures,
    examples_of,
    label_option,
    sampled,
    set_option,
)
from flaxgen.family.trained import Files, Handler, Progress
from flaxgen.nets.vqvae2 import VqVae2
from flaxgen.train.config import override, require
from flaxgen.types import Source
from flaxgen.zoo.autoencoder import FAMILY as AUTOENCODER
from flaxgen.zoo.codes import whole
from flaxgen.zoo.codes.config import Config, Drawing, batch_spec, num_labels, of_pixels, to_levels
from flaxgen.zoo.codes.maps import load_autoencoder, split_codes
from flaxgen.zoo.codes.model import Model, check_drawing, check_likelihood, init_params, make_loss

PREVIEWED = 16


@dataclass(frozen=True, kw_only=True)
class SampleCodes(coded.FromCodes, Sample):
    """Draw samples."""

    examples: ClassVar[tuple[str, ...]] = (
        "flaxgen sample runs/prior --num 64 --class 3 --temperature 0.9 --out grid.png",
        "flaxgen sample runs/prior --complete image.png --rows 2 --num 8 --out completed.png",
    )

    label: int | None = label_option()
    set: tuple[str, ...] = set_option()
    steps: int | None = option(None, "rounds of a masked net", least=1, default_text="the model's own")


def _drawing(config: Config, request: SampleCodes) -> Drawing:
    return override(coded.asked(config.drawing, request, (*coded.ASKED, "steps")), request.set)


def check_sample(config: Config, request: SampleCodes) -> None:
    """Raises ValueError unless such a model can do that."""
    require(
        not config.level,
        f"this draws the {config.level} map of codes alone: draw with the model that `flaxgen compose DIR "
        "autoencoder=... top=... bottom=...` makes of it and the other parts",
    )
    check_drawing(config, _drawing(config, request))
    classes = num_labels(config)
    if request.label is not None:
        require(classes > 0, f"label={request.label}: this model knows no classes")
        require(request.label < classes, f"label={request.label}: expected a class from 0 to {classes - 1}")
    coded.check_rows(request.rows, config.net.height)
    check_beside(config, request, are_points=False)


def draw_samples(model: Model, request: SampleCodes, progress: Progress) -> Pictures:
    """What a request asks for."""
    progress("drawing codes")
    known, rows = None, request.rows or model.config.net.height // 2
    if request.complete is not None:
        known = (codes_of(model, fitted(model, [request.complete]))[0][0], rows)
    key = jax.random.key(request.seed)
    codes = model.draw_codes(
        key, request.numbers, label=request.label, drawing=_drawing(model.config, request), known=known
    )
    progress("decoding")
    return replace(sampled(model, request, model.to_pictures(codes)), extra={"codes": codes})


@dataclass(frozen=True, kw_only=True)
class Likelihood(OfPictures):
    """How likely pictures are."""

    verb: ClassVar[str] = "likelihood"
    examples: ClassVar[tuple[str, ...]] = ("flaxgen likelihood runs/pixelcnn --num 797 --out likely.png",)
    out: ClassVar[str] = "likelihood.png"

    label: int | None = option(
        None,
        "the class of pictures that are named",
        least=0,
        default_text="examples have their own",
        flag="class LABEL",
    )


def check_asked(config: Config, request: Likelihood) -> None:
    """Raises ValueError unless such a model can do that."""
    check_likelihood(config)
    check_pictures(config, request)
    classes = num_labels(config)
    if request.images and classes:
        require(request.label is not None, f"this model knows {classes} classes: say that of the pictures with label")
    require(request.label is None or bool(request.images and classes), "label is for pictures, of a model that knows "
            "classes")  # fmt: skip
    require(request.label is None or request.label < classes, f"label={request.label}: expected 0 to {classes - 1}")


def likelihood(model: Model, request: Likelihood, progress: Progress) -> Pictures:
    """The pictures, each with its bits as the score."""
    progress("reading")
    config, label = model.config, None
    if request.images:
        images = fitted(model, request.images)
        label = None if request.label is None else np.full(len(images), request.label)
    else:
        images = examples_of(config, request)
        label = examples_of(config, request, "label") if num_labels(config) else None
    progress("reading its codes")
    codes, condition = codes_of(model, images)
    bits = model.likelihood_of(codes, label, condition) / np.log(2)
    what = "a number of the pictures" if of_pixels(config) else "a code"
    return Pictures(images, scores=tuple(bits.tolist()), note=f"{bits.mean():.4f} bits {what}")


def fitted(model: Model, pictures: Sequence[Any]) -> np.ndarray:
    """The middle squares of pictures, uint8 [N H W C], as the model or its autoencoder reads them."""
    net = model.config.net
    if not of_pixels(model.config):
        autoencoder = model.autoencoder
        return autoencoder.fit([one.with_channels(autoencoder.config.net.in_channels) for one in pictures])
    require(net.height == net.width, f"this model is of {net.height} x {net.width} pixels, and squares are taken")
    seen = [one.with_channels(net.pixel_channels) for one in pictures]
    return np.stack([middle_square(pixels, net.height, model.config.data.filter) for pixels in seen])


def codes_of(model: Model, images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """The codes, or levels of pixels, of pictures, and for a bottom level the top's codes."""
    if of_pixels(model.config):
        return np.asarray(to_levels(images, model.config.net.codes)), None
    return split_codes(model.config, model.autoencoder.encode_codes(images))


def preview(model: Model, key) -> np.ndarray:
    """The first samples, of all classes in turn; of a top level what its codes say alone, and of a bottom level for the
    top's codes of examples."""
    if model.config.level != BOTTOM:
        return Pictures(to_pixels(model.generate(key, PREVIEWED))).sheet()
    data = model.autoencoder.encoder.see(model.config.data)
    _, top = codes_of(model, real_examples(data, "image", PREVIEWED))
    assert top is not None
    codes = model.draw_codes(key, range(len(top)), condition=top)
    return Pictures(to_pixels(model.to_pictures(codes, top))).sheet()


def prepare(config: Config, found: Files) -> Files:
    """The name of the autoencoder.

    Raises:
        ValueError: if it is not there, does not fit the net, or is not the one found.
    """
    if of_pixels(config):
        return found
    return coded.name_autoencoder(found, _autoencoder(config))


def _autoencoder(config: Config) -> Any:
    return load_autoencoder(AUTOENCODER, config)


def open_source(family: Family, config: Config, files: Files) -> Source:
    """The codes or pixels of the data, with their labels where the net reads them."""
    classes = num_labels(config)
    if of_pixels(config):
        return open_matching(config.data, {n: spec.shape[1:] for n, spec in batch_spec(config).items()}, classes)
    cached = coded.open_codes(_autoencoder(config), config.data, config.cache)
    codes = (cached, functools.partial(_read_codes, config))
    if not classes:
        return Joined(codes)
    labelled = open_matching(config.data, {"label": ()}, classes)
    return Joined(codes, (labelled, lambda example: {"label": example["label"]}))


def _read_codes(config: Config, example: Mapping[str, Any]) -> dict[str, Any]:
    codes, condition = split_codes(config, example if config.level else example[coded.ONE_MAP])
    return {"codes": codes} | ({} if condition is None else {"condition": condition})


FAMILY = Family(
    name="codes",
    config=Config,
    init_params=init_params,
    batch_spec=batch_spec,
    make_loss=make_loss,
    classes=num_labels,
    check=lambda config: check_drawing(config, config.drawing),
    open_source=open_source,
    prepare=prepare,
    files=(coded.NAMED,),
    companions={coded.AUTOENCODER: AUTOENCODER},
    free=frozenset({"drawing", "autoencoder", "cache"}),
    preview=preview,
    model=Model,
    requests={
        SampleCodes: Handler(
            draw_samples,
            check_sample,
            lambda request: 2,
            lambda model, request: _drawing(model.config, request).used(),
        ),
        Likelihood: Handler(likelihood, check_asked, lambda request: 2),
    },
)

WHOLE = Composite(
    name="vqvae2",
    parts={"autoencoder": Part(AUTOENCODER, VqVae2), TOP: Part(FAMILY), BOTTOM: Part(FAMILY)},
    model=whole.Whole,
    check=whole.check_parts,
    requests={
        whole.SampleLevels: Handler(whole.draw_samples, whole.check_sample, lambda request: 3, whole.settings),
    },
)
