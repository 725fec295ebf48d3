"""What an unCLIP can be asked: draw, vary, blend, edit, inpaint, outpaint [Ramesh22, sec. 2 and 3]; and of which parts
it is made.

Picture i depends on the seed, on what it is drawn from and on i alone, on any number of devices.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from flaxgen.diffusion import interpolate
from flaxgen.family import regions
from flaxgen.family.companions import check_companion
from flaxgen.family.composite import Composite, Part, Parts
from flaxgen.family.pictures import Pictures
from flaxgen.family.request import Clash, Request, option
from flaxgen.family.requests import Blend, Draw, Edit, Inpaint, Outpaint, Vary
from flaxgen.family.trained import Handler, Progress
from flaxgen.nets.ar_prior import ARPrior
from flaxgen.nets.prior import DiffusionPrior
from flaxgen.train.config import require
from flaxgen.zoo.clip import FAMILY as CLIP
from flaxgen.zoo.decoder import FAMILY as DECODER
from flaxgen.zoo.prior import FAMILY as PRIOR
from flaxgen.zoo.unclip.drawing import PRIORS, Drawing, Model, begin, keep
from flaxgen.zoo.upsampler import FAMILY as UPSAMPLER

OWN = "the model's own"
THROUGH = ("diffusion", "autoregressive", "text", "nothing")


def _candidates(what: str) -> Any:
    help = f"draw N of each picture and keep the one that CLIP finds nearest to the {what}"
    return option(1, help, least=1, flag="candidates N")


def _guidance(default_text: str = OWN) -> Any:
    return option(None, "guidance of the decoder; 1 is none", least=0, default_text=default_text)


@dataclass(frozen=True, kw_only=True)
class Decoded(Request):
    """What every verb of an unCLIP may say of its decoder."""

    guidance: float | None = _guidance("1")
    steps: int | None = option(None, "sampling steps of the decoder", least=1, default_text=OWN)


@dataclass(frozen=True, kw_only=True)
class FromCaption(Decoded):
    """What the verbs that begin with a caption may say."""

    guidance: float | None = _guidance()
    candidates: int = _candidates("caption")
    through: str = option(
        "diffusion", "what gives the image embedding: a prior, the caption's own embedding, or nothing", choices=THROUGH
    )
    prior_guidance: float | None = option(None, "guidance of the prior", least=0, default_text="its own")

    def __post_init__(self):
        super().__post_init__()
        if self.prior_guidance is not None and self.through not in PRIORS:
            text = "{prior_guidance} needs a prior: {through} has none"
            raise Clash(text, prior_guidance=self.prior_guidance, through=self.through)


@dataclass(frozen=True, kw_only=True)
class DrawUnclip(FromCaption, Draw):
    """Draw what captions say."""


@dataclass(frozen=True, kw_only=True)
class VaryUnclip(Decoded, Vary):
    """Draw variations of a picture."""

    guidance: float | None = _guidance("the model's own; with invert the share eta of it")
    candidates: int = _candidates("image")
    invert: bool = option(False, "start from the noise that DDIM takes the picture to")
    eta: float | None = option(None, "with invert, how far they may differ", least=0, most=1, default_text="0")

    def __post_init__(self):
        super().__post_init__()
        if self.eta is not None and not self.invert:
            text = "{eta} is for variations from inverted noise: give {invert} too"
            raise Clash(text, eta=self.eta, invert=None)


@dataclass(frozen=True, kw_only=True)
class BlendUnclip(Decoded, Blend):
    """Draw pictures between two."""


@dataclass(frozen=True, kw_only=True)
class EditUnclip(Decoded, Edit):
    """Move a picture from one caption towards another."""


@dataclass(frozen=True, kw_only=True)
class InpaintUnclip(FromCaption, Inpaint):
    """Draw anew what a mask marks."""

    def __post_init__(self):
        super().__post_init__()
        (height, width), mask = self.image.pixels.shape[:2], self.mask.pixels.shape
        require(
            (height, width) == mask[:2],
            f"the mask is {mask[1]}x{mask[0]} and the image {width}x{height}: expected one size",
        )


@dataclass(frozen=True, kw_only=True)
class OutpaintUnclip(FromCaption, Outpaint):
    """Draw what lies around a picture."""


def draw(model: Model, request: DrawUnclip, progress: Progress) -> Pictures:
    """`num` pictures of each caption, those of the first caption first."""
    sampling = model.sampling(request.guidance, request.steps)
    drawing = begin(model, request.seed, progress)
    text = drawing.text(request.captions, request.num * request.candidates)
    condition = drawing.with_image(text, request.through, request.prior_guidance)
    small = drawing.best(drawing.decode(condition, sampling), text["text_embedding"], request.candidates)
    images = drawing.enlarge(small)
    scores = _scores(drawing, images, text["text_embedding"][:: request.candidates])
    return Pictures(images, "rows", request.captions, scores=scores)


def _scores(drawing: Drawing, images: np.ndarray, text: np.ndarray) -> tuple[float, ...]:
    """The cosine of each picture's embedding and its caption's; none where the CLIP sees no pictures."""
    if drawing.part("clip").config.net.vision is None:
        return ()
    return tuple(round(float(cosine), 4) for cosine in drawing.part("clip").cosines(images, text))


def vary(model: Model, request: VaryUnclip, progress: Progress) -> Pictures:
    """Pictures with the CLIP embedding of the image and no caption: from fresh noise, or from the noise that DDIM takes
    it back to, where eta above 0 lets them differ and brings its share of the decoder's guidance [Ramesh22, sec.
    3.1]."""
    drawing = begin(model, request.seed, progress)
    picture, many = drawing.fit(request.image.pixels)[None], request.num * request.candidates
    condition = drawing.of_pictures(picture)
    if request.invert:
        x_T = np.repeat(drawing.invert(picture, condition, request.steps), many, 0)
        sampling = model.sampling_back(request.guidance, request.steps, request.eta)
        small = drawing.redraw(condition, {"x_T": x_T}, sampling)
    else:
        repeated = {name: np.repeat(value, many, 0) for name, value in condition.items()}
        sampling = model.sampling(request.guidance, request.steps)
        small = drawing.decode(repeated, sampling)
    small = drawing.best(small, condition["image_embedding"], request.candidates)
    return Pictures(drawing.enlarge(small))


_between = jax.jit(jax.vmap(interpolate.slerp, (None, None, 0)))
_turned = jax.jit(jax.vmap(interpolate.text_diff, (None, None, None, 0)))


def blend(model: Model, request: BlendUnclip, progress: Progress) -> Pictures:
    """Embeddings and inverted noise along great circles [Ramesh22, sec. 3.2]."""
    drawing, num = begin(model, request.seed, progress), request.num
    both = np.stack([drawing.fit(image.pixels) for image in (request.a, request.b)])
    condition = drawing.of_pictures(both)
    x_T = drawing.invert(both, condition, request.steps)
    embedding, latents = (
        _between(*ends, request.weights) for ends in (condition["image_embedding"], x_T.reshape(2, -1))
    )
    between = {"image_embedding": np.asarray(embedding), "x_T": np.asarray(latents).reshape(num, *x_T.shape[1:])}
    sampling = model.sampling_back(request.guidance, request.steps)
    images = drawing.enlarge(drawing.redraw(condition, between, sampling))
    return Pictures(images, "strip")


def edit(model: Model, request: EditUnclip, progress: Progress) -> Pictures:
    """A text diff: from the picture's own inverted noise towards what one caption says and the other does not, up to
    the share `strength` of the way [Ramesh22, sec. 3.3]."""
    drawing, num = begin(model, request.seed, progress), request.num
    picture = drawing.fit(request.image.pixels)[None]
    condition = drawing.of_pictures(picture)
    text = drawing.text([request.caption_from, request.caption_to])["text_embedding"]
    strengths = np.linspace(0 if num > 1 else request.strength, request.strength, num, dtype=np.float32)
    turned = _turned(*text, condition["image_embedding"][0], strengths)
    x_T = np.repeat(drawing.invert(picture, condition, request.steps), num, 0)
    sampling = model.sampling_back(request.guidance, request.steps)
    small = drawing.redraw(condition, {"image_embedding": np.asarray(turned), "x_T": x_T}, sampling)
    return Pictures(drawing.enlarge(small), "strip")


def inpaint(model: Model, request: InpaintUnclip, progress: Progress) -> Pictures:
    """The picture with what the mask marks (above 127) drawn anew; every other pixel stays. What is drawn is a square
    window around the marked part, which the caption describes, or with `whole` the picture's middle square."""
    image, free = request.image.pixels, request.mask.pixels > regions.HALF
    window = regions.middle(free) if request.whole else regions.around(free)
    known = window.cut(image, model.image_size)
    marked = window.cut(free.astype(np.uint8) * 255, model.image_size) > 0
    return Pictures(window.put(image, _filled(model, request, known, marked, progress), free, request.feather))


def outpaint(model: Model, request: OutpaintUnclip, progress: Progress) -> Pictures:
    """The picture on a larger ground, of which the square around it is drawn; all of the picture but its edge stays."""
    ground = regions.ground(request.image.pixels, request.margins, request.feather)
    scale = model.image_size / max(ground.image.shape[:2])
    known, marked = ground.cut(scale, model.image_size, model.image_size)
    return Pictures(ground.put(_filled(model, request, known, marked, progress), scale))


def _filled(model: Model, request: Any, known: np.ndarray, marked: np.ndarray, progress: Progress) -> np.ndarray:
    """A square [S S 3] with what is marked in it drawn anew, `num` times."""
    sampling = model.sampling(request.guidance, request.steps)
    drawing, many = begin(model, request.seed, progress), request.num * request.candidates
    text = drawing.text([request.caption], many)
    condition = drawing.with_image(text, request.through, request.prior_guidance)
    parts = keep(known, marked, model.decoder_size, many)
    small = drawing.decode({**condition, **parts}, sampling, "inpaint")
    best = drawing.best(small, text["text_embedding"], request.candidates)
    return drawing.enlarge(best, known, marked)


def check_parts(parts: Parts) -> None:
    """Raises ValueError unless every part was trained with the CLIP that is there."""
    for name in ("prior", "ar_prior", "decoder") if "clip" in parts else ():
        if name in parts:
            try:
                check_companion(parts[name].files, "CLIP", parts["clip"].fingerprint)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error


def _settings(model: Model, request: Any) -> dict[str, Any]:
    """How the decoder draws."""
    back = request.verb in ("blend", "edit") or getattr(request, "invert", False)
    sampling = (model.sampling_back if back else model.sampling)(
        request.guidance, request.steps, getattr(request, "eta", None)
    )
    return {name: getattr(sampling, name) for name in ("sampler", "steps", "guidance", "eta")}


def _handler(answer: Callable, stages: int) -> Handler:
    """That of a verb which takes so many stages before the upsamplers."""

    def check(model: Model, request: Request) -> None:
        prior = PRIORS.get(getattr(request, "through", ""))
        model.require_parts("clip", "decoder", *([prior] if prior else []))

    return Handler(answer, check, lambda request: stages + 2, _settings)


SMALLER = "pictures are drawn at the size before it"
FAMILY = Composite(
    name="unclip",
    parts={
        "clip": Part(CLIP),
        "prior": Part(PRIOR, DiffusionPrior),
        "ar_prior": Part(PRIOR, ARPrior),
        "decoder": Part(DECODER),
        "upsampler_1": Part(UPSAMPLER, warn_missing=SMALLER),
        "upsampler_2": Part(UPSAMPLER, warn_missing=SMALLER, after="upsampler_1"),
    },
    model=Model,
    check=check_parts,
    requests={
        DrawUnclip: _handler(draw, 3),
        VaryUnclip: _handler(vary, 3),
        BlendUnclip: _handler(blend, 3),
        EditUnclip: _handler(edit, 4),
        InpaintUnclip: _handler(inpaint, 3),
        OutpaintUnclip: _handler(outpaint, 3),
    },
)
