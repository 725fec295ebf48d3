"""Larger pictures from given ones: what lies around them [Rombach22]."""

import numpy as np
from jaxtyping import UInt8

from flaxgen.family import regions
from flaxgen.family.pictures import Pictures
from flaxgen.family.trained import Progress
from flaxgen.zoo.latent.config import multiple
from flaxgen.zoo.latent.drawing import Parts, conditions, draw_asked, known_of
from flaxgen.zoo.latent.model import Start
from flaxgen.zoo.latent.requests import OutpaintLatent

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


def _up(side: int, step: int) -> int:
    """The next multiple."""
    return -(-side // step) * step
