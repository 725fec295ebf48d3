"""What a net over latents is trained on: latents of pictures and states of captions, each computed once, and which
autoencoder and text encoders they are of."""

import functools
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flaxgen.family import coded
from flaxgen.family.codec import affine
from flaxgen.family.companions import Cached, Joined, check_companion, companion_file, open_cache
from flaxgen.family.matching import open_matching
from flaxgen.family.trained import Files
from flaxgen.train.config import require
from flaxgen.types import Source
from flaxgen.zoo.latent.buckets import Bucketed, as_bucketed, check_buckets
from flaxgen.zoo.latent.config import SIZES, Config, condition_spec, num_labels, reads_text, tells_sizes
from flaxgen.zoo.latent.model import init_params, load_t5, text_encoders
from flaxgen.zoo.latent.statistics import SCALES, scales_of
from flaxgen.zoo.latent.text import make_encoder

TEXT = "text"
"""What the text encoders are called in the file that names them."""
MEASURED = 4096
"""Examples by which the scale of latents is measured."""


def check_size(config: Config, autoencoder: Any) -> None:
    """Raises ValueError unless net and buckets are of the size that the pictures' latents have."""
    side = config.data.image_size / autoencoder.config.net.factor
    require(
        config.net.image_size == side,
        f"net.image_size={config.net.image_size}: latents of data.image_size={config.data.image_size} are {side:g} a "
        f"side, as the autoencoder's factor is {autoencoder.config.net.factor}: set both alike",
    )
    factor = autoencoder.config.net.factor
    check_buckets(config, factor)
    by_height, by_width = sorted(config.buckets), sorted(config.buckets, key=lambda size: size[1])
    for height, width in {*by_height[-1:], *by_width[-1:]}:  # the net refuses what it does not take, if any
        init = functools.partial(init_params, config, size=(height // factor, width // factor))
        jax.eval_shape(init, jax.random.key(0))


def open_latents(config: Config, autoencoder: Any) -> Cached | Bucketed:
    """The latents of all examples."""
    encoder, own = autoencoder.encoder, config.data
    require("latent" in encoder.fields, "the autoencoder has codes: choose one without, or train a prior over them")
    root = Path(config.cache or Path(autoencoder.name) / "latents")
    sized = encoder._replace(see=lambda data: data, fingerprint=f"{encoder.fingerprint}-{own.image_size}")
    if not config.buckets:
        return Cached(*open_cache(sized, own, root))
    factor = autoencoder.config.net.factor
    return Bucketed(Cached(*open_cache(as_bucketed(sized, config, factor), own, root)), config, factor)


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


def measured(config: Config, autoencoder: Any) -> Files:
    """The file with the mean and deviation of each channel of the data's latents.

    Raises:
        ValueError: if a channel is always the same.
    """
    latents = open_latents(config, autoencoder).drawn("latent", MEASURED).astype(np.float64)
    scales = {"mean": latents.mean((0, 1, 2)), "std": latents.std((0, 1, 2))}
    require(bool((scales["std"] > 0).all()), "a channel of the latents is always the same: train another autoencoder")
    return {SCALES: json.dumps({name: value.tolist() for name, value in scales.items()}).encode()}


def open_joined(config: Config, files: Files, autoencoder: Any, captioned: bool) -> Source:
    """Latents of the pictures, scaled, with what the net reads beside them, unless `captioned` without captions.

    Raises:
        ValueError: if the data cannot be read, or do not fit the net.
    """
    check_size(config, autoencoder)
    cached = open_latents(config, autoencoder)
    mean, scale = affine(scales_of(files) or autoencoder.config.latents, config.net.out_channels)
    more = (SIZES,) if tells_sizes(config) else ()

    def read(example):
        return {"latent": (example["latent"] - mean) * scale, **{name: example[name] for name in more}}

    parts: list = [(cached, read)]
    if captioned and reads_text(config):
        names = [name for name in condition_spec(config) if name != "label"]
        parts.append((open_states(config), lambda example: {name: example[name] for name in names}))
    if classes := num_labels(config):
        labelled = open_matching(config.data, {"label": ()}, classes)
        parts.append((labelled, lambda example: {"label": example["label"]}))
    return Joined(*parts)


def check_fits(config: Config, autoencoder: Any) -> None:
    """Raises ValueError unless the net is for latents like those of the autoencoder."""
    net, channels = config.net, autoencoder.config.net.latent_dim
    require(
        net.out_channels == channels,
        f"net.out_channels={net.out_channels}: the autoencoder's latents have {channels} channels",
    )


def name_of(clips: tuple[Any, ...], t5: Any = None) -> str:
    """What tells these text encoders from others."""
    return "+".join(reader.fingerprint for reader in ((*clips, t5) if t5 else clips))


def check_names(files: Files, autoencoder: Any, clips: tuple[Any, ...], t5: Any = None) -> None:
    """Raises ValueError unless these are the ones that a net was trained with; one that is imported does not say."""
    if companion_file(coded.AUTOENCODER) in files:
        check_companion(files, coded.AUTOENCODER, autoencoder.fingerprint)
    if companion_file(TEXT) in files:
        check_companion(files, TEXT, name_of(clips, t5))
