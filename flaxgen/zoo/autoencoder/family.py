"""What an autoencoder can be asked, and the declaration of the family."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from flaxgen.data import to_pixels, unit_range
from flaxgen.family.family import Family
from flaxgen.family.matching import real_examples
from flaxgen.family.pictures import Pictures
from flaxgen.family.request import Clash, Request, option, pictures, positional
from flaxgen.family.requests import Sample, check_beside, sampled
from flaxgen.family.trained import Handler, Progress
from flaxgen.metrics.picture import psnr
from flaxgen.train.config import require
from flaxgen.types import PRNGKey
from flaxgen.zoo.autoencoder import training
from flaxgen.zoo.autoencoder.config import TYPE_NAMES, Config, batch_spec, latent_shape
from flaxgen.zoo.autoencoder.model import Model, check_draws

OF_DATA = "; none: examples of its data"


@dataclass(frozen=True, kw_only=True)
class SampleLatents(Sample):
    """Draw samples."""

    std: float = option(1.0, "of the latents that are drawn; below 1 all come nearer to the mean", above=0)


@dataclass(frozen=True, kw_only=True)
class OfPictures(Request):
    """What is asked of pictures, or of examples of the data."""

    model_first: ClassVar[bool] = True

    images: tuple[Any, ...] = pictures("pictures, of which the middle square is taken" + OF_DATA)
    num: int = option(16, "how many examples, where no pictures are named", least=1)
    split: str = option("test", "the split of these examples")
    data: str | None = option(None, "where they are", default_text="where they were in training", flag="data DIR")

    def __post_init__(self):
        super().__post_init__()
        if self.images and self.data is not None:
            raise Clash("{data} is where examples are, and pictures are named: give one of them", data=self.data)


@dataclass(frozen=True, kw_only=True)
class Reconstruct(OfPictures):
    """Encode and decode pictures."""

    verb: ClassVar[str] = "reconstruct"
    examples: ClassVar[tuple[str, ...]] = (
        "flaxgen reconstruct runs/vqvae a.png b.png --out out.png",
        "flaxgen reconstruct runs/vae --num 1000 --out out.npz",
    )
    out: ClassVar[str] = "reconstructed.png"

    noise: float = option(0.0, "standard deviation of noise to undo, in units of [-1, 1]", least=0)
    bound: int = option(1, "draws a picture for the bound on bits a number, of a VAE with a likelihood", least=1)


@dataclass(frozen=True, kw_only=True)
class Encode(OfPictures):
    """Pictures to codes, or to latents."""

    verb: ClassVar[str] = "encode"
    examples: ClassVar[tuple[str, ...]] = ("flaxgen encode runs/vqvae a.png b.png --out codes.npz",)
    out: ClassVar[str] = "codes.npz"


@dataclass(frozen=True, kw_only=True)
class Decode(Request):
    """Pictures of codes, or of latents."""

    verb: ClassVar[str] = "decode"
    examples: ClassVar[tuple[str, ...]] = ("flaxgen decode runs/vqvae codes.npz --out out.png",)
    model_first: ClassVar[bool] = True
    out: ClassVar[str] = "decoded.png"

    file: str = positional("an .npz of `flaxgen encode`, or an .npy of codes [N h w] or latents [N h w D]")


@dataclass(frozen=True, kw_only=True)
class InterpolateLatents(OfPictures):
    """Walk between pictures."""

    verb: ClassVar[str] = "interpolate"
    examples: ClassVar[tuple[str, ...]] = ("flaxgen interpolate runs/vae a.png b.png --frames 9 --out walk.png",)
    out: ClassVar[str] = "walk.gif"

    num: int = option(4, "how many examples, where no pictures are named", least=2)
    frames: int = option(60, "how many pictures in all", least=2)
    once: bool = option(False, "end at the last picture; else the walk goes back")
    fps: float = option(20.0, "frames a second of a .gif", above=0, most=50)

    def __post_init__(self):
        super().__post_init__()
        if len(self.images) == 1:
            raise ValueError("a walk needs two pictures or more, and one is named")


def sample(model: Model, request: SampleLatents, progress: Progress) -> Pictures:
    """What a request asks for."""
    progress("sampling")
    drawn = model.generate(jax.random.key(request.seed), request.numbers, std=request.std)
    return sampled(model, request, drawn)


def check_sample(config: Config, request: SampleLatents) -> None:
    """Raises ValueError unless such a model can do that."""
    check_draws(config)
    check_beside(config, request, are_points=False)


def check_pictures(config: Config, request: OfPictures) -> None:
    """Raises ValueError unless there are examples where no pictures are named."""
    if not request.images:
        _examples(config, request, 1)


def _examples(config: Config, request: OfPictures, num: int) -> np.ndarray:
    data = replace(config.data, split=request.split)
    data = data if request.data is None else replace(data, path=request.data)
    return real_examples(data, "image", num)


def pictures_of(model: Model, request: OfPictures) -> np.ndarray:
    """The pictures that are meant, uint8 [N H W C] at the model's size."""
    if not request.images:
        return _examples(model.config, request, request.num)
    channels = model.config.net.in_channels
    return model.fit([image.with_channels(channels) for image in request.images])


def reconstruct(model: Model, request: Reconstruct, progress: Progress) -> Pictures:
    """The pictures, beside what they were, with figures of all of them."""
    progress("encoding and decoding")
    images = pictures_of(model, request)
    seen = images
    if request.noise:
        keys = jax.random.split(jax.random.key(request.seed), len(images))
        seen = to_pixels(np.asarray(training.noisy(unit_range(jnp.asarray(images)), request.noise, keys)))
    drawn = to_pixels(model.reconstruct(seen))
    found = model.measure(images, request.bound) if not request.noise else {
        "psnr": float(np.mean(psnr(drawn, images, 255))), "psnr_noisy": float(np.mean(psnr(seen, images, 255)))
    }  # fmt: skip
    scores = tuple(np.asarray(psnr(drawn, images, 255)).tolist())
    note = ", ".join(f"{name} {value:.4g}" for name, value in found.items())
    return Pictures(drawn, beside=seen, scores=scores, note=note)


def encode(model: Model, request: Encode, progress: Progress) -> Pictures:
    """The codes or latents, in `extra`, with the pictures that they stand for."""
    progress("encoding")
    images = pictures_of(model, request)
    if model.config.bottleneck.num_codes:
        extra = {"codes": model.encode_codes(images)}
        drawn = model.decode_codes(extra["codes"])
    else:
        extra = {"latent": model.encode(images)}
        drawn = model.decode(extra["latent"])
    return Pictures(to_pixels(drawn), extra=extra | {"autoencoder": np.array(model.fingerprint)})


def decode(model: Model, request: Decode, progress: Progress) -> Pictures:
    """The pictures of what the file holds."""
    values = read_latents(model, Path(request.file))
    progress("decoding")
    whole = np.issubdtype(values.dtype, np.integer)
    return Pictures(to_pixels(model.decode_codes(values) if whole else model.decode(values.astype(np.float32))))


def read_latents(model: Model, path: Path) -> np.ndarray:
    """Codes or latents from a file.

    Raises:
        ValueError: if it holds none that this autoencoder can decode.
        OSError: if it cannot be read.
    """
    kind, shape = ("codes", latent_shape(model.config)[:2]) if model.config.bottleneck.num_codes else (
        "latent", latent_shape(model.config)
    )  # fmt: skip
    try:
        loaded = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is no .npz or .npy file: expected one that `flaxgen encode` writes") from error
    if isinstance(loaded, np.lib.npyio.NpzFile):
        with loaded:
            require(kind in loaded, f"{path} holds {', '.join(loaded) or 'nothing'}: expected {kind}")
            values, by = loaded[kind], str(loaded["autoencoder"]) if "autoencoder" in loaded else ""
        require(by in ("", model.fingerprint), f"{path} was encoded by the autoencoder {by}, this one is "
                f"{model.fingerprint}: its codes mean something else")  # fmt: skip
    else:
        values = loaded
    fits = values.ndim == len(shape) + 1 and (kind == "codes" or values.shape[-1] == shape[-1]) and len(values)
    is_kind = np.issubdtype(values.dtype, np.integer if kind == "codes" else np.floating)
    require(bool(fits) and is_kind, f"{path} holds {values.dtype} {values.shape}: expected {kind} of shape "
            f"[N {' '.join(map(str, shape))}]")  # fmt: skip
    return values


def interpolate(model: Model, request: InterpolateLatents, progress: Progress) -> Pictures:
    """The frames of a walk along straight lines between what the encoder says of pictures."""
    progress("encoding and decoding")
    ends = model.features(pictures_of(model, request)).astype(np.float64)
    stops = ends if request.once else np.concatenate((ends, ends[:1]))
    places = np.linspace(0, len(stops) - 1, request.frames, endpoint=request.once)
    low = np.minimum(places.astype(int), len(stops) - 2)
    share = (places - low)[:, None, None, None]
    features = ((1 - share) * stops[low] + share * stops[low + 1]).astype(np.float32)
    return Pictures(to_pixels(model.decode_features(features)), layout="film", fps=request.fps)


def preview(model: Model, key: PRNGKey) -> np.ndarray:
    """Pictures beside what becomes of them, or of a VAE its first samples."""
    if model.config.bottleneck.draws:
        return Pictures(to_pixels(model.generate(key, 16))).sheet()
    images = real_examples(model.config.data, "image", 16)
    return Pictures(to_pixels(model.reconstruct(images)), beside=images).sheet()


ASKED = {
    SampleLatents: Handler(sample, check_sample),
    Reconstruct: Handler(reconstruct, check_pictures),
    Encode: Handler(encode, check_pictures),
    Decode: Handler(decode),
    InterpolateLatents: Handler(interpolate, check_pictures),
}
FAMILY = Family(
    name="autoencoder",
    config=Config,
    type_names=TYPE_NAMES,
    init_params=training.init_params,
    batch_spec=batch_spec,
    make_loss=training.make_loss,
    init_held=training.init_held,
    follow=training.follow,
    after_update=training.after_update,
    preview=preview,
    free=frozenset({"batch"}),
    model=Model,
    requests=ASKED,
)
