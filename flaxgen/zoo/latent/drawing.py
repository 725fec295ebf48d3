"""From captions or pictures to pictures: text encoders, the net over latents, and the autoencoder [Rombach22]."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, UInt8

from flaxgen.data import to_pixels
from flaxgen.data.transforms import middle_square
from flaxgen.family import regions
from flaxgen.family.codec import affine
from flaxgen.family.drawing import choose_labels
from flaxgen.family.pictures import Pictures
from flaxgen.family.requests import sampled
from flaxgen.family.trained import Progress
from flaxgen.train.config import require
from flaxgen.types import PRNGKey
from flaxgen.zoo.latent import looks, requests
from flaxgen.zoo.latent.config import Config, fills_in, multiple, num_labels, reads_text
from flaxgen.zoo.latent.control import Control, fit_hint
from flaxgen.zoo.latent.edges import edges
from flaxgen.zoo.latent.model import Asked, Latent, Model, Refiner, Start, draw_refined
from flaxgen.zoo.latent.prompts import read_prompts
from flaxgen.zoo.latent.requests import Captioned, DrawLatent, InpaintLatent, Sampled, SampleLatent, VaryLatent
from flaxgen.zoo.latent.statistics import scales_of
from flaxgen.zoo.latent.text import POOR, States, condition_of, usual_sizes

SINCE = 0.8
"""The share of all time after which a refiner draws, where nothing else is said."""
OVERFLOWN = (
    "the autoencoder makes of finite latents what is not finite: its weights were rounded to less than they hold, as "
    "XL's first ones in float16 are. Import it from weights in float32 (without --variant fp16), or a VAE that was "
    "mended for float16, and put that in its place with `flaxgen compose`"
)
"""Latents are finite where they reach the autoencoder, so that it is its weights that are not."""


class Parts(NamedTuple):
    """What draws: the net over latents, whose they are, the text encoders with the names of their parts, words of one's
    own with their ids for each encoder, a ControlNet and another, a refiner, a T5, and the CLIP whose embeddings of
    pictures the net reads."""

    denoiser: Model
    autoencoder: Any
    clips: tuple[Any, ...] = ()
    encoders: tuple[str, ...] = ()
    words: Mapping[str, tuple[range, ...]] = {}
    controlnet: Any = None
    controlnet_2: Any = None
    refiner: Any = None
    t5: Any = None
    vision: Any = None

    @property
    def config(self) -> Config:
        """That of the net."""
        return self.denoiser.config

    @property
    def factor(self) -> int:
        """Pixels a latent is wide."""
        return self.autoencoder.config.net.factor

    @property
    def image_size(self) -> int:
        """Pixels of a side of what the net was made for."""
        return self.config.net.image_size * self.factor

    def scales(self) -> tuple[np.ndarray, np.ndarray]:
        """What latents are centred at and multiplied by."""
        latents = scales_of(self.denoiser.files) or self.autoencoder.config.latents
        return affine(latents, self.config.net.out_channels)

    def encode(self, images: UInt8[np.ndarray, "N H W C"] | Float[np.ndarray, "N H W C"], tile: int = 0) -> Latent:
        """Pictures, 8-bit or in [-1, 1], as the net works on them."""
        mean, scale = self.scales()
        return (self.autoencoder.encode(images, tile) - mean) * scale

    def decode(self, latents: Latent, tile: int = 0) -> UInt8[np.ndarray, "N H W C"]:
        """The pictures of latents.

        Raises:
            FloatingPointError: if they are not finite.
        """
        mean, scale = self.scales()
        try:
            return to_pixels(self.autoencoder.decode(latents / scale + mean, tile))
        except FloatingPointError as error:
            raise FloatingPointError(OVERFLOWN) from error

    def shape(self, height: int | None, width: int | None) -> tuple[int, int, int]:
        """[h w D] of the latents of a picture of that size, by default the model's.

        Raises:
            ValueError: if autoencoder and net do not divide the sides.
        """
        height, width = height or self.image_size, width or self.image_size
        step = self.factor * multiple(self.config)
        near = [max(round(side / step), 1) * step for side in (width, height)]
        require(
            height % step == 0 and width % step == 0,
            f"a picture of {width}x{height}: expected multiples of {step}, the nearest are {near[0]}x{near[1]}",
        )
        return (height // self.factor, width // self.factor, self.config.net.out_channels)


def conditions(
    parts: Parts,
    request: Captioned,
    captions: Sequence[str],
    shape: tuple[int, int, int],
    cut: Callable[[np.ndarray], np.ndarray] = lambda pixels: pixels,
    seen: Mapping[str, np.ndarray] = {},
) -> Asked:
    """What the net reads of captions and of the pictures `seen`, and of what pictures shall not show, and its hint: of
    a picture of which a part is drawn, the same `cut` of it."""
    height, width = (side * parts.factor for side in shape[:2])
    wanted, null = _said(parts, request, captions, height, width)
    asked = Asked({**wanted, **seen}, null)
    since = SINCE if request.refine_from is None else request.refine_from
    if parts.refiner is not None and since < 1:
        words = {word: ids[-1:] for word, ids in parts.words.items()}
        last = parts._replace(denoiser=parts.refiner, clips=parts.clips[-1:], words=words)
        asked = asked._replace(refiner=Refiner(parts.refiner, *_said(last, request, captions, height, width), since))
    given = ((request.hint, request.hint_strength, parts.controlnet),
             (request.hint_2, request.hint_2_strength, parts.controlnet_2))  # fmt: skip
    controls = []
    for hint, strength, model in given:
        if hint is not None:
            pixels = hint_of(hint, request.hint_edges, model.config.net.hint_channels)
            said = 1.0 if strength is None else strength
            controls.append(Control(model, fit_hint(cut(pixels), height, width), said))
    return asked._replace(controls=tuple(controls), guess=request.hint_guess)


def hint_of(hint: Any, find_edges: bool, channels: int) -> UInt8[np.ndarray, "H W {channels}"]:
    """A hint as a ControlNet of so many channels reads it, or the edges of a picture as its hint."""
    return edges(hint.pixels)[..., :channels] if find_edges else hint.with_channels(channels)


def _said(
    parts: Parts, request: Captioned, captions: Sequence[str], height: int, width: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Of each caption what the net reads of it, and what it reads of what its picture shall not show."""
    config, unseen = parts.config, looks.nothing(parts.config, len(captions))
    if not reads_text(config):
        return unseen, unseen
    text = replace(config.text, skip=config.text.skip + request.clip_skip)
    states = read_prompts(parts.clips, text, [*captions, request.negative or ""], request.plain, parts.words, parts.t5)
    said, unsaid = (States(*(field[rows] for field in states)) for rows in (slice(-1), slice(-1, None)))
    if request.negative is None and config.text.zero_empty:
        unsaid = unsaid._replace(tokens=0 * unsaid.tokens, embedding=0 * unsaid.embedding, t5=0 * unsaid.t5)
    wanted = condition_of(config, said, usual_sizes(config, height, width))
    null = condition_of(config, unsaid, usual_sizes(config, height, width, POOR))
    null = {name: np.repeat(value, len(captions), 0) for name, value in null.items()}
    return {**wanted, **unseen}, {**null, **unseen}


def draw_asked(
    parts: Parts,
    request: Sampled,
    asked: Asked,
    numbers: range,
    progress: Progress,
    start: Start,
    shape: tuple[int, int, int] | None = None,
) -> UInt8[np.ndarray, "N H W C"]:
    """Pictures of each row of what is asked."""
    progress("drawing latents")
    sampling, key = requests.sampling_for(parts.config, request), jax.random.key(request.seed)
    latents = draw_refined(parts.denoiser, asked, key, numbers, start=start, sampling=sampling, shape=shape)
    progress("decoding")
    return parts.decode(latents, request.tile)


def draw(parts: Parts, request: DrawLatent, progress: Progress) -> Pictures:
    """`num` pictures of each caption, those of the first caption first."""
    shape = parts.shape(request.height, request.width)
    progress("text")
    captions = [caption for caption in request.captions for _ in range(request.num)]
    asked = conditions(parts, request, captions, shape)
    start = Start(known=beside(parts, shape, len(captions)))
    images = draw_asked(parts, request, asked, range(len(captions)), progress, start, shape)
    return Pictures(images, "rows", request.captions)


def sample(parts: Parts, request: SampleLatent, progress: Progress) -> Pictures:
    """Pictures of a class, of all in turn, or of nothing in particular."""
    asked = labels(parts.config, request.label, request.numbers)
    start = Start(known=beside(parts, parts.shape(None, None), request.num))
    images = draw_asked(parts, request, asked, request.numbers, progress, start)
    return sampled(parts.denoiser, request, images.astype(np.float32) / 127.5 - 1)


def labels(config: Config, label: int | None, numbers: range) -> Asked:
    """The labels of these numbers, and what says nothing."""
    condition = choose_labels(num_labels(config), label, numbers)
    null = {name: np.full_like(value, config.net.num_classes - 1) for name, value in condition.items()}
    return Asked(condition, null)


def vary(parts: Parts, request: VaryLatent, progress: Progress) -> Pictures:
    """The picture's middle square with noise for the last share `strength` of the steps, drawn from there [Meng22]. A
    net that reads the picture's embedding begins with noise, unless a strength is asked for."""
    progress("text")
    numbers, strength = range(request.num), requests.strength_for(parts.config, request)
    shape = parts.shape(None, None)
    start = Start(known=beside(parts, shape, request.num))
    if strength is not None:
        latent = np.repeat(parts.encode(fit(parts, request.image)[None]), request.num, 0)
        start, shape = Start("vary", {"latent": latent, **start.known}, strength), latent.shape[1:]
    seen = {}
    if parts.config.image_embedding is not None:
        embeddings = np.repeat(looks.embed(parts, request.image), request.num, 0)
        seen = looks.condition(parts, embeddings, request.noise_level or 0, request.seed, numbers)
    asked = conditions(parts, request, [request.caption] * request.num, shape, seen=seen)
    return Pictures(draw_asked(parts, request, asked, numbers, progress, start, shape))


def fit(parts: Parts, image: Any) -> UInt8[np.ndarray, "S S C"]:
    """The middle square of a picture at the model's size."""
    pixels = image.with_channels(parts.autoencoder.config.net.in_channels)
    return middle_square(pixels, parts.image_size, "lanczos")


def inpaint(parts: Parts, request: InpaintLatent, progress: Progress) -> Pictures:
    """The picture with what the mask marks drawn anew; every other pixel stays. What is drawn is a square window around
    the marked part, which the caption describes, or with `whole` the picture's middle square."""
    progress("text")
    image = request.image.with_channels(parts.autoencoder.config.net.in_channels)
    free = request.mask.pixels > regions.HALF
    window, size = regions.middle(free) if request.whole else regions.around(free), parts.image_size
    seen = window.cut(image, size)
    marked = window.cut(free.astype(np.uint8) * 255, size) > regions.HALF
    known = known_of(parts, seen, marked, request.num)
    asked = conditions(parts, request, [request.caption] * request.num, known["latent"].shape[1:], _at(window))
    drawn = draw_asked(parts, request, asked, range(request.num), progress, Start("inpaint", known))
    return Pictures(window.put(image, drawn, free, request.feather))


def _at(window: regions.Window) -> Callable[[np.ndarray], np.ndarray]:
    return lambda pixels: pixels[window.place]


def known_of(
    parts: Parts, image: UInt8[np.ndarray, "H W C"], free: Bool[np.ndarray, "H W 1"], num: int
) -> dict[str, Float[np.ndarray, "N ..."]]:
    """The picture's latents and the mask of those that stay; where the net reads it, also latents of the picture in
    grey where it is free. As in Stable Diffusion, a latent is free if its upper left pixel is."""
    mask = 1 - free[:: parts.factor, :: parts.factor].astype(np.float32)
    known = {"latent": parts.encode(image[None])[0], "mask": mask}
    if fills_in(parts.config):
        grey = np.where(free, np.float32(0), image.astype(np.float32) / 127.5 - 1)
        known["outside"] = parts.encode(grey[None])[0]
    return {name: np.repeat(value[None], num, 0) for name, value in known.items()}


def beside(parts: Parts, shape: tuple[int, ...], num: int) -> dict[str, np.ndarray]:
    """What a net that fills in reads where there is no picture to keep: nothing of it stays, and it is grey."""
    if not fills_in(parts.config):
        return {}
    channels = parts.autoencoder.config.net.in_channels
    grey = np.zeros((1, *(side * parts.factor for side in shape[:2]), channels), np.float32)
    return {"mask": np.zeros((num, *shape[:2], 1), np.float32), "outside": np.repeat(parts.encode(grey), num, 0)}


def preview(parts: Parts, captions: Sequence[str], key: PRNGKey, num: int) -> Pictures:
    """Pictures of captions, or of all classes in turn."""
    seed = int(jax.random.randint(key, (), 0, 2**31 - 1))
    if reads_text(parts.config):
        return draw(parts, DrawLatent(captions=tuple(captions), num=2, seed=seed), lambda stage: None)
    return sample(parts, SampleLatent(num=num, seed=seed), lambda stage: None)
