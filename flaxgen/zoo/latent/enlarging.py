"""Larger pictures from given ones: with what lies around them, or drawn anew at a larger size [Rombach22]."""

import jax
import numpy as np
from jaxtyping import UInt8

from flaxgen.family import regions
from flaxgen.family.pictures import Pictures
from flaxgen.family.trained import Progress
from flaxgen.train.config import require
from flaxgen.zoo.latent.config import fills_in, multiple
from flaxgen.zoo.latent.drawing import Parts, beside, conditions, draw_asked, known_of
from flaxgen.zoo.latent.model import Latent, Start
from flaxgen.zoo.latent.requests import OutpaintLatent, UpscaleLatent

LARGEST = 2
"""The shorter side of what is drawn, in sizes that the net was made for, at most; at least it is one."""


def outpaint(parts: Parts, request: OutpaintLatent, progress: Progress) -> Pictures:
    """The picture on a larger ground, drawn at its own size as far as the net knows such sizes; all of the picture but
    its edge stays."""
    progress("text")
    image = request.image.with_channels(parts.autoencoder.config.net.in_channels)
    ground = regions.ground(image, request.margins, request.feather)
    shorter, known_size = min(ground.image.shape[:2]), parts.image_size
    scale = float(np.clip(shorter, known_size, LARGEST * known_size) / shorter)
    height, width = (_up(round(side * scale), parts.factor * multiple(parts.config)) for side in ground.image.shape[:2])

    def cut(pixels: UInt8[np.ndarray, "H W C"]) -> UInt8[np.ndarray, "h w C"]:
        return ground.fit(pixels, scale, height, width)

    known = known_of(parts, *ground.cut(scale, height, width), request.num)
    asked = conditions(parts, request, [request.caption] * request.num, known["latent"].shape[1:], cut)
    drawn = draw_asked(parts, request, asked, range(request.num), progress, Start("inpaint", known))
    return Pictures(ground.put(drawn, scale))


def upscale(parts: Parts, request: UpscaleLatent, progress: Progress) -> Pictures:
    """The picture at a larger size, with noise for the last share `strength` of the steps, drawn from there. In tiles,
    the net sees one at a time, in every step, and what it makes of them is blended [BarTal23]."""
    require(
        not (request.tile and fills_in(parts.config)),
        f"tile={request.tile}: a net that fills in does not draw in tiles, expected 0",
    )
    progress("text")
    image = request.image.with_channels(parts.autoencoder.config.net.in_channels)
    rows, columns = (round(side * request.factor) for side in image.shape[:2])
    step = parts.factor * multiple(parts.config)
    height, width, tile = (_up(side, step) for side in (rows, columns, request.tile))

    def cut(pixels: UInt8[np.ndarray, "H W C"]) -> UInt8[np.ndarray, "h w C"]:
        return regions.fitted(pixels, (rows, columns), height, width)

    if request.through == "latents":
        latent = _larger(parts, image, request, (height // parts.factor, width // parts.factor))
    else:
        latent = parts.encode(cut(image)[None], request.tile)
    seen = [min(side, tile or side) // parts.factor for side in (height, width)]
    shape = (seen[0], seen[1], latent.shape[-1])
    asked = conditions(parts, request, [request.caption] * request.num, shape, cut)
    known = {"latent": np.repeat(latent, request.num, 0), **beside(parts, latent.shape[1:], request.num)}
    start = Start("vary", known, request.strength, tile // parts.factor)
    drawn = draw_asked(parts, request, asked, range(request.num), progress, start)
    return Pictures(drawn[:, :rows, :columns])


def _larger(parts: Parts, image: UInt8[np.ndarray, "H W C"], request: UpscaleLatent, wanted: tuple[int, int]) -> Latent:
    """The picture's latents, bilinearly enlarged and mirrored up to the sides that are wanted."""
    whole = [_up(side, parts.factor) for side in image.shape[:2]]
    small = parts.encode(regions.fitted(image, image.shape[:2], *whole)[None], request.tile)
    sides = [round(side * request.factor) for side in small.shape[1:3]]
    large = np.asarray(jax.image.resize(small, (1, *sides, small.shape[-1]), "linear", antialias=False))
    more = [(0, max(side - have, 0)) for side, have in zip(wanted, sides, strict=True)]
    return np.pad(large, ((0, 0), *more, (0, 0)), "symmetric")[:, : wanted[0], : wanted[1]]


def _up(side: int, step: int) -> int:
    """The next multiple."""
    return -(-side // step) * step
