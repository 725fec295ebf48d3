"""Latent diffusion as a family: what its runs are, and the model made of its parts [Rombach22]."""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from flaxgen.data import FREE, Data
from flaxgen.family import coded
from flaxgen.family.codec import affine
from flaxgen.family.companions import Cached, Joined, check_companion, companion_file, load_companion, open_cache
from flaxgen.family.composite import Assembled, Composite, Part, Parts
from flaxgen.family.family import Family
from flaxgen.family.matching import open_matching
from flaxgen.family.request import Request
from flaxgen.family.trained import Files, Handler, Progress
from flaxgen.train.config import require
from flaxgen.types import PRNGKey, Source
from flaxgen.zoo.autoencoder import FAMILY as AUTOENCODER
from flaxgen.zoo.clip import FAMILY as CLIP
from flaxgen.zoo.latent import control, drawing
from flaxgen.zoo.latent.adapt import adapted
from flaxgen.zoo.latent.config import (
    Config,
    batch_spec,
    check_sampling,
    condition_spec,
    fills_in,
    num_labels,
    of_class,
    reads_text,
)
from flaxgen.zoo.latent.model import Model, init_params, load_t5, make_loss, text_encoders
from flaxgen.zoo.latent.preservation import Paired
from flaxgen.zoo.latent.requests import (
    Captioned,
    DrawLatent,
    InpaintLatent,
    Sampled,
    SampleLatent,
    VaryLatent,
    check_request,
    used,
)
from flaxgen.zoo.latent.text import make_encoder
from flaxgen.zoo.t5 import FAMILY as T5

ENCODERS = ("clip", "clip_2")
"""The parts that are text encoders."""
TEXT = "text"
"""What the text encoders are called in the file that names them."""
MEASURED = 4096
"""Examples by which the scale of latents is measured."""
PREVIEWED = 8
NOT_WEIGHTS = frozenset({"image_size", "dropout", "dtype", "remat", "parent", "name"})
"""Fields of a net that may differ where weights are the same."""


def load_autoencoder(config: Config) -> Any:
    """The autoencoder whose latents the net works on.

    Raises:
        ValueError: if it is not there, has codes, or other latents than the net reads.
    """
    found = load_companion(AUTOENCODER, config.autoencoder)
    check_fits(config, found)
    return found


def check_fits(config: Config, autoencoder: Any) -> None:
    """Raises ValueError unless the net is for latents like those of the autoencoder."""
    net, channels = config.net, autoencoder.config.net.latent_dim
    require(
        net.out_channels == channels,
        f"net.out_channels={net.out_channels}: the autoencoder's latents have {channels} channels",
    )


def _check_size(config: Config, autoencoder: Any) -> None:
    side = config.data.image_size / autoencoder.config.net.factor
    require(
        config.net.image_size == side,
        f"net.image_size={config.net.image_size}: latents of data.image_size={config.data.image_size} are {side:g} a "
        f"side, as the autoencoder's factor is {autoencoder.config.net.factor}: set both alike",
    )


def open_latents(config: Config, autoencoder: Any) -> Cached:
    """The latents of all examples."""
    encoder, own = autoencoder.encoder, config.data
    require("latent" in encoder.fields, "the autoencoder has codes: choose one without, or train a prior over them")
    root = Path(config.cache or Path(autoencoder.name) / "latents")
    sized = encoder._replace(see=lambda data: data, fingerprint=f"{encoder.fingerprint}-{own.image_size}")
    return Cached(*open_cache(sized, own, root))


def open_states(config: Config) -> Cached:
    """The states of all captions.

    Raises:
        ValueError: if they are not what the net reads.
    """
    clips, spec = text_encoders(config), condition_spec(config)
    encoder = make_encoder(config, clips, config.data.image_size, load_t5(config))
    cached = Cached(*open_cache(encoder, config.data, Path(config.cache or Path(clips[0].name) / "states")))
    for name in encoder.fields:
        found, expected = (list(shape) for shape in (cached.empty[name].shape, spec[name].shape))
        require(
            found == expected,
            f"the text encoders give {name} {found}, the net reads {expected}: set net.token_dim, net.vector_dim and "
            "context",
        )
    return cached


def prepare(config: Config, found: Files) -> Files:
    """The names of autoencoder and text encoders, and of a net that is new how latents are scaled: by the mean and
    deviation of each of their channels. One that began elsewhere keeps the scale it was trained with: an imported net
    that of its autoencoder.

    Raises:
        ValueError: if one of them is not there, does not fit the net, or is not the one found.
    """
    require(not fills_in(config), f"net.in_channels={config.net.in_channels}: a net that fills in is imported, and not "
            "trained here")  # fmt: skip
    if config.start and FAMILY.reads(Path(config.start)):
        check_same_net(config, FAMILY.read_config(Path(config.start))[0], config.start)
    autoencoder = load_autoencoder(config)
    _check_size(config, autoencoder)
    files = {**found, **check_companion(found, coded.AUTOENCODER, autoencoder.fingerprint)}
    if reads_text(config):
        files |= check_companion(found, TEXT, name_of(text_encoders(config), load_t5(config)))
    is_new = not (config.start or found)
    return {**measured(config, autoencoder), **files} if is_new else files


def measured(config: Config, autoencoder: Any) -> Files:
    """The file with the mean and deviation of each channel of the data's latents.

    Raises:
        ValueError: if a channel is always the same.
    """
    latents = open_latents(config, autoencoder).drawn("latent", MEASURED).astype(np.float64)
    scales = {"mean": latents.mean((0, 1, 2)), "std": latents.std((0, 1, 2))}
    require(bool((scales["std"] > 0).all()), "a channel of the latents is always the same: train another autoencoder")
    return {drawing.SCALES: json.dumps({name: value.tolist() for name, value in scales.items()}).encode()}


def check_same_net(config: Config, other: Config, place: str) -> None:
    """Raises ValueError unless the net is the one whose weights lie there: what has no shape, such as how many heads
    share a width, would be noticed by no tensor."""
    for field in dataclasses.fields(config.net):
        ours, theirs = getattr(config.net, field.name), getattr(other.net, field.name, "no such field")
        require(
            ours == theirs or field.name in NOT_WEIGHTS,
            f"net.{field.name}={ours}: the net in {place} has {theirs}, set it alike",
        )


def name_of(clips: tuple[Any, ...], t5: Any = None) -> str:
    """What tells these text encoders from others."""
    return "+".join(reader.fingerprint for reader in ((*clips, t5) if t5 else clips))


def open_source(family: Family, config: Config, files: Files) -> Source:
    """Latents of the pictures, scaled, with what the net reads beside them, and the same of class pictures.

    Raises:
        ValueError: if the data cannot be read, or do not fit the net.
    """
    if config.prior_data is not None:
        own = replace(config, prior_data=None)
        return Paired(open_source(family, own, files), open_source(family, of_class(config), files))
    autoencoder = load_autoencoder(config)
    _check_size(config, autoencoder)
    cached = open_latents(config, autoencoder)
    mean, scale = affine(drawing.scales_of(files) or autoencoder.config.latents, config.net.out_channels)
    parts: list = [(cached, lambda example: {"latent": (example["latent"] - mean) * scale})]
    if reads_text(config):
        names = [name for name in condition_spec(config) if name != "label"]
        parts.append((open_states(config), lambda example: {name: example[name] for name in names}))
    if classes := num_labels(config):
        labelled = open_matching(config.data, {"label": ()}, classes)
        parts.append((labelled, lambda example: {"label": example["label"]}))
    return Joined(*parts)


def parts_of_run(model: Model) -> drawing.Parts:
    """What draws with a net's own run or model directory, from where its config says."""
    config = model.config
    autoencoder, clips = load_autoencoder(config), text_encoders(config) if reads_text(config) else ()
    t5 = load_t5(config)
    _check_names(model.files, autoencoder, clips, t5)
    return drawing.Parts(model, autoencoder, clips, ENCODERS[: len(clips)], t5=t5)


def _check_names(files: Files, autoencoder: Any, clips: tuple[Any, ...], t5: Any = None) -> None:
    """Raises ValueError unless these are the ones that a net was trained with; one that is imported does not say."""
    if companion_file(coded.AUTOENCODER) in files:
        check_companion(files, coded.AUTOENCODER, autoencoder.fingerprint)
    if companion_file(TEXT) in files:
        check_companion(files, TEXT, name_of(clips, t5))


def preview(model: Model, key: PRNGKey) -> np.ndarray:
    """Pictures of the first captions of the data, or of all classes."""
    config, captions = model.config, []
    if reads_text(config):
        source = open_matching(config.data, {"text": ()}, 0)
        captions = [source[i]["text"] for i in range(min(PREVIEWED, len(source)))]
    return drawing.preview(parts_of_run(model), captions, key, 2 * PREVIEWED).sheet()


def _adapted(parts: drawing.Parts, request: Sampled) -> drawing.Parts:
    """The parts with what a request adds to them."""
    return adapted(parts, request.lora, request.word) if isinstance(request, Captioned) else parts


def alone(
    answer: Callable[[drawing.Parts, Any, Progress], Any], parts: Callable[[Any], drawing.Parts] = parts_of_run
) -> Handler:
    """How a net by itself answers, with what its config names."""

    def check(config: Config, request: Any) -> None:
        require(
            bool(config.autoencoder),
            "this is the net over latents alone: draw with the model that `flaxgen compose DIR denoiser=... "
            "autoencoder=... clip=...` makes of it, the autoencoder and the text encoder",
        )
        check_request(config, request)

    return Handler(
        lambda model, request, progress: answer(_adapted(parts(model), request), request, progress),
        check,
        lambda request: 3,
        lambda model, request: used(model.config, request),
    )


ANSWERS: dict[type[Sampled], Callable] = {
    SampleLatent: drawing.sample,
    DrawLatent: drawing.draw,
    VaryLatent: drawing.vary,
    InpaintLatent: drawing.inpaint,
}
FAMILY = Family(
    name="latent",
    config=Config,
    type_name="LatentDiffusion",
    init_params=init_params,
    batch_spec=batch_spec,
    make_loss=make_loss,
    classes=num_labels,
    check=lambda config: check_sampling(config, config.sampling),
    open_source=open_source,
    prepare=prepare,
    files=(drawing.SCALES, companion_file(coded.AUTOENCODER), companion_file(TEXT)),
    companions={coded.AUTOENCODER: AUTOENCODER, "clip": CLIP, "clip_2": CLIP, "t5": T5},
    free=frozenset(
        {"sampling", "autoencoder", "clip", "clip_2", "t5", "cache", *(f"prior_data.{name}" for name in FREE)}
    ),
    preview=preview,
    model=Model,
    requests={kind: alone(answer) for kind, answer in ANSWERS.items()},
)


class Whole(Assembled):
    """A model of latent diffusion with all its parts: Stable Diffusion is one."""

    @property
    def whole(self) -> drawing.Parts:
        """What draws; ValueError where a part is missing."""
        named = [name for name in ENCODERS if name in self.parts]
        for name in ("denoiser", "autoencoder"):
            require(name in self.parts, f"this model lacks the part {name!r}: add it with `flaxgen compose`")
        denoiser: Any = self.parts["denoiser"]
        missing = reads_text(denoiser.config) and not named
        require(not missing, "this model lacks the part 'clip', its text encoder: add it with `flaxgen compose`")
        clips = tuple(self.parts[name] for name in named)
        controlnet, t5 = self.parts.get("controlnet"), self.parts.get("t5")
        return drawing.Parts(denoiser, self.parts["autoencoder"], clips, tuple(named), controlnet=controlnet, t5=t5)

    @property
    def data(self) -> Data:
        """What its net was trained on."""
        return self.whole.config.data

    def unseen_words(self, request: Request) -> tuple[str, ...]:
        """The words of a request that its text encoder has never seen in training."""
        clip: Any = self.parts.get("clip")
        said = getattr(request, "captions", None) or (getattr(request, "caption", "") or "",)
        return () if clip is None else clip.unseen_words_in(said)


def _check_parts(parts: Parts) -> None:
    """Raises ValueError unless the net was trained with the other parts."""
    if "denoiser" in parts and "autoencoder" in parts:
        check_fits(parts["denoiser"].config, parts["autoencoder"])
        clips = tuple(parts[name] for name in ENCODERS if name in parts)
        _check_names(parts["denoiser"].files, parts["autoencoder"], clips, parts.get("t5"))
        if "t5" in parts:
            _check_t5(parts["denoiser"].config, parts["t5"].config.net.width)
        if "controlnet" in parts:
            factor = parts["autoencoder"].config.net.factor
            control.check_fits(parts["controlnet"].config.net, parts["denoiser"].config.net, factor)


def _check_t5(config: Config, width: int) -> None:
    places, wide = config.text.t5_places, config.net.token_dim
    require(places > 0, "t5: this denoiser reads no T5 (its text.t5_places is 0): leave it out")
    require(width == wide, f"t5 has states {width} wide, and the denoiser reads {wide}: it was made for another T5")


def _together(answer: Callable[[drawing.Parts, Any, Progress], Any]) -> Handler:
    return Handler(
        lambda model, request, progress: answer(_adapted(model.whole, request), request, progress),
        lambda model, request: check_request(model.whole.config, request, model.whole.controlnet is not None),
        lambda request: 3,
        lambda model, request: used(model.whole.config, request),
    )


WHOLE = Composite(
    name="latent_diffusion",
    parts={
        "autoencoder": Part(AUTOENCODER),
        "clip": Part(CLIP),
        "clip_2": Part(CLIP),
        "denoiser": Part(FAMILY),
        "controlnet": Part(control.FAMILY),
        "t5": Part(T5),
    },
    model=Whole,
    check=_check_parts,
    requests={kind: _together(answer) for kind, answer in ANSWERS.items()},
)
