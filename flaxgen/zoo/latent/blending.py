"""Pictures between two, by their latents and by what captions say of them [Wang23]."""

from collections.abc import Mapping

import jax
import numpy as np
from jaxtyping import Float

from flaxgen.diffusion import interpolate
from flaxgen.family.pictures import Pictures
from flaxgen.family.process import make_schedule
from flaxgen.family.trained import Progress
from flaxgen.zoo.latent import looks
from flaxgen.zoo.latent.config import NO_PICTURE, Config, walked_times
from flaxgen.zoo.latent.drawing import Parts, beside, conditions, draw_asked, fit
from flaxgen.zoo.latent.model import Asked, Latent, Start
from flaxgen.zoo.latent.requests import BlendLatent, sampling_for, strength_for

NOISE = NO_PICTURE - 1
"""A number that no picture has either, for the key of the noise that all of a blend share."""

_between = jax.jit(interpolate.slerp)


def blend(parts: Parts, request: BlendLatent, progress: Progress) -> Pictures:
    """Pictures between the middle squares of two: both get the same noise for the last share `strength` of the steps,
    and are drawn from points along the great circle between them [Wang23]. A net that reads pictures' embeddings
    begins with the same noise for all, unless a strength is asked for, and reads points along the great circle between
    the embeddings [Ramesh22, sec. 3.2]."""
    progress("text")
    strength, num, weights = strength_for(parts.config, request), request.num, request.weights
    shape, latents = parts.shape(None, None), None
    if strength is not None:
        latents = parts.encode(np.stack([fit(parts, image) for image in (request.a, request.b)]))
        shape = latents.shape[1:]
    captions = [request.caption, request.caption_to or request.caption]
    asked = mixed(conditions(parts, request, captions, shape), weights)
    asked = asked._replace(condition={**asked.condition, **seen(parts, request)})
    x_T = starts(parts.config, request, shape, latents)
    known = {"latent": x_T, "x_T": x_T, **beside(parts, shape, num)}
    start = Start("vary", known, strength or 1.0)
    return Pictures(draw_asked(parts, request, asked, range(num), progress, start), "strip")


def seen(parts: Parts, request: BlendLatent) -> dict[str, np.ndarray]:
    """What the net reads of embeddings on the way, with the same noise on all."""
    if parts.config.image_embedding is None:
        return {}
    a, b = (looks.embed(parts, image) for image in (request.a, request.b))
    embeddings = looks.between(a, b, request.weights)
    return looks.condition(parts, embeddings, request.noise_level or 0, request.seed, [0] * request.num)


def starts(config: Config, request: BlendLatent, shape: tuple[int, ...], latents: Latent | None) -> np.ndarray:
    """Where each picture begins, [M h w D]: the same noise, which two `latents` get as they are where the last share
    `strength` of the steps begins, and points between the two."""
    sampling, num = sampling_for(config, request), request.num
    noise = np.asarray(jax.random.normal(jax.random.fold_in(jax.random.key(request.seed), NOISE), shape))
    times = walked_times(config, sampling, strength_for(config, request) or 1.0)
    alpha, sigma = (float(value) for value in make_schedule(config.process)(float(times[0])))
    if latents is None:
        return np.repeat((noise if sampling.begin == "unit" else sigma * noise)[None], num, 0)
    both = (alpha * latents + sigma * noise).reshape(2, -1)
    return np.stack([_between(*both, weight) for weight in request.weights]).reshape(num, *shape)


def mixed(asked: Asked, weights: Float[np.ndarray, " N"]) -> Asked:
    """Of what is asked of two pictures, what is asked of those between them."""
    refiner = asked.refiner
    if refiner is not None:
        refiner = refiner._replace(condition=_mix(refiner.condition, weights), null=_mix(refiner.null, weights))
    return asked._replace(condition=_mix(asked.condition, weights), null=_mix(asked.null, weights), refiner=refiner)


def _mix(fields: Mapping[str, np.ndarray], weights: Float[np.ndarray, " N"]) -> dict[str, np.ndarray]:
    return {name: _mix_field(value[0], value[1], weights) for name, value in fields.items()}


def _mix_field(a: np.ndarray, b: np.ndarray, weights: Float[np.ndarray, " N"]) -> np.ndarray:
    """Rows on the straight line from a to b; of masks, what either shows, where it counts for something."""
    w = weights.reshape(-1, *a.ndim * (1,))
    if a.dtype == np.bool_:
        return ((w < 1) & a) | ((w > 0) & b)
    return ((1 - w) * a + w * b).astype(a.dtype)
