"""A model of latent diffusion with all its parts, and which parts belong together."""

from collections.abc import Container
from typing import Any

from flaxgen.data import Data
from flaxgen.family.composite import Assembled, Parts
from flaxgen.family.request import Request
from flaxgen.train.config import require
from flaxgen.zoo.latent import control, drawing
from flaxgen.zoo.latent.config import Config, reads_text
from flaxgen.zoo.latent.sources import check_fits, check_names

ENCODERS = ("clip", "clip_2")
"""The parts that are text encoders."""
VISION = "vision"
"""The part that embeds pictures."""


class Whole(Assembled):
    """A model of latent diffusion with all its parts: Stable Diffusion is one."""

    @property
    def whole(self) -> drawing.Parts:
        """What draws; ValueError where a part is missing."""
        named = [name for name in ENCODERS if name in self.parts]
        for name in ("denoiser", "autoencoder"):
            require(name in self.parts, f"this model lacks the part {name!r}: add it with `flaxgen compose`")
        denoiser: Any = self.parts["denoiser"]
        missing = _missing_encoder(denoiser.config, {name: self.parts[name] for name in named})
        require(not missing, f"this model lacks the part {missing!r}, a text encoder that its net was made for: add it "
                "with `flaxgen compose`")  # fmt: skip
        is_seen = denoiser.config.image_embedding is None or VISION in self.parts
        require(is_seen, f"this model lacks the part {VISION!r}, the CLIP whose embeddings of pictures its net reads: "
                "add it with `flaxgen compose`")  # fmt: skip
        clips = tuple(self.parts[name] for name in named)
        more: dict[str, Any] = {name: self.parts.get(name) for name in (*control.NAMES, "refiner", "t5", VISION)}
        return drawing.Parts(denoiser, self.parts["autoencoder"], clips, tuple(named), **more)

    @property
    def data(self) -> Data:
        """What its net was trained on."""
        return self.whole.config.data

    def unseen_words(self, request: Request) -> tuple[str, ...]:
        """The words of a request that its text encoder has never seen in training."""
        clip: Any = self.parts.get("clip")
        named = (getattr(request, name, None) or "" for name in ("caption", "caption_to"))
        said = getattr(request, "captions", None) or tuple(named)
        return () if clip is None else clip.unseen_words_in(said)


def _missing_encoder(config: Config, clips: Parts) -> str:
    """The name of a text encoder without which the net cannot be told what it reads, "" where all are there."""
    if not reads_text(config):
        return ""
    if not clips:
        return ENCODERS[0]
    known = sum(clip.config.net.text.width for clip in clips.values())
    is_short = not config.text.t5_places and known < config.net.token_dim
    return next((name for name in ENCODERS if name not in clips), "") if is_short else ""


def check_parts(parts: Parts) -> None:
    """Raises ValueError unless the net was trained with the other parts."""
    if "denoiser" in parts and "autoencoder" in parts:
        check_fits(parts["denoiser"].config, parts["autoencoder"])
        clips = tuple(parts[name] for name in ENCODERS if name in parts)
        check_names(parts["denoiser"].files, parts["autoencoder"], clips, parts.get("t5"))
        if "t5" in parts:
            check_t5(parts["denoiser"].config, parts["t5"].config.net.width)
        for name in control.NAMES:
            if name in parts:
                factor = parts["autoencoder"].config.net.factor
                control.check_fits(parts[name].config.net, parts["denoiser"].config.net, factor)
        if VISION in parts:
            check_vision(parts["denoiser"].config, parts[VISION].config.net)
        check_shown(parts["denoiser"].config, parts)
        if "refiner" in parts:
            check_refiner(parts["refiner"].config, parts["denoiser"].config, clips)


def check_refiner(config: Config, base: Config, clips: tuple[Any, ...]) -> None:
    """Raises ValueError unless the refiner goes on with what the denoiser begins, and reads the last text encoder."""
    require(config.process == base.process, f"refiner was trained on {config.process}, and the denoiser on "
            f"{base.process}: expected the same noise")  # fmt: skip
    channels = base.net.out_channels
    require(config.net.in_channels == channels, f"refiner reads {config.net.in_channels} channels, and the denoiser's "
            f"latents have {channels}")  # fmt: skip
    require(config.image_embedding is None, "refiner reads embeddings of pictures, which it is not told: leave it out")
    require(reads_text(config) and bool(clips), "refiner reads captions: give it and the denoiser a text encoder")
    width = clips[-1].config.net.text.width
    require(config.net.token_dim in (0, width), f"refiner reads states {config.net.token_dim} wide, and those of the "
            f"last text encoder are {width} wide")  # fmt: skip


def check_t5(config: Config, width: int) -> None:
    """Raises ValueError unless the denoiser reads a T5 whose states are so wide."""
    places, wide = config.text.t5_places, config.net.token_dim
    require(places > 0, "t5: this denoiser reads no T5 (its text.t5_places is 0): leave it out")
    require(width == wide, f"t5 has states {width} wide, and the denoiser reads {wide}: it was made for another T5")


def check_shown(config: Config, parts: Container[str]) -> None:
    """Raises ValueError where a denoiser that reads a picture's embedding alone has parts that say something else."""
    how = config.image_embedding
    for name in (*ENCODERS, "t5", "refiner", *control.NAMES) if how is not None and how.place == "token" else ():
        require(name not in parts, f"{name}: this denoiser reads the embedding of a picture alone, leave it out")


def check_vision(config: Config, net: Any) -> None:
    """Raises ValueError unless the denoiser reads embeddings of pictures by such a CLIP."""
    how = config.image_embedding
    require(how is not None, f"{VISION}: this denoiser reads no embeddings of pictures: leave it out")
    require(net.vision is not None, f"{VISION} is a CLIP that reads captions alone: expected one with a vision tower")
    expected = config.net.token_dim if how and how.place == "token" else config.net.vector_dim // 2
    require(net.embedding_dim == expected, f"{VISION} has embeddings {net.embedding_dim} wide, and the denoiser reads "
            f"{expected}: it was made for another CLIP")  # fmt: skip
