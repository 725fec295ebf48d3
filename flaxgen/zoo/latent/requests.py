"""What a diffusion model over latents can be asked, and what of it such a model cannot do."""

from collections.abc import Container
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

from flaxgen.diffusion.times import check_steps
from flaxgen.family.request import Clash, Request, option, picture_option
from flaxgen.family.requests import Blend, Draw, Inpaint, Outpaint, Sample, Upscale, Vary, label_option, set_option
from flaxgen.family.sampling import Sampling
from flaxgen.train.config import override, require
from flaxgen.zoo.latent.config import (
    SOLVERS,
    Config,
    ImageEmbedding,
    check_label,
    check_sampling,
    num_labels,
    reads_text,
    solvers_of,
    with_solver,
)

OWN = "the model's own"
LARGEST = 8192
"""Pixels of a side of what is drawn, at most."""
VARY_STRENGTH, BLEND_STRENGTH = 0.75, 0.6
THROUGH = ("latents", "pixels")


@dataclass(frozen=True, kw_only=True)
class Sampled(Request):
    """What every verb may say of how latents are drawn."""

    guidance: float | None = option(None, "classifier-free guidance; 0 or 1 is none", least=0, default_text=OWN)
    steps: int | None = option(None, "sampling steps", least=1, default_text=OWN)
    sampler: str | None = option(None, f"one of {', '.join(SOLVERS)}", default_text=OWN)
    set: tuple[str, ...] = set_option()
    tile: int = option(0, "decode in tiles of so many pixels, in less memory; 0 is all at once", least=0)


@dataclass(frozen=True, kw_only=True)
class Captioned(Sampled):
    """What the verbs that read a caption may say."""

    negative: str | None = option(None, "what pictures shall not show", default_text="nothing")
    clip_skip: int = option(0, "blocks of the text encoders to leave out, beyond those the model does", least=0)
    plain: bool = option(False, "read ( ) [ ] and BREAK as they stand, and not as A1111 does")
    lora: tuple[str, ...] = option((), "a LoRA's file, or FILE:0.8 for its strength", flag="lora FILE")
    word: tuple[str, ...] = option((), "a file of textual inversion, whose word captions may have", flag="word FILE")
    hint: Any = picture_option("edges, depth, a pose: what the model's ControlNet reads", "hint FILE")
    hint_strength: float | None = option(None, "how far the hint is followed", least=0, most=2, default_text="1")
    hint_2: Any = picture_option("what the model's second ControlNet reads", "hint-2 FILE")
    hint_2_strength: float | None = option(None, "how far that is followed", least=0, most=2, default_text="1")
    hint_edges: bool = option(False, "hints are pictures, whose edges are found and read instead")
    hint_guess: bool = option(False, "hints steer what captions say alone, and guess what they do not say")
    refine_from: float | None = option(
        None, "share of all time after which the model's refiner draws; 1 is never", least=0, most=1, default_text="0.8"
    )

    def __post_init__(self):
        super().__post_init__()
        for hint, strength in (("hint", "hint_strength"), ("hint_2", "hint_2_strength")):
            if getattr(self, hint) is None and getattr(self, strength) is not None:
                text = f"{{{strength}}} is that of a {{{hint}}}: give both or none"
                raise Clash(text, **{strength: getattr(self, strength), hint: None})
        for name in ("hint_edges", "hint_guess"):
            if getattr(self, name) and self.hint is None and self.hint_2 is None:
                raise Clash(f"{{{name}}} is about a {{hint}}: give both or none", **{name: None, "hint": None})


def leaving_option(what: str, usual: float) -> Any:
    """How far pictures may leave those that they begin with."""
    return option(
        None,
        f"how far they may leave {what}: the share of the steps",
        above=0,
        most=1,
        default_text=f"{usual}; a model that reads a picture's embedding begins with noise alone",
    )


def level_option() -> Any:
    """How much noise is put on the embedding of a picture."""
    return option(None, "noise on the picture's embedding, for a model that reads it: more leaves it further behind",
                  least=0, most=999, default_text="0")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SampleLatent(Sampled, Sample):
    """Draw samples."""

    label: int | None = label_option()


@dataclass(frozen=True, kw_only=True)
class DrawLatent(Captioned, Draw):
    """Draw what captions say."""

    examples: ClassVar[tuple[str, ...]] = (
        'flaxgen draw "a cat on a red chair" --model models/sd --num 4 --steps 30 --sampler dpmpp_2m_karras',
        'flaxgen draw "a lighthouse" --model models/sd --negative "blurry" --width 768 --height 512 --out out.png',
        'flaxgen draw "a stone house" --model models/sd_canny --hint edges.png --hint-strength 0.8 --out out.png',
    )

    height: int | None = option(None, "pixels from top to bottom", least=8, most=LARGEST, default_text=OWN)
    width: int | None = option(None, "pixels from left to right", least=8, most=LARGEST, default_text=OWN)


@dataclass(frozen=True, kw_only=True)
class VaryLatent(Captioned, Vary):
    """Draw a picture anew, from it and noise."""

    examples: ClassVar[tuple[str, ...]] = (
        'flaxgen vary photo.png --model models/sd --caption "a watercolour" --strength 0.6 --num 4 --out out.png',
    )

    caption: str = option("", "what the new pictures shall show")
    strength: float | None = leaving_option("the picture", VARY_STRENGTH)
    noise_level: int | None = level_option()


@dataclass(frozen=True, kw_only=True)
class BlendLatent(Captioned, Blend):
    """Draw pictures between two."""

    examples: ClassVar[tuple[str, ...]] = (
        'flaxgen blend cat.png dog.png --model models/sd --caption "a cat" --to "a dog" --num 7 --out out.png',
    )

    caption: str = option("", "what the pictures show")
    caption_to: str | None = option(None, "what the last one shows", flag="to CAPTION", default_text="the same")
    strength: float | None = leaving_option("the two", BLEND_STRENGTH)
    noise_level: int | None = level_option()


@dataclass(frozen=True, kw_only=True)
class InpaintLatent(Captioned, Inpaint):
    """Draw anew what a mask marks."""

    examples: ClassVar[tuple[str, ...]] = (
        'flaxgen inpaint photo.png mask.png "a vase of tulips" --model models/sd --out out.png',
    )

    def __post_init__(self):
        super().__post_init__()
        (height, width), mask = self.image.pixels.shape[:2], self.mask.pixels.shape
        require(
            (height, width) == mask[:2],
            f"the mask is {mask[1]}x{mask[0]} and the image {width}x{height}: expected one size",
        )
        check_hint_size(self, "image", height, width)


def check_hint_size(request: Captioned, what: str, height: int, width: int) -> None:
    """Raises ValueError unless the hints, where there are some, are of this size."""
    for hint in (request.hint, request.hint_2):
        found = (height, width) if hint is None else hint.pixels.shape[:2]
        require(
            found == (height, width),
            f"the hint is {found[1]}x{found[0]} and the {what} {width}x{height}: expected one size, as it is of the "
            "whole",
        )


@dataclass(frozen=True, kw_only=True)
class OutpaintLatent(Captioned, Outpaint):
    """Draw what lies around a picture."""

    def __post_init__(self):
        super().__post_init__()
        (height, width), (left, right, top, bottom) = self.image.pixels.shape[:2], self.margins
        check_hint_size(self, "larger picture", height + top + bottom, width + left + right)


@dataclass(frozen=True, kw_only=True)
class UpscaleLatent(Captioned, Upscale):
    """Draw a picture larger."""

    caption: str = option("", "what the picture shows")
    factor: float = option(2.0, "how many times as large it becomes", above=1, most=8)
    strength: float = option(0.6, "how far the result may leave the picture: the share of the steps", above=0, most=1)
    through: str = option("latents", "what is enlarged, before it is drawn over: latents or pixels", choices=THROUGH)
    tile: int = option(0, "draw and decode in tiles of so many pixels, in less memory; 0 is all at once", least=0)

    def __post_init__(self):
        super().__post_init__()
        height, width = self.image.pixels.shape[:2]
        check_hint_size(self, "image", height, width)
        size = [round(side * self.factor) for side in (width, height)]
        require(max(size) <= LARGEST, f"a picture of {size[0]}x{size[1]}: expected at most {LARGEST} a side")
        if self.tile and self.hint is not None:
            raise Clash("{tile} and {hint} do not go together: give one of them", tile=self.tile, hint=None)


SAID = ("caption", "caption_to", "negative", "clip_skip", "plain", "word", "hint", "hint_2", "refine_from")
"""Fields that say of pictures what captions and hints may."""
OfPicture = VaryLatent | BlendLatent
STRENGTHS = {VaryLatent: VARY_STRENGTH, BlendLatent: BLEND_STRENGTH}
"""How far pictures may leave those that they begin with, where nothing is said."""


def strength_for(config: Config, request: OfPicture) -> float | None:
    """The share of the steps that are drawn; None is from noise alone, with nothing but an embedding of the picture."""
    if request.strength is not None or config.image_embedding is not None:
        return request.strength
    return STRENGTHS[type(request)]


def sampling_for(config: Config, request: Sampled) -> Sampling:
    """The model's own settings with those that were asked for."""
    chosen = config.sampling
    if request.sampler is not None:
        chosen = with_solver(chosen, request.sampler, solvers_of(config.process))
    named = {name: value for name in ("steps", "guidance") if (value := getattr(request, name)) is not None}
    if named.get("guidance") == 0:  # what distilled models are told elsewhere, and means none there
        named["guidance"] = 1.0
    return override(replace(chosen, **named), request.set)


def used(config: Config, request: Sampled) -> dict[str, Any]:
    """The settings used, as they are written into a picture."""
    settings = {name: value for name, value in vars(sampling_for(config, request)).items() if name != "batch"}
    return settings | ({"strength": strength_for(config, request)} if isinstance(request, OfPicture) else {})


def check_request(config: Config, request: Sampled, parts: Container[str] = ()) -> None:
    """Raises ValueError unless such a net can do that, by itself or with the other parts."""
    sampling = sampling_for(config, request)
    check_sampling(config, sampling)
    check_steps(sampling.steps, config.process.timesteps)
    how = config.image_embedding
    if isinstance(request, SampleLatent):
        instead = "what captions say: use draw" if reads_text(config) else "variations of pictures: use vary"
        require(not reads_text(config) and how is None, f"this model draws {instead}")
        check_label(config, request.label)
    elif how is not None and how.place == "token":
        _check_shown(request)
    else:
        for field, part in (("hint", "controlnet"), ("hint_2", "controlnet_2"), ("refine_from", "refiner")):
            require(
                part in parts or getattr(request, field, None) is None,
                f"this model lacks the part {part!r}, which {field} is for: add it with `flaxgen compose`",
            )
        require(reads_text(config), f"this model reads no captions{': use sample' if num_labels(config) else ''}")
    if isinstance(request, OfPicture):
        check_level(how, request.noise_level)


def check_level(how: ImageEmbedding | None, level: int | None) -> None:
    """Raises ValueError unless a net knows that much noise on embeddings, where that is said."""
    if level is None:
        return
    if how is None or how.place != "vector":
        reads = "no embedding of a picture" if how is None else "the embedding of a picture without noise"
        raise ValueError(f"noise_level={level}: this model reads {reads}, leave it out")
    most = how.noise.timesteps - 1
    require(level <= most, f"noise_level={level}: this model knows levels of 0 to {most}")


def _check_shown(request: Sampled) -> None:
    """Raises ValueError unless all that is said of the pictures is another picture."""
    require(isinstance(request, OfPicture), "this model draws variations of pictures alone: use vary or blend")
    defaults = {field.name: field.default for field in fields(request) if field.name in SAID}
    for name, default in defaults.items():
        unsaid = getattr(request, name) == default
        require(unsaid, f"{name} is not read by this model, which draws variations of pictures: leave it out")
