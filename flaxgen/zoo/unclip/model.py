"""unCLIP with its verbs: draw, vary, blend, edit, inpaint [Ramesh22, sec. 2 and 3].

Pictures go in and out as uint8 [N H W 3]. Picture i depends on the seed, on what it is drawn from and on i alone, on
any number of devices. Every stage is one compiled program for each shape and number of steps.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, UInt8

from flaxgen.data.transforms import center_crop, resize_short_side
from flaxgen.diffusion import interpolate
from flaxgen.train.config import require
from flaxgen.types import PRNGKey
from flaxgen.zoo import embeddings, upsampler
from flaxgen.zoo.diffusion import Sampling
from flaxgen.zoo.pictures import to_pixels
from flaxgen.zoo.process import choose
from flaxgen.zoo.unclip.stages import PRIORS, Stages, require_stages

Through = Literal["diffusion", "autoregressive", "text", "nothing"]
"""What the decoder is given beside the caption: an embedding drawn by either prior, the caption's own embedding as if
it were a picture's, or none [Ramesh22, sec. 5.1]."""
Pictures = UInt8[np.ndarray, "N S S 3"]
Progress = Callable[[str], None]


class Settings(NamedTuple):
    """What of the stages' own settings is to differ; None is as they were trained. Each picture is the best of
    `candidates` by CLIP, where fresh noise lets them differ."""

    guidance: float | None = None
    prior_guidance: float | None = None
    steps: int | None = None
    eta: float | None = None
    candidates: int = 1


AS_TRAINED = Settings()


@dataclass(frozen=True)
class Model:
    """An unCLIP. `progress` is told of every stage that begins."""

    stages: Stages
    progress: Progress = lambda stage: None

    @property
    def image_size(self) -> int:
        """Pixels of a side of what is drawn."""
        require_stages(self.stages, "decoder")
        size = self._decoder_size
        for stage in self.stages.upsamplers:
            size *= stage.config.factor
        return size

    def reporting(self, progress: Progress) -> "Model":
        """This model, telling `progress` of every stage that begins."""
        return replace(self, progress=progress)

    def num_stages(self, verb: str) -> int:
        """Of how many stages the verb tells `progress`, at most."""
        return len(self.stages.upsamplers) + {"draw": 3, "inpaint": 3, "vary": 3, "blend": 3, "edit": 4}[verb]

    def draw(
        self,
        captions: Sequence[str],
        *,
        seed: int,
        num: int = 1,
        through: Through = "diffusion",
        settings: Settings = AS_TRAINED,
    ) -> Pictures:
        """`num` pictures of each caption, those of the first caption first.

        Raises:
            ValueError: if there is no caption, or a stage is missing.
        """
        require(len(captions) > 0, "there is no caption to draw: give one or more")
        keys = self._begin(seed, num, settings)
        text = self._text(captions, num * settings.candidates)
        condition = self._image_condition(text, through, keys["prior"], settings)
        small = self._decode(condition, keys["decoder"], self._sampling(settings), "draw")
        return self.enlarge(self._best(small, text["text_embedding"], settings), keys["upsamplers"])

    def vary(
        self, image: UInt8[np.ndarray, "H W 3"], *, seed: int, num: int, invert: bool = False,
        settings: Settings = AS_TRAINED,
    ) -> Pictures:  # fmt: skip
        """Pictures with the CLIP embedding of `image` and no caption: from fresh noise, or with `invert` from the noise
        that DDIM takes the picture back to, where `settings.eta` above 0 lets them differ [Ramesh22, sec. 3.1] and
        brings its share of the decoder's guidance, unless `settings.guidance` says how much.

        Raises:
            ValueError: if a stage is missing, or a setting is out of range.
        """
        keys, picture = self._begin(seed, num, settings), self._fit(image)[None]
        condition, many = self._of_pictures(picture), num * settings.candidates
        if invert:
            x_T = np.repeat(self._invert(picture, condition, settings), many, 0)
            small = self._redraw(condition, {"x_T": x_T}, keys, settings)
        else:
            repeated = {name: np.repeat(value, many, 0) for name, value in condition.items()}
            small = self._decode(repeated, keys["decoder"], self._sampling(settings), "draw")
        return self.enlarge(self._best(small, condition["image_embedding"], settings), keys["upsamplers"])

    def blend(
        self, a: UInt8[np.ndarray, "H W 3"], b: UInt8[np.ndarray, "h w 3"], *, seed: int, num: int,
        settings: Settings = AS_TRAINED,
    ) -> Pictures:  # fmt: skip
        """Pictures from `a` to `b`, both included (`num` 1 is the one in the middle): embeddings and inverted noise
        along great circles [Ramesh22, sec. 3.2].

        Raises:
            ValueError: if a stage is missing, or a setting is out of range.
        """
        keys, both = self._begin(seed, num, settings, fresh=False), np.stack([self._fit(a), self._fit(b)])
        condition = self._of_pictures(both)
        x_T = self._invert(both, condition, settings)
        weights = np.linspace(0, 1, num, dtype=np.float32) if num > 1 else np.full(1, 0.5, np.float32)
        embedding, latents = (_between(*ends, weights) for ends in (condition["image_embedding"], x_T.reshape(2, -1)))
        between = {"image_embedding": np.asarray(embedding), "x_T": np.asarray(latents).reshape(num, *x_T.shape[1:])}
        return self.enlarge(self._redraw(condition, between, keys, settings), keys["upsamplers"])

    def edit(
        self, image: UInt8[np.ndarray, "H W 3"], caption_from: str, caption_to: str, *, seed: int, num: int,
        strength: float = 0.5, settings: Settings = AS_TRAINED,
    ) -> Pictures:  # fmt: skip
        """Pictures from `image` towards what `caption_to` says and `caption_from` does not, up to the share `strength`
        of the way (`num` 1 is the one there): a text diff, from the picture's own inverted noise [Ramesh22, sec. 3.3].

        Raises:
            ValueError: if a stage is missing, or a setting is out of range.
        """
        require(0 < strength <= 1, f"strength={strength}: expected a share in (0, 1]")
        keys, picture = self._begin(seed, num, settings, fresh=False), self._fit(image)[None]
        condition = self._of_pictures(picture)
        text = self._text([caption_from, caption_to])["text_embedding"]
        strengths = np.linspace(0 if num > 1 else strength, strength, num, dtype=np.float32)
        turned = _turned(*text, condition["image_embedding"][0], strengths)
        x_T = np.repeat(self._invert(picture, condition, settings), num, 0)
        small = self._redraw(condition, {"image_embedding": np.asarray(turned), "x_T": x_T}, keys, settings)
        return self.enlarge(small, keys["upsamplers"])

    def inpaint(
        self, image: UInt8[np.ndarray, "H W 3"], mask: np.ndarray, caption: str, *, seed: int, num: int = 1,
        through: Through = "diffusion", settings: Settings = AS_TRAINED,
    ) -> Pictures:  # fmt: skip
        """`image` with what `mask` [H W] marks (non-zero) drawn anew as the caption says; every other pixel stays. A
        picture of another size than `image_size` is brought to it first, by its middle square.

        Raises:
            ValueError: if image and mask differ in size, nothing is marked, or a stage is missing.
        """
        require(
            mask.shape == image.shape[:2],
            f"the mask is {mask.shape[1]}x{mask.shape[0]} and the image {image.shape[1]}x{image.shape[0]}: expected "
            "one size",
        )
        keys, known = self._begin(seed, num, settings), self._fit(image)
        free = self._fit((mask > 0).astype(np.uint8)[..., None] * 255) > 0
        marked = "expected white where the picture is to be drawn anew"
        require(bool(free.any()), f"the mask marks nothing in the picture's middle square: {marked}")
        text = self._text([caption], num * settings.candidates)
        condition = self._image_condition(text, through, keys["prior"], settings)
        parts = _keep(known, free, self._decoder_size, num * settings.candidates)
        drawn = self._decode({**condition, **parts}, keys["decoder"], self._sampling(settings), "inpaint")
        drawn = self.enlarge(self._best(drawn, text["text_embedding"], settings), keys["upsamplers"], known, free)
        return np.where(free[None], drawn, known[None])

    # The stages, each told of what the one before made

    def _begin(self, seed: int, num: int, settings: Settings, fresh: bool = True) -> dict[str, PRNGKey]:
        """The keys of the stages, if there is what every verb needs; `fresh` verbs begin with noise of their own."""
        require(num >= 1, f"num={num}: expected 1 or more")
        chosen = settings.candidates
        require(chosen >= 1, f"candidates={chosen}: expected 1 or more")
        require(fresh or chosen == 1, f"candidates={chosen}: from a picture's own noise all are alike, leave it at 1")
        require_stages(self.stages, "clip", "decoder")
        return _keys(seed)

    def _text(self, captions: Sequence[str], num: int = 1) -> dict[str, np.ndarray]:
        """What the captions say, each `num` times."""
        self.progress("text")
        fields = embeddings.text_fields(_there(self.stages.clip), list(captions))
        return {name: np.repeat(value, num, 0) for name, value in fields.items()}

    def _image_condition(self, text: dict[str, np.ndarray], through: Through, key: PRNGKey, settings: Settings):
        """The captions, and what the decoder is to know of pictures."""
        choose("through", through, dict.fromkeys((*PRIORS, "text", "nothing")))
        num, dim = text["text_embedding"].shape
        if through == "nothing":
            return {**text, "image_embedding": np.zeros((num, dim), np.float32), "has_image": np.zeros(num, bool)}
        if through == "text":
            return {**text, "image_embedding": text["text_embedding"]}
        stage = PRIORS[through]
        require_stages(self.stages, stage)
        self.progress("prior")
        prior = getattr(self.stages, stage)
        sampling = prior.config.sampling
        if settings.prior_guidance is not None:
            sampling = replace(sampling, guidance=settings.prior_guidance)
        return {**text, "image_embedding": prior.draw(text, key, sampling=sampling)}

    def _of_pictures(self, images: Pictures) -> dict[str, np.ndarray]:
        """Pictures' own embeddings and no caption."""
        self.progress("clip")
        empty = {name: np.repeat(value, len(images), 0) for name, value in self._empty().items()}
        embedded = _there(self.stages.clip).encode_image(images)
        return {**empty, "image_embedding": embedded, "has_text": np.zeros(len(images), bool)}

    def _empty(self) -> dict[str, np.ndarray]:
        return {name: value[None] for name, value in embeddings.empty_text(_there(self.stages.clip)).items()}

    def _decode(self, condition, key: PRNGKey, sampling: Sampling, task) -> Float[np.ndarray, "N H W C"]:
        self.progress("decoder" if task != "invert" else "inversion")
        return _there(self.stages.decoder).draw(condition, key, empty=self._empty(), sampling=sampling, task=task)

    def _invert(self, images: Pictures, condition, settings: Settings) -> Float[np.ndarray, "N s s C"]:
        condition = {**condition, "image": _shrunk(images, self._decoder_size)}
        unguided = self._walk_back(settings._replace(guidance=1.0))
        return self._decode(condition, jax.random.key(0), unguided, "invert")

    def _redraw(self, condition, between: Mapping[str, np.ndarray], keys, settings: Settings):
        rest = {name: np.repeat(value[:1], len(between["x_T"]), 0) for name, value in condition.items()}
        return self._decode({**rest, **between}, keys["decoder"], self._walk_back(settings), "redraw")

    def _best(self, small: Float[np.ndarray, "M h w C"], wanted: Float[np.ndarray, "#M D"], settings: Settings):
        """Of every `candidates` pictures the one whose embedding is nearest to what was `wanted` [Ramesh21, sec.
        2.6]."""
        if settings.candidates == 1:
            return small
        embedded = _there(self.stages.clip).encode_image(to_pixels(small))
        nearness = (embedded * wanted).sum(-1) / np.linalg.norm(embedded, axis=-1)
        first = np.arange(0, len(small), settings.candidates)
        return small[first + nearness.reshape(-1, settings.candidates).argmax(1)]

    def enlarge(
        self,
        small: Float[np.ndarray, "N h w C"],
        key: PRNGKey,
        known: UInt8[np.ndarray, "H W C"] | None = None,
        free: Bool[np.ndarray, "H W 1"] | None = None,
    ) -> Pictures:
        """Small pictures [-1, 1] through the upsamplers; what is `known` and not `free` stays, as far as one can see
        at each size."""
        for i, stage in enumerate(self.stages.upsamplers):
            self.progress(f"upsampler to {small.shape[1] * stage.config.factor} px")
            parts = None
            if known is not None:
                parts = _keep(known, free, small.shape[1] * stage.config.factor, len(small))
            small = stage.upsample(small, jax.random.fold_in(key, i), keep=parts)
        return to_pixels(small)

    # Settings and sizes

    def _sampling(self, settings: Settings) -> Sampling:
        given = {name: getattr(settings, name) for name in ("guidance", "steps", "eta")}
        own = _there(self.stages.decoder).config.sampling
        return replace(own, **{name: value for name, value in given.items() if value is not None})

    def _walk_back(self, settings: Settings) -> Sampling:
        """DDIM without guidance, which takes an inverted picture back to where it came from; of the decoder's guidance
        the share eta, as fresh noise has to be told what the inverted noise knew."""
        own = self._sampling(settings)
        guidance = 1 + own.eta * (own.guidance - 1) if settings.guidance is None else settings.guidance
        return replace(own, sampler="ddim", guidance=guidance)

    @property
    def _decoder_size(self) -> int:
        return _there(self.stages.decoder).config.net.unet.image_size

    def _fit(self, image: UInt8[np.ndarray, "H W C"]) -> UInt8[np.ndarray, "S S C"]:
        """The middle square at the size of what is drawn."""
        return resize_short_side(center_crop(image, min(image.shape[:2])), self.image_size)


def _there(stage: Any) -> Any:
    assert stage is not None  # `require_stages` said so
    return stage


def _keys(seed: int) -> dict[str, PRNGKey]:
    require(0 <= seed < 2**32, f"seed={seed}: expected 0 to {2**32 - 1}")
    names = ("prior", "decoder", "upsamplers")
    return dict(zip(names, jax.random.split(jax.random.key(seed), len(names)), strict=True))


_between = jax.jit(jax.vmap(interpolate.slerp, (None, None, 0)))
_turned = jax.jit(jax.vmap(interpolate.text_diff, (None, None, None, 0)))


def _shrunk(images: np.ndarray, size: int) -> Float[np.ndarray, "N S S C"]:
    return np.asarray(upsampler.shrink(images / np.float32(127.5) - 1, images.shape[1] // size))


def _keep(known, free, size: int, num: int) -> dict[str, np.ndarray]:
    """A picture at `size`, and the mask of the pixels that are to stay: those of which nothing is free."""
    factor = known.shape[0] // size
    mask = 1 - free.reshape(size, factor, size, factor, 1).any(axis=(1, 3)).astype(np.float32)
    return {"image": np.repeat(_shrunk(known[None], size), num, 0), "mask": np.repeat(mask[None], num, 0)}
