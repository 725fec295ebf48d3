"""A picture's place among those that a generator can draw: gradient descent in w, or in z where there is no w."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util
from jaxtyping import Array, Float, UInt8

from flaxgen import parallel
from flaxgen.data import unit_range
from flaxgen.data.transforms import middle_square
from flaxgen.family.extractor import Extractor
from flaxgen.train.config import require
from flaxgen.types import Params, PRNGKey, Scalar
from flaxgen.zoo.gan.config import Config, example_shape, has_styles
from flaxgen.zoo.gan.latents import Latents, check_draws_pictures, find_latents
from flaxgen.zoo.gan.model import Model

RATE, RISE, FALL = 0.1, 0.05, 0.25
"""The learning rate, and the shares of the steps over which it rises from 0 and falls to 0 again."""
JITTER, JITTER_ENDS = 0.05, 0.75
"""The deviation added to the code, as a share of the codes' own, and the share of the steps over which it fades."""
NOISE_WEIGHT = 1e5
SMALLEST_SIDE = 4
"""Of the halved pictures that are compared, in pixels."""
SMALLEST_NOISE = 8
Noises = dict[tuple[str, ...], Array]
"""The constant noise of every layer [S S], by the place of its buffer."""


class Search(NamedTuple):
    """How a picture is looked for: in so many `steps`, around the mean of `samples` codes, of one class where `label`
    names one. `fit_noise` also fits the noise of the layers. Pictures are compared by `pyramid_distance`, and where
    there is an `extractor` by its features too."""

    steps: int = 1000
    label: int | None = None
    fit_noise: bool = False
    extractor: Extractor | None = None
    samples: int = 10_000


class Projection(NamedTuple):
    """The code found, what it draws in [-1, 1], the distances on the way, that of the mean code first and that of
    `picture` last, and the generator's variables, with the noise that was fitted."""

    latents: Latents
    picture: Float[np.ndarray, "H W C"]
    distances: Float[np.ndarray, " N"]
    params: Params


class _Task(NamedTuple):
    """What stays as it is in all steps."""

    variables: Params
    target: Float[Array, "1 H W C"]
    features: Float[Array, "1 _"] | None
    extractor: Params
    condition: dict[str, Array]
    deviation: Scalar


class _State(NamedTuple):
    """What is searched, with Adam's memory of it."""

    code: Float[Array, "1 D"]
    noises: Noises
    memory: Any


def pyramid_distance(a: Float[Array, "B H W C"], b: Float[Array, "B H W C"]) -> Float[Array, " B"]:
    """Mean squared difference, averaged over the pictures and their halvings down to SMALLEST_SIDE pixels."""
    distances = []
    while True:
        distances.append(jnp.square(a - b).mean((1, 2, 3)))
        height, width = a.shape[1:3]
        if height % 2 or width % 2 or min(height, width) < 2 * SMALLEST_SIDE:
            return jnp.stack(distances).mean(0)
        a, b = (_halve(x) for x in (a, b))


def _halve(x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
    count, height, width, channels = x.shape
    return x.reshape(count, height // 2, 2, width // 2, 2, channels).mean((2, 4))


def noise_correlation(noise: Float[Array, "S S"]) -> Float[Array, ""]:
    """Squared correlations of neighbours in each direction, summed over the noise and its halvings: 0 of noise that
    carries no picture [Karras20, app. D]."""
    total = jnp.zeros(())
    while True:
        neighbours = [(noise * jnp.roll(noise, 1, axis)).mean() for axis in (0, 1)]
        total += sum(jnp.square(value) for value in neighbours)
        if len(noise) <= SMALLEST_NOISE:
            return total
        noise = _halve(noise[None, ..., None])[0, ..., 0]


def learning_rate(share: Scalar) -> Float[Array, ""]:
    """At that share of the steps: a linear rise, and a fall along a cosine [Karras20, app. D]."""
    fall = 0.5 - 0.5 * jnp.cos(jnp.pi * jnp.minimum(1.0, (1 - share) / FALL))
    return RATE * fall * jnp.minimum(1.0, share / RISE)


def fit_picture(model: Model, image: UInt8[np.ndarray, "H W C"]) -> UInt8[np.ndarray, "S S C"]:
    """The middle square of a picture, at the generator's size.

    Raises:
        ValueError: if the generator draws no squares, or not of so many channels.
    """
    check_draws_pictures(model.config)
    height, width, channels = example_shape(model.config)
    require(height == width, f"this generator draws {height} x {width} pixels, and squares are projected")
    require(image.shape[2] == channels, f"a picture of {image.shape[2]} channels, this generator draws {channels}")
    return middle_square(image, height, model.config.data.filter)


def project(
    model: Model,
    image: UInt8[np.ndarray, "S S C"],
    key: PRNGKey,
    search: Search,
    progress: Callable[[float], None] = lambda distance: None,
) -> Projection:
    """The code whose picture comes nearest to `image`, as far as Adam finds it [Karras20, app. D], with the constants
    of NVlabs' projector [Karras20b]. It is one w for all layers, searched with less and less noise on it; a generator
    without w is searched in z in the same way. `progress` gets the distance at every step.

    Raises:
        ValueError: if the picture is not of the generator's shape, or the search is not for this generator.
        FloatingPointError: if the distance is no number.
    """
    _check(model, image, search)
    mean_key, noise_key, step_key = jax.random.split(key, 3)
    task, mean = _prepare(model, image, mean_key, search)
    noises = _draw_noises(noise_key, model.params) if search.fit_noise else {}
    step, measure = _compiled(model.config, search.extractor.apply if search.extractor else None)
    state = _State(mean, noises, optax.scale_by_adam().init((mean, noises)))
    distances = [_finite(measure(task, state)[0])]
    for number in range(search.steps):
        share = np.float32(number / search.steps)
        state, distance = step(task, state, jax.random.fold_in(step_key, number), share)
        distances.append(_finite(distance))
        progress(distances[-1])
    distance, picture = measure(task, state)
    distances = np.asarray([*distances, _finite(distance)], np.float32)
    label = None if search.label is None or has_styles(model.config) else np.full(1, search.label, np.int32)
    latents = Latents(np.asarray(_codes(model.config, state.code)), label)
    params = _with_noises(model.params, state.noises)
    return Projection(latents, np.clip(np.asarray(picture[0]), -1, 1), distances, params)


def _finite(distance: Float[Array, ""]) -> float:
    value = float(distance)
    if not np.isfinite(value):
        raise FloatingPointError("the distance is not finite: the model is broken, or the net of the features is")
    return value


def _check(model: Model, image: UInt8[np.ndarray, "S S C"], search: Search) -> None:
    check_draws_pictures(model.config)
    shape, styled = example_shape(model.config), has_styles(model.config)
    require(image.shape == shape, f"a picture of {image.shape}: this generator draws {shape}")
    require(search.steps >= 1, f"steps={search.steps}: expected 1 or more")
    require(search.samples >= 2, f"samples={search.samples}: expected 2 or more")
    require(styled or not search.fit_noise, "fit_noise is for StyleGAN2, and this generator has no noise")
    required = model.config.generator.num_classes and not styled
    require(search.label is not None or not required, "a place in z is that of one class: choose a label")
    if search.extractor is not None:
        name = search.extractor.name
        require(
            not name.startswith("inception"),
            f"features={name}: Inception reads 8-bit pictures, which have no gradient; expected clip:MODEL or "
            "classifier:MODEL",
        )


def _prepare(model: Model, image: UInt8[np.ndarray, "S S C"], key: PRNGKey, search: Search):
    """The task, and the mean code [1 D] to begin with."""
    samples = find_latents(model, key, range(search.samples), label=search.label, truncation=1.0)
    codes = samples.codes[:, 0] if samples.has_styles else samples.codes
    mean = codes.mean(0)
    deviation = np.sqrt(np.square(codes - mean[None]).sum(1).mean())
    target, extractor, features = unit_range(jnp.asarray(image)[None]), search.extractor, None
    if extractor is not None:
        features = jax.jit(_features, static_argnums=0)(extractor.apply, extractor.params, target)
    condition = {} if samples.label is None else {"label": jnp.asarray(samples.label[:1])}
    params = extractor.params if extractor is not None else {}
    task = _Task(model.params, target, features, params, condition, jnp.float32(deviation))
    return task, jnp.asarray(mean)[None]


def _features(apply: Callable, params: Params, images: Float[Array, "B H W C"]) -> Float[Array, "B _"]:
    return apply(params, {"image": images})["features"]


def _draw_noises(key: PRNGKey, variables: Params) -> Noises:
    """New noise for every layer."""
    found: dict[tuple[str, ...], Any] = dict(traverse_util.flatten_dict(variables["buffers"]))
    places = sorted(place for place in found if place[-1] == "noise_const")
    keys = jax.random.split(key, len(places))
    return {place: jax.random.normal(keys[i], found[place].shape) for i, place in enumerate(places)}


def _with_noises(variables: Params, noises: Noises) -> Params:
    if not noises:
        return variables
    buffers = {**traverse_util.flatten_dict(variables["buffers"]), **noises}
    return {**variables, "buffers": traverse_util.unflatten_dict(buffers)}


def _codes(config: Config, code: Float[Array, "1 D"]) -> Array:
    """As in `Latents`: the same style for every layer."""
    return jnp.repeat(code[:, None], config.generator.num_layers, axis=1) if has_styles(config) else code


@functools.lru_cache(maxsize=4)
def _compiled(config: Config, apply: Callable | None):
    """`step(task, state, key, share) -> (state, distance)` and `measure(task, state) -> (distance, picture)`."""
    generator, adam = config.generator, optax.scale_by_adam()

    def draw(task, code, noises):
        variables, codes = _with_noises(task.variables, noises), _codes(config, code)
        if has_styles(config):
            return generator.apply(variables, codes, method="synthesize")
        return generator.apply(variables, codes, task.condition.get("label"))

    def compare(task, picture):
        distance = pyramid_distance(picture, task.target)[0]
        if apply is None:
            return distance
        found = _features(apply, task.extractor, picture)
        return distance + jnp.square(found - task.features).sum() / jnp.square(task.features).sum()

    def step(task, state, key, share):
        jitter = JITTER * task.deviation * jnp.square(jnp.maximum(0.0, 1 - share / JITTER_ENDS))
        moved = jitter * jax.random.normal(key, state.code.shape)

        def loss(searched):
            code, noises = searched
            distance = compare(task, draw(task, code + moved, noises))
            correlation = sum((noise_correlation(noise) for noise in noises.values()), jnp.zeros(()))
            return distance + NOISE_WEIGHT * correlation, distance

        searched = (state.code, state.noises)
        gradient, distance = jax.grad(loss, has_aux=True)(searched)
        updates, memory = adam.update(gradient, state.memory)
        rate = learning_rate(share)
        code, noises = jax.tree.map(lambda x, update: x - rate * update, searched, updates)
        return _State(code, {place: _standardise(noise) for place, noise in noises.items()}, memory), distance

    def measure(task, state):
        picture = draw(task, state.code, state.noises)
        return compare(task, picture), picture

    options = parallel.compiler_options()
    return jax.jit(step, compiler_options=options), jax.jit(measure, compiler_options=options)


def _standardise(noise: Float[Array, "S S"]) -> Float[Array, "S S"]:
    """To mean 0 and mean square 1."""
    centred = noise - noise.mean()
    return centred * jax.lax.rsqrt(jnp.square(centred).mean())
