"""Between the pictures of a GAN: walks and mixtures in w, where the generator has one, and else in z."""

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from flaxgen import parallel
from flaxgen.diffusion.interpolate import slerp
from flaxgen.family import sheets
from flaxgen.family.drawing import announced, batch_for, draw_many, finished, title, walk_steps
from flaxgen.train.config import require
from flaxgen.types import PRNGKey
from flaxgen.zoo.gan.config import Config, check_sampling, draws_pictures, example_shape, has_styles
from flaxgen.zoo.gan.model import Model
from flaxgen.zoo.gan.training import make_latents

MAPPED = 1024
"""At most so many z become w at once."""
_slerp_rows = jax.jit(jax.vmap(slerp))


class Latents(NamedTuple):
    """What pictures are made of: `codes` are w [N L D] of a generator with styles and z [N Z] of another, which draws
    the classes of `label` with them. A w knows its class."""

    codes: Float[np.ndarray, "N ..."]
    label: Int[np.ndarray, " N"] | None = None

    @property
    def has_styles(self) -> bool:
        """Whether the codes are w."""
        return self.codes.ndim == 3


def check_draws_pictures(config: Config) -> None:
    """Raises ValueError unless the generator draws pictures."""
    require(draws_pictures(config), f"this generator draws points of shape {example_shape(config)}, and no pictures")


@functools.lru_cache(maxsize=16)
def compiled_map(config: Config, plan: parallel.Plan):
    """`find((variables, truncation, key), {"number": ..., "condition": ...})`: z, or the w of one layer."""
    latents = make_latents(config)
    generator: Any = config.generator

    def find(arguments, inputs):
        variables, truncation, key = arguments
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, inputs["number"])
        z = latents(jax.vmap(lambda key: jax.random.split(key)[0])(keys))
        if not has_styles(config):
            return z
        label = inputs["condition"].get("label")
        return generator.apply(variables, z, label, truncation=truncation, method="map")[:, 0]

    return plan.compile_map(find, key=("find", config))


@functools.lru_cache(maxsize=16)
def compiled_synthesize(config: Config, batch: int, plan: parallel.Plan):
    """`synthesize(variables, {"codes": ..., "condition": ...})` without random noise."""
    generator = config.generator

    def synthesize(variables, inputs):
        if has_styles(config):
            return generator.apply(variables, inputs["codes"], method="synthesize")
        return generator.apply(variables, inputs["codes"], inputs["condition"].get("label"))

    return announced(
        plan.compile_map(synthesize, key=("synthesize", config)), title(plan, batch, example_shape(config))
    )


def find_latents(
    model: Model,
    key: PRNGKey,
    numbers: Sequence[int],
    *,
    label: int | None = None,
    truncation: float | None = None,
) -> Latents:
    """What `model.generate(key, ...)` makes the pictures of these numbers of; `label` and `truncation` are as there.

    Raises:
        ValueError: if a value is out of range or not for this model.
    """
    config, classes = model.config, model.config.generator.num_classes
    truncation = config.sampling.truncation if truncation is None else truncation
    check_sampling(config, replace(config.sampling, truncation=truncation))
    require(len(numbers) >= 1, "no pictures: expected the numbers of one or more")
    wrong = [number for number in numbers if not 0 <= number < 2**31]
    require(not wrong, f"picture {wrong[:1]}: expected a number from 0 to {2**31 - 1}")
    require(label is None or classes > 0, f"label={label}: this model knows no classes")
    require(label is None or 0 <= label < classes, f"label={label}: expected a class from 0 to {classes - 1}")
    number = np.asarray(numbers, np.int32)
    labels = None
    if classes:
        labels = number % classes if label is None else np.full_like(number, label)
    inputs = {"number": number, "condition": {} if labels is None else {"label": labels}}
    batch = batch_for(len(number), MAPPED, model.plan.devices)
    arguments = (model.params, np.float32(truncation), key)
    found = draw_many(compiled_map(config, model.plan), arguments, key, inputs, num=len(number), batch=batch)
    if not has_styles(config):
        return Latents(found, labels)
    count, width = found.shape
    return Latents(np.broadcast_to(found[:, None], (count, config.generator.num_layers, width)))


def synthesize(model: Model, latents: Latents) -> Float[np.ndarray, "N ..."]:
    """Their pictures, float32 in [-1, 1], with the constant noise.

    Raises:
        ValueError: if the codes are not of such a generator.
        FloatingPointError: if the weights draw what is not finite.
    """
    generator, codes = model.config.generator, np.asarray(latents.codes, np.float32)
    shape = (generator.num_layers, generator.style_dim) if has_styles(model.config) else (generator.latent_dim,)
    require(codes.shape[1:] == shape, f"latents of shape {codes.shape[1:]}: this generator takes {shape}")
    condition = {} if latents.label is None else {"label": latents.label}
    batch = batch_for(len(codes), model.config.sampling.batch, model.plan.devices)
    draw = compiled_synthesize(model.config, batch, model.plan)
    inputs = {"codes": codes, "condition": condition}
    drawn = draw_many(draw, model.params, jax.random.key(0), inputs, num=len(codes), batch=batch)
    return finished(drawn, draws_pictures(model.config))


def take(latents: Latents, rows: Sequence[int] | Int[np.ndarray, " M"]) -> Latents:
    """Those of some places, in that order."""
    chosen = np.asarray(rows, int)
    return Latents(latents.codes[chosen], None if latents.label is None else latents.label[chosen])


def interpolate(latents: Latents, frames: int, *, loop: bool) -> Latents:
    """`frames` of them on the way from the first through all others, at as many frames from each to the next: straight
    in w, on great circles in z, where Gaussian vectors are [White16].

    A `loop` goes back to the first and ends one frame before it; else the last frame is the last of `latents`.

    Raises:
        ValueError: if there are too few frames or latents, or z of different classes, between which nothing lies.
    """
    labels = latents.label
    left, right, weight = walk_steps(len(latents.codes), frames, loop)
    require(labels is None or len(set(labels.tolist())) == 1, "there is no way between classes in z: choose one label")
    a, b = take(latents, left), take(latents, right)
    if latents.has_styles:
        codes = a.codes + weight[:, None, None] * (b.codes - a.codes)
    else:
        codes = np.asarray(_slerp_rows(a.codes, b.codes, weight))
    return Latents(codes, a.label)


def truncate(model: Model, latents: Latents, truncation: float | int) -> Latents:
    """w at `truncation` times their distance from the mean w [Karras19, app. B].

    Raises:
        ValueError: if the generator has no w.
    """
    require(latents.has_styles, f"truncation={truncation} needs a generator with a w, and this one has none")
    mean = np.asarray(model.params["buffers"]["w_avg"])
    return Latents(mean + np.float32(truncation) * (latents.codes - mean))


def mix(a: Latents, b: Latents, layers: range) -> Latents:
    """`a` with the styles of `b` in those layers [Karras19, sec. 3.1], one with one; layer 0 is the coarsest.

    Raises:
        ValueError: if there are no styles, or not so many layers.
    """
    require(a.has_styles and b.has_styles, "styles are mixed in w, and this generator has none")
    taken = layer_mask(layers, a.codes.shape[1])
    return Latents(np.where(taken[None, :, None], b.codes, a.codes))


def layer_mask(layers: range, count: int) -> Bool[np.ndarray, " L"]:
    """Which of `count` layers are among `layers`.

    Raises:
        ValueError: if they are no part of them.
    """
    inside = layers.start >= 0 and layers.stop <= count and layers.step == 1
    require(inside, f"layers={layers.start}:{layers.stop}: expected a part of 0:{count}")
    return np.isin(np.arange(count), layers)


def truncation_rows(
    model: Model, latents: Latents, truncations: Sequence[float | int]
) -> Float[np.ndarray, "R N H W C"]:
    """A row for each truncation, a column for each latent.

    Raises:
        ValueError: if the generator draws no pictures or has no w.
    """
    check_draws_pictures(model.config)
    rows = [truncate(model, latents, value).codes for value in truncations]
    return _draw_rows(model, Latents(np.concatenate(rows)), len(rows))


def mixing_rows(model: Model, a: Latents, b: Latents, layers: range) -> Float[np.ndarray, "R N H W C"]:
    """All of `a`, one a row, with the styles of all of `b`, one a column, in those layers. The first column and row
    show `a` and `b` alone; the corner is white.

    Raises:
        ValueError: as `mix`, or if the generator draws no pictures.
    """
    check_draws_pictures(model.config)
    height, width = len(a.codes), len(b.codes)
    pairs = mix(take(a, np.repeat(np.arange(height), width)), take(b, np.tile(np.arange(width), height)), layers)
    drawn = synthesize(model, Latents(np.concatenate((a.codes, b.codes, pairs.codes))))
    rows = np.ones((1 + height, 1 + width, *drawn.shape[1:]), drawn.dtype)
    rows[1:, 0], rows[0, 1:] = drawn[:height], drawn[height : height + width]
    rows[1:, 1:] = drawn[height + width :].reshape(height, width, *drawn.shape[1:])
    return rows


def show_rows(rows: Float[np.ndarray, "R N H W C"]) -> UInt8[np.ndarray, "h w 3"]:
    """One picture of them."""
    return sheets.grid(rows.reshape(-1, *rows.shape[2:]), columns=rows.shape[1])


def _draw_rows(model: Model, latents: Latents, rows: int) -> Float[np.ndarray, "R N H W C"]:
    drawn = synthesize(model, latents)
    return drawn.reshape(rows, -1, *drawn.shape[1:])
