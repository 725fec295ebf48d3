"""How an autoencoder answers, and the declaration of the family."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from flaxgen.data import to_pixels, unit_range
from flaxgen.family import perceptual
from flaxgen.family.drawing import walk_steps
from flaxgen.family.family import Family
from flaxgen.family.levels import BOTTOM, TOP, by_name
from flaxgen.family.matching import real_examples
from flaxgen.family.pictures import Pictures
from flaxgen.family.requests import check_beside, check_pictures, sampled
from flaxgen.family.trained import Handler, Progress
from flaxgen.metrics.picture import psnr
from flaxgen.train.config import require
from flaxgen.types import PRNGKey
from flaxgen.zoo.autoencoder import adversary, training
from flaxgen.zoo.autoencoder.config import (
    TYPE_NAMES,
    Config,
    batch_spec,
    check_size,
    latent_shape,
    of_levels,
    sides_of,
)
from flaxgen.zoo.autoencoder.mapping import Map, check_map, draw_map
from flaxgen.zoo.autoencoder.model import Model, check_draws, lost
from flaxgen.zoo.autoencoder.requests import (
    Anomaly,
    Decode,
    Encode,
    InterpolateLatents,
    Reconstruct,
    SampleLatents,
    check_reconstruct,
    pictures_of,
)

SHOWN = 8
"""Pictures of which a line says how odd they are."""


def sample(model: Model, request: SampleLatents, progress: Progress) -> Pictures:
    """What a request asks for."""
    progress("sampling")
    drawn = model.generate(jax.random.key(request.seed), request.numbers, std=request.std)
    return sampled(model, request, drawn)


def check_sample(config: Config, request: SampleLatents) -> None:
    """Raises ValueError unless such a model can do that."""
    check_draws(config)
    check_beside(config, request, are_points=False)


def reconstruct(model: Model, request: Reconstruct, progress: Progress) -> Pictures:
    """The pictures, beside what they were, with figures of all of them."""
    progress("encoding and decoding")
    images = pictures_of(model, request)
    seen = images
    if request.noise:
        keys = jax.random.split(jax.random.key(request.seed), len(images))
        seen = to_pixels(np.asarray(training.noisy(unit_range(jnp.asarray(images)), request.noise, keys)))
    back = model.autoencode(seen, request.tile)
    drawn = to_pixels(back)
    if request.noise:
        found = {name: float(np.mean(psnr(x, images, 255))) for name, x in (("psnr", drawn), ("psnr_noisy", seen))}
    else:
        found = lost(back, images) if request.whole else model.measure(images, request.bound)
    scores = tuple(np.asarray(psnr(drawn, images, 255)).tolist())
    note = ", ".join(f"{name} {value:.4g}" for name, value in found.items())
    return Pictures(drawn, beside=seen, scores=scores, note=note)


def encode(model: Model, request: Encode, progress: Progress) -> Pictures:
    """The codes or latents, in `extra`, with the pictures that they stand for."""
    progress("encoding")
    images = pictures_of(model, request)
    if model.config.bottleneck.num_codes:
        codes = model.encode_codes(images)
        extra, drawn = by_name(codes), model.decode_codes(codes)
    else:
        extra = {"latent": model.encode(images)}
        drawn = model.decode(extra["latent"])
    return Pictures(to_pixels(drawn), extra=extra | {"autoencoder": np.array(model.fingerprint)})


def decode(model: Model, request: Decode, progress: Progress) -> Pictures:
    """The pictures of what the file holds."""
    values = read_latents(model, Path(request.file))
    progress("decoding")
    if not model.config.bottleneck.num_codes:
        return Pictures(to_pixels(model.decode(values["latent"].astype(np.float32))))
    return Pictures(to_pixels(model.decode_codes(values if of_levels(model.config) else values["codes"])))


def read_latents(model: Model, path: Path) -> dict[str, np.ndarray]:
    """Codes, of each level by name, or latents from a file.

    Raises:
        ValueError: if it holds none that this autoencoder can decode.
        OSError: if it cannot be read.
    """
    sides, values = sides_of(model.config), _read_arrays(model, path)
    for name, found in values.items():
        shape = latent_shape(model.config) if name == "latent" else (sides[name],) * 2
        fits = found.ndim == len(shape) + 1 and found.shape[3:] == shape[2:] and len(found)
        is_kind = np.issubdtype(found.dtype, np.floating if name == "latent" else np.integer)
        require(bool(fits) and is_kind, f"{path} holds {found.dtype} {found.shape}: expected {name} of shape "
                f"[N {' '.join(map(str, shape))}]")  # fmt: skip
        factor = model.config.net.image_size // sides.get(name, latent_shape(model.config)[0])
        check_size(model.config, found.shape[1] * factor, found.shape[2] * factor, f"{path}: a picture")
    if of_levels(model.config):
        top, bottom = (values[name] for name in sides)
        wanted = (len(top), *(side * sides[BOTTOM] // sides[TOP] for side in top.shape[1:]))
        require(bottom.shape == wanted, f"{path} holds {TOP} {top.shape} and {BOTTOM} {bottom.shape}: expected "
                f"{BOTTOM} of shape {wanted}")  # fmt: skip
    return values


def _read_arrays(model: Model, path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file that have the names which its autoencoder gives them, by these."""
    names = tuple(sides_of(model.config)) if model.config.bottleneck.num_codes else ("latent",)
    try:
        loaded = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is no .npz or .npy file: expected one that `flaxgen encode` writes") from error
    if not isinstance(loaded, np.lib.npyio.NpzFile):
        require(len(names) == 1, f"{path} is one array: expected an .npz with {', '.join(names)}")
        return {names[0]: loaded}
    with loaded:
        lacking = [name for name in names if name not in loaded]
        require(not lacking, f"{path} holds {', '.join(loaded) or 'nothing'}: expected {', '.join(names)}")
        values = {name: loaded[name] for name in names}
        by = str(loaded["autoencoder"]) if "autoencoder" in loaded else ""
    require(by in ("", model.fingerprint), f"{path} was encoded by the autoencoder {by}, this one is "
            f"{model.fingerprint}: its codes mean something else")  # fmt: skip
    return values


def interpolate(model: Model, request: InterpolateLatents, progress: Progress) -> Pictures:
    """The frames of a walk along straight lines between what the encoder says of pictures."""
    progress("encoding and decoding")
    ends = model.features(pictures_of(model, request))
    left, right, weight = walk_steps(len(ends), request.frames, not request.once)
    features = ends[left] + weight[:, None, None, None] * (ends[right] - ends[left])
    return Pictures(to_pixels(model.decode_features(features)), layout="film", fps=request.fps)


def anomaly(model: Model, request: Anomaly, progress: Progress) -> Pictures:
    """Each picture, what is drawn of it, and where they differ; its score is the share of the training data of which
    less is lost."""
    progress("encoding and decoding")
    images, known = pictures_of(model, request), real_examples(model.config.data, "image", request.against)
    drawn, usual = to_pixels(model.autoencode(images)), to_pixels(model.autoencode(known))
    errors, ordinary = (_mean_square(a, b) for a, b in ((images, drawn), (known, usual)))
    shares = np.searchsorted(np.sort(ordinary), errors) / len(ordinary)
    apart = np.abs(images.astype(np.int16) - drawn).max(-1, keepdims=True).astype(np.uint8)
    shown = np.concatenate((images, drawn, np.repeat(apart, images.shape[-1], -1)), axis=2)
    most = np.argsort(-errors)[:SHOWN]
    said = ", ".join(f"{i} ({shares[i]:.1%})" for i in most)
    note = f"more is lost than of such a share of {len(known)} training examples, the worst first: {said}"
    return Pictures(shown, scores=tuple(shares.tolist()), note=note)


def _mean_square(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.mean((a.astype(np.float32) - b.astype(np.float32)) ** 2, axis=(1, 2, 3))


def preview(model: Model, key: PRNGKey) -> np.ndarray:
    """Pictures beside what becomes of them, or of a VAE its first samples."""
    if model.config.bottleneck.draws:
        return Pictures(to_pixels(model.generate(key, 16))).sheet()
    images = real_examples(model.config.data, "image", 16)
    return Pictures(to_pixels(model.autoencode(images)), beside=images).sheet()


ASKED = {
    SampleLatents: Handler(sample, check_sample),
    Reconstruct: Handler(reconstruct, check_reconstruct),
    Encode: Handler(encode, check_pictures),
    Decode: Handler(decode),
    InterpolateLatents: Handler(interpolate, check_pictures),
    Anomaly: Handler(anomaly, check_pictures),
    Map: Handler(draw_map, check_map, stages=lambda request: 3),
}
FAMILY = Family(
    name="autoencoder",
    config=Config,
    type_names=TYPE_NAMES,
    init_params=training.init_params,
    batch_spec=batch_spec,
    make_loss=training.make_loss,
    make_training=adversary.make_training,
    init_held=training.init_held,
    follow=training.follow,
    after_update=training.after_update,
    preview=preview,
    check=lambda config: perceptual.check_file(config.perceptual.net),
    free=frozenset({"batch"}),
    model=Model,
    requests=ASKED,
)
