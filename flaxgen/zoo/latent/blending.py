"""Pictures between two, by their latents and by what captions say of them [Wang23]."""

from collections.abc import Mapping

import jax
import numpy as np
from jaxtyping import Float

from flaxgen.diffusion import interpolate
from flaxgen.family.pictures import Pictures
from flaxgen.family.process import make_schedule
from flaxgen.family.trained import Progress
from flaxgen.zoo.latent.config import Config, walked_times
from flaxgen.zoo.latent.drawing import Parts, beside, conditions, draw_asked, fit
from flaxgen.zoo.latent.model import NO_PICTURE, Asked, Latent, Start
from flaxgen.zoo.latent.requests import BlendLatent, sampling_for

NOISE = NO_PICTURE - 1
"""A number that no picture has either, for the key of the noise that all of a blend share."""

_between = jax.jit(interpolate.slerp)


def blend(parts: Parts, request: BlendLatent, progress: Progress) -> Pictures:
    """Pictures between the middle squares of two: both get the same noise for the last share `strength` of the steps,
    and are drawn from points along the great circle between them [Wang23]."""
    progress("text")
    both = parts.encode(np.stack([fit(parts, image) for image in (request.a, request.b)]))
    shape, num, weights = both.shape[1:], request.num, request.weights
    captions = [request.caption, request.caption_to or request.caption]
    asked = mixed(conditions(parts, request, captions, shape), weights)
    start = noised(parts.config, request, both)
    x_T = np.stack([_between(*start.reshape(2, -1), weight) for weight in weights]).reshape(num, *shape)
    known = {"latent": x_T, "x_T": x_T, **beside(parts, shape, num)}
    return Pictures(draw_asked(parts, request, asked, range(num), progress, Start("vary", known, request.strength)),
                    "strip")  # fmt: skip


def noised(config: Config, request: BlendLatent, latents: Latent) -> Latent:
    """The latents with the same noise, as they are where the last share `strength` of the steps begins."""
    times = walked_times(config, sampling_for(config, request), request.strength)
    alpha, sigma = make_schedule(config.process)(float(times[0]))
    noise = jax.random.normal(jax.random.fold_in(jax.random.key(request.seed), NOISE), latents.shape[1:])
    return float(alpha) * latents + float(sigma) * np.asarray(noise)


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
