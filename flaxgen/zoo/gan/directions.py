"""Directions along which a generator's pictures change most, found without labels [Harkonen20]."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from flaxgen import parallel
from flaxgen.family.drawing import batch_for, draw_many
from flaxgen.nets import dcgan, gan_mlp
from flaxgen.train.config import require
from flaxgen.types import PRNGKey
from flaxgen.zoo.gan.config import Config, has_styles
from flaxgen.zoo.gan.latents import MAPPED, Latents, check_draws_pictures, find_latents, layer_mask, synthesize
from flaxgen.zoo.gan.model import Model

FIRST_LAYER = {dcgan.Generator: "in", gan_mlp.Generator: "dense_0"}
"""The layer next to z, whose activations are analysed where there is no w."""


RANK = 1e-5


class Directions(NamedTuple):
    """`mean` of the codes, `components` of length 1, each with the `deviation` of the codes along it, which is how far
    one step goes; and the `shares` of the variance that each explains, from the largest."""

    mean: Float[np.ndarray, " D"]
    components: Float[np.ndarray, "K D"]
    deviations: Float[np.ndarray, " K"]
    shares: Float[np.ndarray, " K"]


def principal_components(samples: Float[np.ndarray, "N D"]) -> Directions:
    """All that the samples have, by the singular values of the centred samples; the largest entry of each is positive.

    What is below RANK of the largest deviation is taken for rounding.
    """
    exact = samples.astype(np.float64)
    mean = exact.mean(0)
    _, values, components = np.linalg.svd(exact - mean[None], full_matrices=False)
    kept = values > RANK * values[0]
    values, components = values[kept], components[kept]
    largest = np.take_along_axis(components, np.abs(components).argmax(1)[:, None], axis=1)
    variances = values**2 / len(exact)
    return Directions(mean, components * np.sign(largest), np.sqrt(variances), variances / variances.sum())


def directions(model: Model, key: PRNGKey, num: int, count: int, *, label: int | None = None) -> Directions:
    """The first `count`, of `num` samples: the principal components of w, or those of the first layer's activations,
    carried to z by least squares [Harkonen20, sec. 2.1, 2.2].

    Raises:
        ValueError: if there are too few samples for so many, or no label where z needs one.
    """
    require(1 <= count < num, f"count={count} of num={num} samples: expected 1 or more, and more samples than that")
    classes, styled = model.config.generator.num_classes, has_styles(model.config)
    require(styled or label is not None or not classes, "directions in z are those of one class: choose a label")
    latents = find_latents(model, key, range(num), label=label, truncation=1.0)
    if styled:
        found = principal_components(latents.codes[:, 0])
    else:
        found = _carried(_first_activations(model, latents), latents.codes)
    known = len(found.components)
    require(count <= known, f"count={count}: this generator has {known} directions")
    return Directions(found.mean, found.components[:count], found.deviations[:count], found.shares[:count])


def explore(
    model: Model, latents: Latents, found: Directions, steps: Sequence[float | int], layers: range | None = None
) -> Float[np.ndarray, "K S H W C"]:
    """One latent moved along each direction (rows) by so many deviations (columns); of w the styles of those `layers`
    only (None: all).

    Raises:
        ValueError: if there are several latents, `layers` are not for this generator, or it draws no pictures.
    """
    check_draws_pictures(model.config)
    require(len(latents.codes) == 1, f"{len(latents.codes)} latents: expected one to start from")
    require(layers is None or latents.has_styles, "layers are those of a w, and this generator has none")
    lengths = np.asarray(steps)[None] * found.deviations[:, None]
    moves = (lengths[..., None] * found.components[:, None]).reshape(-1, found.components.shape[1])
    if latents.has_styles:
        count = latents.codes.shape[1]
        moves = moves[:, None] * layer_mask(range(count) if layers is None else layers, count)[None, :, None]
    label = None if latents.label is None else np.repeat(latents.label, len(moves))
    drawn = synthesize(model, Latents((latents.codes + moves).astype(np.float32), label))
    return drawn.reshape(len(found.components), len(steps), *drawn.shape[1:])


@functools.lru_cache(maxsize=16)
def _compiled_first(config: Config, plan: parallel.Plan):
    """`first(variables, {"codes": ..., "condition": ...})`: what the first layer gives, before it is bent."""
    generator, name = config.generator, FIRST_LAYER[type(config.generator)]

    def first(variables, inputs):
        _, state = generator.apply(
            variables,
            inputs["codes"],
            inputs["condition"].get("label"),
            capture_intermediates=lambda module, _: module.name == name,
            mutable=["intermediates"],
        )
        return state["intermediates"][name]["__call__"][0]

    return plan.compile_map(first, key=("first", config))


def _first_activations(model: Model, latents: Latents) -> Float[np.ndarray, "N D"]:
    inputs = {"codes": latents.codes, "condition": {} if latents.label is None else {"label": latents.label}}
    batch = batch_for(len(latents.codes), MAPPED, model.plan.devices)
    compiled = _compiled_first(model.config, model.plan)
    return draw_many(compiled, model.params, jax.random.key(0), inputs, num=len(latents.codes), batch=batch)


def _carried(activations: Float[np.ndarray, "N D"], z: Float[np.ndarray, "N Z"]) -> Directions:
    """The changes of z that go best with the principal components of the activations, each of one deviation."""
    found = principal_components(activations)
    places = (activations - found.mean[None]) @ found.components.T / found.deviations[None]
    mean = z.mean(0, dtype=np.float64)
    moves = np.linalg.lstsq(places, z - mean[None], rcond=None)[0]
    lengths = np.linalg.norm(moves, axis=1)
    return Directions(mean, moves / lengths[:, None], lengths, found.shares)
