"""What a GAN can be asked, and the declaration of the family."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import numpy as np

from flaxgen.data import to_pixels
from flaxgen.family.family import Family
from flaxgen.family.matching import SHOWN_POINTS, real_examples
from flaxgen.family.pictures import Pictures
from flaxgen.family.request import Request, option, picture
from flaxgen.family.requests import Sample, label_option, sampled, set_option
from flaxgen.family.trained import Handler, Progress
from flaxgen.train.config import override, require
from flaxgen.types import PRNGKey
from flaxgen.zoo.classifier import FAMILY as CLASSIFIER
from flaxgen.zoo.clip import FAMILY as CLIP
from flaxgen.zoo.gan import latents, projection
from flaxgen.zoo.gan.config import TYPE_NAMES, Config, batch_spec, check_sampling, draws_pictures, example_shape
from flaxgen.zoo.gan.model import Model
from flaxgen.zoo.gan.training import init_params, make_training, parameters

FASTEST = 50
"""Pictures a second that programs show of a GIF."""
EXTRACTING = {"clip": CLIP, "classifier": CLASSIFIER}
PSI = "of a StyleGAN: psi, 1 for all variety, 0 for the mean alone"


@dataclass(frozen=True, kw_only=True)
class SampleGan(Sample):
    """Draw samples."""

    label: int | None = label_option()
    set: tuple[str, ...] = set_option()
    truncation: float | None = option(None, PSI, default_text="the model's own")


@dataclass(frozen=True, kw_only=True)
class Interpolate(Request):
    """Walk between samples."""

    verb: ClassVar[str] = "interpolate"
    examples: ClassVar[tuple[str, ...]] = ("flaxgen interpolate runs/faces --frames 60 --out walk.gif",)
    model_first: ClassVar[bool] = True
    out: ClassVar[str] = "walk.gif"

    between: tuple[int, ...] = option(
        (0, 1, 2, 3), "which samples, by their place in the grid of `flaxgen sample` with this seed", least=0,
        most=2**31 - 1, flag="between I",
    )  # fmt: skip
    frames: int = option(60, "how many pictures in all", least=2)
    once: bool = option(False, "end at the last sample; else the walk goes back")
    truncation: float | None = option(None, PSI, default_text="the model's own")
    label: int | None = label_option()
    fps: float = option(20.0, "frames a second of a .gif", above=0, most=FASTEST)


@dataclass(frozen=True, kw_only=True)
class Project(Request):
    """Find the latent that draws a picture best."""

    verb: ClassVar[str] = "project"
    examples: ClassVar[tuple[str, ...]] = ("flaxgen project runs/faces face.png --out projected.png",)
    model_first: ClassVar[bool] = True
    out: ClassVar[str] = "projected.png"

    image: Any = picture("its middle square is looked for")
    steps: int = option(1000, "of the search", least=1)
    features: str | None = option(
        None,
        "compare by features too: clip:MODEL or classifier:MODEL",
        default_text="pixels alone",
        flag="features NAME",
    )
    fit_noise: bool = option(False, "of a StyleGAN2: fit the noise of its layers too")
    label: int | None = option(None, "the class to look in", least=0, flag="class LABEL")


def _sampling(config: Config, request: SampleGan) -> Any:
    chosen = config.sampling if request.truncation is None else replace(config.sampling, truncation=request.truncation)
    return override(chosen, request.set)


def settings(model: Model, request: SampleGan) -> dict[str, Any]:
    """The settings used."""
    chosen = _sampling(model.config, request)
    return {"truncation": chosen.truncation, "noise": chosen.noise}


def check_sample(config: Config, request: SampleGan) -> None:
    """Raises ValueError unless such a model can do that."""
    check_sampling(config, _sampling(config, request))
    _check_label(config, request.label)


def _check_label(config: Config, label: int | None) -> None:
    classes = config.generator.num_classes
    require(label is None or classes > 0, f"label={label}: this model knows no classes")
    require(label is None or label < classes, f"label={label}: expected a class from 0 to {classes - 1}")


def draw_samples(model: Model, request: SampleGan, progress: Progress) -> Pictures:
    """What a request asks for."""
    progress("sampling")
    sampling = _sampling(model.config, request)
    key = jax.random.key(request.seed)
    drawn = model.generate(key, request.numbers, label=request.label, sampling=sampling)
    return sampled(model, request, drawn)


def check_interpolate(config: Config, request: Interpolate) -> None:
    """Raises ValueError unless such a model can do that."""
    latents.check_draws_pictures(config)
    _check_label(config, request.label)
    if request.truncation is not None:
        check_sampling(config, replace(config.sampling, truncation=request.truncation))


def draw_walk(model: Model, request: Interpolate, progress: Progress) -> Pictures:
    """The frames of a walk."""
    progress("sampling")
    key = jax.random.key(request.seed)
    ends = latents.find_latents(model, key, request.between, label=request.label, truncation=request.truncation)
    frames = latents.interpolate(ends, request.frames, loop=not request.once)
    drawn = to_pixels(latents.synthesize(model, frames))
    return Pictures(drawn, layout="film", fps=request.fps)


def check_project(config: Config, request: Project) -> None:
    """Raises ValueError unless such a model can do that."""
    latents.check_draws_pictures(config)
    _check_label(config, request.label)
    kind, _, path = (request.features or "clip:_").partition(":")
    require(
        kind in EXTRACTING and bool(path),
        f"features={request.features}: expected clip:MODEL or classifier:MODEL, whose pictures have a gradient",
    )


def draw_projection(model: Model, request: Project, progress: Progress) -> Pictures:
    """The picture and its projection; the code found is `extra["latent"]`."""
    extractor = None
    if request.features is not None:
        kind, _, path = request.features.partition(":")
        extractor = EXTRACTING[kind].load(path).extractor
    target = projection.fit_picture(model, request.image.with_channels(example_shape(model.config)[2]))
    search = projection.Search(request.steps, request.label, request.fit_noise, extractor)
    key = jax.random.key(request.seed)
    found = projection.project(model, target, key, search, lambda distance: progress(f"distance {distance:.4f}"))
    both = np.stack((target, to_pixels(found.picture)))
    first, last = found.distances[0], found.distances[-1]
    note = f"distance {last:.4f} after {request.steps} steps, {first:.4f} of the mean"
    return Pictures(both, layout="strip", extra={"latent": found.latents.codes[0]}, note=note)


def preview(model: Model, key: PRNGKey) -> np.ndarray:
    """What a run draws now; points beside real ones."""
    drawn = model.generate(key, model.config.sampling.batch)
    is_image = draws_pictures(model.config)
    return Pictures(drawn, beside=None if is_image else real_examples(model.config.data, "point", SHOWN_POINTS)).sheet()


FAMILY = Family(
    name="gan",
    config=Config,
    type_names=TYPE_NAMES,
    init_params=init_params,
    parameters=parameters,
    batch_spec=batch_spec,
    make_training=make_training,
    classes=lambda config: config.generator.num_classes,
    check=lambda config: check_sampling(config, config.sampling),
    free=frozenset({"sampling", "evaluate_every", "evaluation"}),
    preview=preview,
    model=Model,
    requests={
        SampleGan: Handler(draw_samples, check_sample, settings=settings),
        Interpolate: Handler(draw_walk, check_interpolate),
        Project: Handler(draw_projection, check_project, lambda request: request.steps),
    },
)
