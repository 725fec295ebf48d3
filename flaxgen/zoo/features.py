"""Features of pictures by name: what FID and its kin compare. Numbers from different features are not comparable, so an
extractor's name says which net made them, down to a hash of its weights."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Shaped

from flaxgen.diffusion.losses import unit_range
from flaxgen.nets.inception import Inception
from flaxgen.train.config import require
from flaxgen.types import AlphaSigma, Params
from flaxgen.weights import store
from flaxgen.weights.inception import import_inception
from flaxgen.zoo import classifier, clip, directory
from flaxgen.zoo.process import choose, make_schedule, make_time_input

Inputs = Mapping[str, Array]
"""`image` uint8 [B H W C], or where gradients are taken float32 in [-1, 1], which Inception does not read; and where
captions are asked for what `Extractor.tokenize` made of them."""


class Extractor(NamedTuple):
    """`apply(params, inputs)` gives `features` float32 [B D]; `logits` [B classes] where `has_classes`; and `text`
    [B D], the captions' embeddings, where there is `tokenize` and the inputs have what it gives."""

    name: str
    params: Params
    apply: Callable[[Params, Inputs], dict[str, Float[Array, "B _"]]]
    has_classes: bool = False
    tokenize: Callable[[Sequence[str]], dict[str, np.ndarray]] | None = None


def make_extractor(name: str) -> Extractor:
    """`pixels`, `inception:FILE` (the published weights), `clip:MODEL` or `classifier:MODEL` (a run or model).

    Raises:
        ValueError, OSError: if the name is not one of these, or there is no such net.
    """
    kind, _, path = name.partition(":")
    make = choose("features", kind, EXTRACTORS)
    require(bool(path) != (kind == "pixels"), f"features={name!r}: expected {USAGE}")
    return make(path)


def fingerprint(params: Params) -> str:
    """What tells parameters from others: 12 digits of a hash of their names and bytes."""
    digest = hashlib.sha256()
    for name, value in sorted(store.flatten(params).items()):
        digest.update(f"{name} {value.dtype} {value.shape}".encode() + np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()[:12]


def _pixels(path: str) -> Extractor:
    """The pictures themselves, in [-1, 1]."""

    def apply(params, inputs):
        image = inputs["image"]
        return {"features": unit_range(image).reshape(len(image), -1)}

    return Extractor("pixels", {}, apply)


def _inception(path: str) -> Extractor:
    """The 2048 features behind FID, and the 1008 logits without bias behind the Inception Score."""
    net, params = Inception(), import_inception(path)

    def apply(params, inputs):
        found = cast(Any, net.apply({"params": params}, _rgb(inputs["image"])))
        return {"features": found["2048"], "logits": found["logits_unbiased"]}

    return Extractor(f"inception:{fingerprint(params)}", jax.device_put(params), apply, has_classes=True)


def _clip(path: str) -> Extractor:
    """The image embedding, as the net gives it; pictures of another size are resized as `clip.Model` does."""
    model = clip.load(path)
    net, shape = model.config.net, clip.image_shape(model.config)

    def apply(params, inputs):
        pixels = unit_range(_rgb(inputs["image"]))
        if pixels.shape[1:] != shape:
            pixels = jnp.clip(jax.image.resize(pixels, (len(pixels), *shape), "bicubic"), -1, 1)
        found = {"features": cast(Array, net.apply({"params": params}, pixels, method="encode_image"))}
        if "ids" in inputs:
            encoded = cast(Any, net.apply({"params": params}, inputs["ids"], inputs["mask"], method="encode_text"))
            found["text"] = encoded.embedding
        return found

    def tokenize(captions):
        tokens = model.tokenizer(captions)
        return {"ids": np.asarray(tokens.ids), "mask": np.asarray(tokens.mask)}

    return Extractor(f"clip:{model.fingerprint}", model.params, apply, tokenize=tokenize)


def _classifier(path: str) -> Extractor:
    """What a classifier trained here sees before its attention pools it, averaged over the picture, and its logits; of
    pictures without noise, at the first time of its process."""
    model = directory.load(path)
    require(isinstance(model, classifier.Model), f"{path} is no classifier: expected the run or model directory of one")
    net, process = model.config.net, model.config.process
    time = 1 / process.timesteps if process.timesteps else 1e-3
    alpha, sigma = make_schedule(process)(time)
    told = make_time_input(process)(time, AlphaSigma(alpha, sigma))

    def apply(params, inputs):
        seen, shape = inputs["image"].shape[1:], classifier.image_shape(model.config)
        require(seen == shape, f"the classifier of {path} reads {shape}, these pictures are {seen}: set image_size")
        x = alpha * unit_range(inputs["image"])
        logits, state = net.apply(
            {"params": params},
            x,
            jnp.full(len(x), told, jnp.float32),
            capture_intermediates=lambda module, _: module.name == "norm_out",
            mutable=["intermediates"],
        )
        last = nn.silu(state["intermediates"]["norm_out"]["__call__"][0])
        return {"features": last.mean((1, 2)), "logits": logits}

    return Extractor(f"classifier:{fingerprint(model.params)}", model.params, apply, has_classes=True)


def _rgb(images: Shaped[Array, "B H W C"]) -> Shaped[Array, "B H W 3"]:
    """A single channel three times."""
    return jnp.broadcast_to(images, (*images.shape[:3], 3)) if images.shape[-1] == 1 else images


EXTRACTORS: dict[str, Callable[[str], Extractor]] = {
    "pixels": _pixels,
    "inception": _inception,
    "clip": _clip,
    "classifier": _classifier,
}
USAGE = "pixels, inception:FILE, clip:MODEL or classifier:MODEL"
