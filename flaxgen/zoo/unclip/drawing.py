"""The stages of an unCLIP, each given what the one before made [Ramesh22, sec. 2].

Pictures go in and out as uint8 [N H W 3]. Every stage is one compiled program for each shape and number of steps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, UInt8

from flaxgen.data import Data, to_pixels
from flaxgen.data.transforms import middle_square
from flaxgen.diffusion.degrade import downsample
from flaxgen.diffusion.times import check_steps
from flaxgen.family.composite import Assembled
from flaxgen.family.drawing import nearest
from flaxgen.family.request import Request
from flaxgen.family.sampling import Sampling
from flaxgen.family.trained import Progress
from flaxgen.types import PRNGKey

PRIORS = {"diffusion": "prior", "autoregressive": "ar_prior"}
"""What takes captions to image embeddings, and the part that does."""
UPSAMPLERS = ("upsampler_1", "upsampler_2")
CAPTIONS = ("captions", "caption", "caption_from", "caption_to")
"""Fields of requests that the CLIP reads."""
VERBS = "draw, vary, blend, edit, inpaint, outpaint"
Pictures = UInt8[np.ndarray, "N S S 3"]
Condition = Mapping[str, np.ndarray]


class Model(Assembled):
    """A trained unCLIP."""

    @property
    def image_size(self) -> int:
        """Pixels of a side of what is drawn."""
        self.require_parts("decoder")
        size = self.decoder_size
        for stage in self.upsamplers:
            size *= stage.config.factor
        return size

    @property
    def decoder_size(self) -> int:
        """Pixels of a side of what the decoder draws."""
        return self.parts["decoder"].config.net.unet.image_size

    @property
    def upsamplers(self) -> tuple[Any, ...]:
        """From small to large, as far as none is missing."""
        names = UPSAMPLERS[: next((i for i, name in enumerate(UPSAMPLERS) if name not in self.parts), None)]
        return tuple(self.parts[name] for name in names)

    def sampling(self, guidance: float | None, steps: int | None, eta: float | None = None) -> Sampling:
        """The decoder's own settings with those that were asked for.

        Raises:
            ValueError: if there are more steps than its table has.
        """
        asked = {"guidance": guidance, "steps": steps, "eta": eta}
        decoder = self.parts["decoder"].config
        chosen = replace(decoder.sampling, **{name: value for name, value in asked.items() if value is not None})
        check_steps(chosen.steps, decoder.process.timesteps)
        return chosen

    def sampling_back(self, guidance: float | None, steps: int | None, eta: float | None = None) -> Sampling:
        """DDIM without guidance, which takes an inverted picture back to where it came from; of the decoder's guidance
        the share eta, as fresh noise does not know what the inverted noise knew."""
        own = self.sampling(guidance, steps, eta)
        share = 1 + own.eta * (own.guidance - 1) if guidance is None else guidance
        return replace(own, sampler="ddim", guidance=share)

    @property
    def data(self) -> Data:
        """What its decoder was trained on, at the size of what is drawn."""
        own = self.parts["decoder"].config.data
        return replace(own, image_size=self.image_size, resize=0, random_crop=False)

    def unseen_words(self, request: Request) -> tuple[str, ...]:
        """The words of a request that its CLIP has never seen in training."""
        said = [value for name in CAPTIONS if (value := getattr(request, name, ()))]
        captions = [caption for value in said for caption in ((value,) if isinstance(value, str) else value)]
        clip: Any = self.parts.get("clip")
        return () if clip is None else clip.unseen_words_in(captions)

    def require_parts(self, *names: str) -> None:
        """Raises ValueError naming the first part that is missing, and which verbs work without it."""
        for name in names:
            if name not in self.parts:
                if name in PRIORS.values():
                    others = [through for through, prior in PRIORS.items() if prior in self.parts]
                    works = f"vary, blend and edit still work, and draw through {' or '.join([*others, 'text'])}"
                else:
                    works = f"{VERBS} all need it, add it with `flaxgen compose`"
                raise ValueError(f"this model lacks the part {name!r}: {works}")


class Drawing(NamedTuple):
    """One answer to a request: the model, the keys of its stages, and what is called with the name of each."""

    model: Model
    keys: dict[str, PRNGKey]
    progress: Progress

    # What the decoder reads

    def text(self, captions: Sequence[str], num: int = 1) -> dict[str, np.ndarray]:
        """What the captions say, each `num` times."""
        self.progress("text")
        fields = self.part("clip").text_fields(captions)
        return {name: np.repeat(value, num, 0) for name, value in fields.items()}

    def with_image(self, text: Condition, through: str, prior_guidance: float | None) -> dict[str, np.ndarray]:
        """The captions, and an image embedding that fits them: drawn by a prior, the caption's own as if it were a
        picture's, or none [Ramesh22, sec. 5.1]."""
        num, dim = text["text_embedding"].shape
        if through == "nothing":
            return {**text, "image_embedding": np.zeros((num, dim), np.float32), "has_image": np.zeros(num, bool)}
        if through == "text":
            return {**text, "image_embedding": text["text_embedding"]}
        prior = self.part(PRIORS[through])
        self.progress("prior")
        sampling = prior.config.sampling
        if prior_guidance is not None:
            sampling = replace(sampling, guidance=prior_guidance)
        return {**text, "image_embedding": prior.draw_embeddings(text, self.keys["prior"], sampling=sampling)}

    def of_pictures(self, images: Pictures) -> dict[str, np.ndarray]:
        """Pictures' own embeddings and no caption."""
        self.progress("clip")
        empty = {name: np.repeat(value, len(images), 0) for name, value in self._empty().items()}
        embedded = self.part("clip").encode_image(images)
        return {**empty, "image_embedding": embedded, "has_text": np.zeros(len(images), bool)}

    def part(self, name: str) -> Any:
        """A part of the model.

        Raises:
            ValueError: if it is missing.
        """
        self.model.require_parts(name)
        return self.model.parts[name]

    def _empty(self) -> dict[str, np.ndarray]:
        return {name: value[None] for name, value in self.part("clip").empty_text().items()}

    # Small pictures

    def decode(self, condition: Condition, sampling: Sampling, task: str = "draw") -> Float[np.ndarray, "N H W C"]:
        """Small pictures of each row of the condition."""
        self.progress("decoder")
        decoder, key = self.part("decoder"), self.keys["decoder"]
        return decoder.generate(condition, key, empty=self._empty(), sampling=sampling, task=task)

    def invert(self, images: Pictures, condition: Condition, steps: int | None) -> Float[np.ndarray, "N s s C"]:
        """The noise that DDIM takes pictures back to."""
        self.progress("inversion")
        condition = {**condition, "image": _shrunk(images, self.model.decoder_size)}
        sampling = self.model.sampling_back(1.0, steps)
        decoder, empty = self.part("decoder"), self._empty()
        return decoder.generate(condition, jax.random.key(0), empty=empty, sampling=sampling, task="invert")

    def redraw(self, condition: Condition, between: Condition, sampling: Sampling) -> Float[np.ndarray, "N H W C"]:
        """Small pictures from inverted noise `x_T`, with what is in `between` instead of the first condition's."""
        rest = {name: np.repeat(value[:1], len(between["x_T"]), 0) for name, value in condition.items()}
        return self.decode({**rest, **between}, sampling, "redraw")

    def best(self, small: Float[np.ndarray, "M h w C"], wanted: Float[np.ndarray, "#M D"], candidates: int):
        """Of every `candidates` pictures the one whose embedding is nearest to what was `wanted` [Ramesh21, sec.
        2.6]."""
        if candidates == 1:
            return small
        return small[nearest(self.part("clip").cosines(to_pixels(small), wanted), candidates)]

    # Large pictures

    def enlarge(
        self,
        small: Float[np.ndarray, "N h w C"],
        known: UInt8[np.ndarray, "H W C"] | None = None,
        free: Bool[np.ndarray, "H W 1"] | None = None,
    ) -> Pictures:
        """Small pictures [-1, 1] through the upsamplers; what is `known` and not `free` stays, as far as one can see
        at each size."""
        for i, stage in enumerate(self.model.upsamplers):
            size = small.shape[1] * stage.config.factor
            self.progress(f"upsampler to {size} px")
            parts = None if known is None else keep(known, free, size, len(small))
            small = stage.upsample(small, jax.random.fold_in(self.keys["upsamplers"], i), keep=parts)
        return to_pixels(small)

    def fit(self, image: UInt8[np.ndarray, "H W C"]) -> UInt8[np.ndarray, "S S C"]:
        """The middle square at the size of what is drawn."""
        return middle_square(image, self.model.image_size, self.part("decoder").config.data.filter)


def begin(model: Model, seed: int, progress: Progress) -> Drawing:
    """The answer to a request with this seed.

    Raises:
        ValueError: if a part that every verb needs is missing.
    """
    model.require_parts("clip", "decoder")
    names = ("prior", "decoder", "upsamplers")
    return Drawing(model, dict(zip(names, jax.random.split(jax.random.key(seed), len(names)), strict=True)), progress)


def _shrunk(images: np.ndarray, size: int) -> Float[np.ndarray, "N S S C"]:
    factor = images.shape[1] // size
    return np.asarray(jax.vmap(lambda image: downsample(image, factor))(images / np.float32(127.5) - 1))


def keep(known, free, size: int, num: int) -> dict[str, np.ndarray]:
    """A picture at `size`, and the mask of the pixels that are to stay: those of which nothing is free."""
    factor = known.shape[0] // size
    mask = 1 - free.reshape(size, factor, size, factor, 1).any(axis=(1, 3)).astype(np.float32)
    return {"image": np.repeat(_shrunk(known[None], size), num, 0), "mask": np.repeat(mask[None], num, 0)}
