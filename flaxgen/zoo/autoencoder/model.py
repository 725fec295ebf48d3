"""A trained autoencoder: pictures to latents or codes and back, and what can be measured of that."""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from flaxgen import parallel
from flaxgen.data import Data, unit_range
from flaxgen.data.transforms import middle_square
from flaxgen.family.companions import Encoder
from flaxgen.family.drawing import batch_for, draw_many, finished, numbered
from flaxgen.family.levels import TOP, by_name
from flaxgen.family.trained import Trained
from flaxgen.latents import codebook, gaussian
from flaxgen.metrics import picture as metrics
from flaxgen.train.config import require
from flaxgen.types import Codec, Params, PRNGKey
from flaxgen.zoo.autoencoder import training
from flaxgen.zoo.autoencoder.config import (
    DISCRETE,
    Config,
    check_size,
    check_tile,
    image_shape,
    latent_shape,
    of_levels,
    sides_of,
)
from flaxgen.zoo.autoencoder.training import latents_of, make_codec, pictures_of

Inputs = Mapping[str, Any]


def _latents(config: Config, params: Params, inputs: Inputs, tile: int = 0) -> Array:
    """What the decoder reads of pictures, without chance."""
    return latents_of(config, params, unit_range(inputs["image"]), tile)


def _features(config: Config, params: Params, inputs: Inputs) -> Array:
    return training.features_of(config, params, unit_range(inputs["image"]))


def _decode_features(config: Config, params: Params, inputs: Inputs) -> Array:
    return pictures_of(config, params, training.latents_of_features(config, params, inputs["features"]))


def _codes(config: Config, params: Params, inputs: Inputs) -> Any:
    h = training.encode(config, params, unit_range(inputs["image"]))
    return config.bottleneck.to_codes(params, h)


def _decode(config: Config, params: Params, inputs: Inputs, tile: int = 0) -> Array:
    return pictures_of(config, params, inputs["latent"], tile)


def _decode_codes(config: Config, params: Params, inputs: Inputs) -> Array:
    return pictures_of(config, params, config.bottleneck.from_codes(params, inputs["codes"]))


def _decode_top(config: Config, params: Params, inputs: Inputs) -> Array:
    return pictures_of(config, params, training.latents_of_top(config, params, inputs["codes"]))


def _sample(config: Config, params: Params, inputs: Inputs) -> Array:
    shape = latent_shape(config)
    z = jax.vmap(lambda key: jax.random.normal(key, shape))(inputs["key"])
    return _decode(config, params, {"latent": inputs["std"][:, None, None, None] * z})


def _log_weight(config: Config, params: Params, inputs: Inputs) -> Array:
    """log p(x, z) - log q(z | x) in nats, for one z a picture."""
    x = unit_range(inputs["image"])
    mean, log_variance = gaussian.split_moments(training.encode(config, params, x))
    z = gaussian.draw(mean, log_variance, inputs["key"])
    y = training.decode(config, params, z)
    log_likelihood = -training.distances(config, params, x, y) * math.prod(image_shape(config))
    return gaussian.log_weight(log_likelihood, z, mean, log_variance)


PROGRAMS = {
    "features": _features,
    "decode_features": _decode_features,
    "latents": _latents,
    "codes": _codes,
    "decode": _decode,
    "decode_codes": _decode_codes,
    "decode_top": _decode_top,
    "sample": _sample,
    "log_weight": _log_weight,
}
"""What is compiled, by name."""


@functools.lru_cache(maxsize=32)
def compiled(config: Config, name: str, plan: parallel.Plan, tile: int = 0):
    """One of PROGRAMS, kept for the next call; what only training reads of the config changes nothing."""
    config = replace(config, seed=0, steps=1, data=Data(config.data.source))
    tiles = {"tile": tile} if tile else {}
    return plan.compile_map(functools.partial(PROGRAMS[name], config, **tiles), key=("autoencoder", name, tile, config))


class Model(Trained):
    """A trained autoencoder."""

    config: Config

    def fit(self, images: Sequence[UInt8[np.ndarray, "_ _ _"]]) -> UInt8[np.ndarray, "N H W C"]:
        """The middle squares of pictures, at the size of those that it was trained on."""
        size, how = self.config.net.image_size, self.config.data.filter
        return np.stack([middle_square(x, size, how) for x in images])

    def encode(
        self, images: UInt8[np.ndarray, "N H W C"] | Float[np.ndarray, "N H W C"], tile: int = 0
    ) -> Float[np.ndarray, "N h w D"]:
        """What the decoder reads of pictures, 8-bit or in [-1, 1]: latents, of a Gaussian their means, of codes their
        vectors. Pictures that are no squares of its size are taken one by one, with `tile` in tiles of so many pixels.

        Raises:
            ValueError: if the net does not take pictures of that size, or such tiles.
        """
        check_tile(self.config, tile)
        check_size(self.config, *images.shape[1:3])
        return self._run("latents", {"image": images}, tile=tile)

    def features(self, images: UInt8[np.ndarray, "N H W C"]) -> Float[np.ndarray, "N h w D"]:
        """What the encoder says of pictures, before the bottleneck: what can be changed a little at a time."""
        return self._run("features", {"image": images})

    def decode_features(self, features: Float[np.ndarray, "N h w D"]) -> Float[np.ndarray, "N H W C"]:
        """The pictures of `features`, through the bottleneck, in [-1, 1]."""
        return finished(self._run("decode_features", {"features": features}), pictures=True)

    def encode_codes(self, images: UInt8[np.ndarray, "N H W C"]) -> Any:
        """The codes of pictures, [N h w]; of two levels those of each by name.

        Raises:
            ValueError: if its latents are numbers.
        """
        self.check_codes()
        return self._run("codes", {"image": images})

    def decode(self, latents: Float[np.ndarray, "N h w D"], tile: int = 0) -> Float[np.ndarray, "N H W C"]:
        """The pictures of latents, in [-1, 1]; of another map than those of its size one by one, with `tile` in tiles
        of so many pixels.

        Raises:
            ValueError: if the net does not take such tiles.
        """
        check_tile(self.config, tile)
        return finished(self._run("decode", {"latent": latents}, tile=tile), pictures=True)

    def decode_codes(self, codes: Any) -> Float[np.ndarray, "N H W C"]:
        """The pictures of codes as `encode_codes` gives them, in [-1, 1].

        Raises:
            ValueError: if its latents are numbers, or a code is none of its own.
        """
        self.check_codes()
        maps, known = by_name(codes), by_name(self.config.bottleneck.num_codes)
        require(maps.keys() == known.keys(), f"codes of {', '.join(maps)}: expected those of {', '.join(known)}")
        for name, map_ in maps.items():
            _check_range(map_, known[name])
        whole = jax.tree.map(lambda map_: map_.astype(np.int32), codes)
        return finished(self._run("decode_codes", {"codes": whole}), pictures=True)

    def decode_top(self, codes: Int[np.ndarray, "N h w"]) -> Float[np.ndarray, "N H W C"]:
        """What the top's codes say alone of pictures, in [-1, 1]: the bottom's are left at the mean of their vectors.

        Raises:
            ValueError: if it has no two levels, or a code is none of its own.
        """
        require(of_levels(self.config), "this autoencoder has no two levels, and so no top")
        _check_range(codes, by_name(self.config.bottleneck.num_codes)[TOP])
        return finished(self._run("decode_top", {"codes": codes.astype(np.int32)}), pictures=True)

    @property
    def maps(self) -> dict[str, tuple[int, int]]:
        """How many codes there are, and how many a side, of each of its maps of codes by name: `codes`, or of two
        levels `top` and `bottom`."""
        known = by_name(self.config.bottleneck.num_codes)
        return {name: (known[name], side) for name, side in sides_of(self.config).items()}

    def autoencode(self, images: UInt8[np.ndarray, "N H W C"], tile: int = 0) -> Float[np.ndarray, "N H W C"]:
        """Pictures encoded and decoded, in [-1, 1]; see `encode` for other sizes, and `tile`."""
        return self.decode(self.encode(images, tile), tile)

    def generate(self, key: PRNGKey, num: int | range = 64, *, std: float = 1.0) -> Float[np.ndarray, "N H W C"]:
        """`num` pictures of latents drawn from N(0, std^2), in [-1, 1], or those of a range of numbers; picture i
        depends on the key and on i alone.

        Raises:
            ValueError: if its latents do not follow a Gaussian.
        """
        check_draws(self.config)
        numbers = numbered(num)
        inputs = {"std": np.full(len(numbers), std, np.float32)}
        drawn = self._run("sample", inputs, key, first=numbers.start)
        return finished(drawn, pictures=True)

    def _run(
        self,
        name: str,
        inputs: Mapping[str, Any],
        key: PRNGKey | None = None,
        first: int = 0,
        tile: int = 0,
    ) -> Any:
        num, shape = len(jax.tree.leaves(inputs)[0]), inputs.get("image", inputs.get("latent", np.empty(0))).shape[1:3]
        usual = not shape or shape in (image_shape(self.config)[:2], latent_shape(self.config)[:2])
        batch = batch_for(num, self.config.batch if usual else 1, self.plan.devices)
        key = jax.random.key(0) if key is None else key
        program = compiled(self.config, name, self.plan, tile)
        return draw_many(program, self.params, key, inputs, num=num, batch=batch, first=first)

    def check_codes(self) -> None:
        """Raises ValueError if its latents are numbers."""
        kind = type(self.config.bottleneck).__name__
        require(
            bool(self.config.bottleneck.num_codes), f"this autoencoder has no codes, its latents are numbers ({kind})"
        )

    def measure(self, images: UInt8[np.ndarray, "N H W C"], bound: int = 1) -> dict[str, float]:
        """What a set of pictures loses on the way: `psnr` in dB and `ssim`, means over pictures; `nmse`, the mean
        squared error over the set's variance; of codes `perplexity` and the share `used` over the set, of each level by
        name; of a Gaussian with a likelihood, `bits_per_dim`, a bound on the bits of each number by `bound` draws a
        picture [Burda16]."""
        found = lost(self.autoencode(images), images)
        known = self.config.bottleneck.num_codes
        for name, codes in by_name(self.encode_codes(images), "").items() if known else ():
            count, said = np.bincount(codes.reshape(-1), minlength=by_name(known, "")[name]), f"_{name}" if name else ""
            found[f"perplexity{said}"] = float(codebook.perplexity(jnp.asarray(count, jnp.float32)))
            found[f"used{said}"] = float(np.mean(count > 0))
        if self.config.bottleneck.draws and self.config.reconstruction.loss in DISCRETE:
            keys = jax.random.split(jax.random.key(self.config.seed), bound)
            weights = np.stack([self._run("log_weight", {"image": images}, key) for key in keys])
            nats = gaussian.importance_bound(jnp.asarray(weights))
            found["bits_per_dim"] = -float(np.mean(nats)) / math.prod(image_shape(self.config)) / math.log(2)
        return found

    @property
    def codec(self) -> Codec:
        """Its two ways as functions of parameters, for a model that works on its latents, scaled as the config says;
        `training.make_codec` makes one that works in tiles."""
        return make_codec(self.config)

    @property
    def encoder(self) -> Encoder:
        """What it says of examples, for the cache that a prior over its codes, or a model of its latents, reads."""
        has_codes = bool(self.config.bottleneck.num_codes)
        fields = tuple(sides_of(self.config)) if has_codes else ("latent",)
        size, channels = self.config.net.image_size, self.config.net.in_channels

        def encode(examples: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
            images = np.stack([example["image"] for example in examples])
            return by_name(self.encode_codes(images)) if has_codes else {"latent": self.encode(images)}

        def see(data: Data) -> Data:
            return replace(data, image_size=size, channels=channels)

        return Encoder(
            "autoencoder", self.fingerprint, fields, encode, see,
            needs={"image": "has no pictures: choose other data"},
        )  # fmt: skip


def lost(drawn: Float[np.ndarray, "N H W C"], images: UInt8[np.ndarray, "N H W C"]) -> dict[str, float]:
    """What is lost of pictures by what is drawn of them, in [-1, 1]: `psnr` in dB, `mse`, of pictures that are not all
    one colour `nmse`, and of those that are large enough `ssim`."""
    x = np.asarray(images, np.float32) / 127.5 - 1
    error, variance = float(np.mean((drawn - x) ** 2)), float(np.var(x))
    found = {"psnr": float(np.mean(metrics.psnr(drawn, x, 2.0))), "mse": error}
    found |= {"nmse": error / variance} if variance else {}
    if min(x.shape[1:3]) > 2 * metrics.RADIUS:
        found["ssim"] = float(np.mean(metrics.ssim(drawn, x, 2.0)))
    return found


def _check_range(codes: Int[np.ndarray, "N h w"], known: int) -> None:
    wrong = codes[(codes < 0) | (codes >= known)]
    require(not wrong.size, f"code {wrong[:1]}: expected codes from 0 to {known - 1}" if wrong.size else "")


def check_draws(config: Config) -> None:
    """Raises ValueError unless latents can be drawn without a prior."""
    codes = config.bottleneck.num_codes
    way_out = "train a prior over its codes" if codes else "train it with a Gaussian bottleneck (a VAE)"
    require(config.bottleneck.draws, f"this autoencoder draws nothing by itself, as nothing says which latents are "
            f"likely: {way_out}")  # fmt: skip
