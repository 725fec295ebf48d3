"""Latent diffusion as a family: what its runs are, and the model made of its parts [Rombach22]."""

import dataclasses
from collections.abc import Callable, Container
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from flaxgen.data import FREE
from flaxgen.family import coded
from flaxgen.family.companions import check_companion, companion_file, load_companion
from flaxgen.family.composite import Composite, Part
from flaxgen.family.family import Family
from flaxgen.family.matching import open_matching
from flaxgen.family.trained import Files, Handler, Progress
from flaxgen.train.config import require
from flaxgen.types import Params, PRNGKey, Source
from flaxgen.zoo.autoencoder import FAMILY as AUTOENCODER
from flaxgen.zoo.clip import FAMILY as CLIP
from flaxgen.zoo.latent import blending, control, drawing, enlarging
from flaxgen.zoo.latent.adapt import adapted
from flaxgen.zoo.latent.config import (
    BesideConfig,
    Config,
    batch_spec,
    check_sampling,
    fills_in,
    imitates_guidance,
    num_labels,
    of_class,
    reads_text,
)
from flaxgen.zoo.latent.model import Model, init_params, load_t5, make_loss, text_encoders
from flaxgen.zoo.latent.preservation import Paired
from flaxgen.zoo.latent.requests import (
    BlendLatent,
    Captioned,
    DrawLatent,
    InpaintLatent,
    OutpaintLatent,
    Sampled,
    SampleLatent,
    UpscaleLatent,
    VaryLatent,
    check_request,
    used,
)
from flaxgen.zoo.latent.sources import (
    TEXT,
    check_fits,
    check_names,
    check_size,
    measured,
    name_of,
    open_joined,
)
from flaxgen.zoo.latent.statistics import LABELS, SCALES, STATISTICS
from flaxgen.zoo.latent.whole import ENCODERS, Whole, check_parts
from flaxgen.zoo.t5 import FAMILY as T5

BASE = "base"
"""What the net is called that a run trains something beside, and the field of a config that says where it lies."""
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


def prepare(config: Config, found: Files) -> Files:
    """The names of autoencoder and text encoders, and of a net that is new how latents are scaled: by the mean and
    deviation of each of their channels. One that began elsewhere keeps the scale it was trained with: an imported net
    that of its autoencoder.

    Raises:
        ValueError: if one of them is not there, does not fit the net, or is not the one found.
    """
    require(not imitates_guidance(config), "net.guidance_dim is above 0: a net that imitates guidance is imported, and "
            "not trained here")  # fmt: skip
    require(not fills_in(config), f"net.in_channels={config.net.in_channels}: a net that fills in is imported, and not "
            "trained here")  # fmt: skip
    require(config.image_embedding is None, "image_embedding is set: a net that reads embeddings of pictures is "
            "imported, and not trained here")  # fmt: skip
    if config.start and FAMILY.reads(Path(config.start)):
        check_same_net(config, FAMILY.read_config(Path(config.start))[0], config.start)
    autoencoder = load_autoencoder(config)
    check_size(config, autoencoder)
    files = {**found, **check_companion(found, coded.AUTOENCODER, autoencoder.fingerprint)}
    if reads_text(config):
        files |= check_companion(found, TEXT, name_of(text_encoders(config), load_t5(config)))
    is_new = not (config.start or found)
    return {**measured(config, autoencoder), **files} if is_new else files


def check_same_net(config: Config, other: Config, place: str) -> None:
    """Raises ValueError unless the net is the one whose weights lie there: what has no shape, such as how many heads
    share a width, would be noticed by no tensor."""
    ours, theirs = config.image_embedding, other.image_embedding
    require(ours == theirs, f"image_embedding={ours}: the net in {place} has {theirs}, and is not trained here")
    for field in dataclasses.fields(config.net):
        ours, theirs = getattr(config.net, field.name), getattr(other.net, field.name, "no such field")
        require(
            ours == theirs or field.name in NOT_WEIGHTS,
            f"net.{field.name}={ours}: the net in {place} has {theirs}, set it alike",
        )


def load_base(config: BesideConfig) -> Model:
    """The net.

    Raises:
        ValueError: if it is not there, or another net than the config's.
    """
    require(bool(config.base), "base is not set: name the net that stays, such as --set base=models/sd/denoiser")
    found = load_companion(FAMILY, config.base)
    check_same_net(config, found.config, config.base)
    return found


def base_params(config: BesideConfig, key: PRNGKey) -> Params:
    """The weights of the net; where the key is none yet, as in tracing for shapes, it need not be there."""
    if isinstance(key, Tracer):
        like = FAMILY.abstract_params(config)
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
    return load_base(config).params


def prepare_beside(config: BesideConfig, found: Files) -> Files:
    """The small files of the net, and its name.

    Raises:
        ValueError: if what the config names is not there, does not fit, or is not what was found.
    """
    base = load_base(config)
    named = check_companion(found, BASE, base.fingerprint)
    return prepare(config, {**base.files, **found, **named})


def base_of(run: Any) -> Model:
    """The net of a run's model, which draws as the run says, at its step and on its devices.

    Raises:
        ValueError: if the net is not there, or not the one that the run began with.
    """
    base = load_base(run.config)
    check_companion(run.files, BASE, base.fingerprint)
    own = {name: getattr(run, name) for name in ("config", "step", "plan", "files", "name")}
    return dataclasses.replace(base, **own)


def open_source(family: Family, config: Config, files: Files, captioned: bool = True) -> Source:
    """Latents of the pictures, scaled, with what the net reads beside them, unless `captioned` without captions, and
    the same of class pictures.

    Raises:
        ValueError: if the data cannot be read, or do not fit the net.
    """
    if config.prior_data is not None:
        own = replace(config, prior_data=None)
        return Paired(open_source(family, own, files), open_source(family, of_class(config), files))
    return open_joined(config, files, load_autoencoder(config), captioned)


def parts_of_run(model: Model) -> drawing.Parts:
    """What draws with a net's own run or model directory, from where its config says."""
    config = model.config
    autoencoder, clips = load_autoencoder(config), text_encoders(config) if reads_text(config) else ()
    t5 = load_t5(config)
    check_names(model.files, autoencoder, clips, t5)
    return drawing.Parts(model, autoencoder, clips, ENCODERS[: len(clips)], t5=t5)


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
    answer: Callable[[drawing.Parts, Any, Progress], Any],
    parts: Callable[[Any], drawing.Parts] = parts_of_run,
    named: Container[str] = (),
) -> Handler:
    """How a net by itself answers, with what its config names, and the parts `named`."""

    def check(config: Config, request: Any) -> None:
        require(
            bool(config.autoencoder),
            "this is the net over latents alone: draw with the model that `flaxgen compose DIR denoiser=... "
            "autoencoder=... clip=...` makes of it, the autoencoder and the text encoder",
        )
        check_request(config, request, named)

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
    BlendLatent: blending.blend,
    InpaintLatent: drawing.inpaint,
    OutpaintLatent: enlarging.outpaint,
    UpscaleLatent: enlarging.upscale,
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
    files=(SCALES, STATISTICS, LABELS, companion_file(coded.AUTOENCODER), companion_file(TEXT)),
    companions={coded.AUTOENCODER: AUTOENCODER, "clip": CLIP, "clip_2": CLIP, "t5": T5},
    free=frozenset(
        {"sampling", "autoencoder", "clip", "clip_2", "t5", "cache", *(f"prior_data.{name}" for name in FREE)}
    ),
    preview=preview,
    model=Model,
    requests={kind: alone(answer) for kind, answer in ANSWERS.items()},
)

BESIDE_FILES = (*FAMILY.files, companion_file(BASE))
BESIDE_COMPANIONS = {**FAMILY.companions, BASE: FAMILY}
BESIDE_FREE = FAMILY.free | {BASE}
"""What families whose runs train something beside a net declare of it."""


def _together(answer: Callable[[drawing.Parts, Any, Progress], Any]) -> Handler:
    return Handler(
        lambda model, request, progress: answer(_adapted(model.whole, request), request, progress),
        lambda model, request: check_request(model.whole.config, request, model.parts),
        lambda request: 4,
        lambda model, request: used(model.whole.config, request),
    )


WHOLE = Composite(
    name="latent_diffusion",
    parts={
        "autoencoder": Part(AUTOENCODER),
        "clip": Part(CLIP),
        "clip_2": Part(CLIP),
        "denoiser": Part(FAMILY),
        **{name: Part(control.FAMILY) for name in control.NAMES},
        "refiner": Part(FAMILY),
        "t5": Part(T5),
        "vision": Part(CLIP),
    },
    model=Whole,
    check=check_parts,
    requests={kind: _together(answer) for kind, answer in ANSWERS.items()},
)
