"""ControlNet as a part of a model of latent diffusion [Zhang23]: its declaration, and how a picture is its hint."""

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image

from flaxgen.data import Data
from flaxgen.family.family import Family
from flaxgen.family.trained import Trained
from flaxgen.nets.controlnet import ControlNet
from flaxgen.nets.unet import Residuals, UNet
from flaxgen.train.config import require
from flaxgen.train.run import Run
from flaxgen.types import Condition, Params, PRNGKey
from flaxgen.weights import controlnet

SAME = ("widths", "depth", "conv_in_channels", "token_dim", "vector_dim", "num_classes")
"""Fields in which a ControlNet's UNet has to be the one that it steers."""
MOST_CUT = 0.5
"""A hint of another shape than the drawing's is cut to it, if no larger share than this one is lost."""
NAMES = ("controlnet", "controlnet_2")
"""What ControlNets are called as parts; all that have a hint steer together."""
STEERED = "steered"
"""The field of a condition that says whether its examples are steered, where that is not all of them."""
WEAKEST = -1
"""The power of 10 that multiplies the largest feature maps' residuals where captions are guessed; the middle's is 0."""
Steer = Callable[[Float[Array, "B h w D"], Float[Array, " B"], Condition], Residuals]
"""(x, time, condition) -> what the UNet adds."""


@dataclass(frozen=True, kw_only=True)
class Config(Run):
    """An imported ControlNet; what it was trained on is not known."""

    data: Data
    net: ControlNet


class Control(NamedTuple):
    """What steers a drawing: a ControlNet, its hint in [0, 1], and how far it is followed."""

    model: Trained
    hint: Float[np.ndarray, "H W C"]
    strength: float

    @property
    def arguments(self) -> dict[str, Any]:
        """All of it that may change without compiling again."""
        return {"params": self.model.params, "hint": self.hint, "strength": self.strength}


def init_params(config: Config, key: PRNGKey) -> Params:
    """Fresh parameters, with which it adds nothing."""
    return controlnet.init_params(config.net, key)


def batch_spec(config: Config) -> dict[str, jax.ShapeDtypeStruct]:
    """Nothing: it is not trained here."""
    return {}


FAMILY = Family(
    name="controlnet",
    config=Config,
    type_name="ImportedControlNet",
    init_params=init_params,
    batch_spec=batch_spec,
    is_trainable=lambda config: False,
    instead="steers a model of latent diffusion, and draws nothing by itself: draw with the model that `flaxgen "
    "compose DIR controlnet=... denoiser=... autoencoder=... clip=...` makes of it and the other parts",
)


def make_steer(
    nets: Sequence[ControlNet], arguments: Sequence[dict[str, Any]], read: Callable[[Condition], Any]
) -> Steer:
    """The nets with their hints in place, whose residuals are added up; `read` makes of a condition a net's keywords.
    Where the condition says what is STEERED, captions are guessed: what says nothing is not steered, and the residuals
    of large feature maps count less [Zhang23, sec. 3.4; weights as in their code]."""

    def steer(x, time, condition):
        said = {name: value for name, value in condition.items() if name != STEERED}

        def added(net: ControlNet, given: dict[str, Any]) -> Residuals:
            residuals = net.apply({"params": given["params"]}, x, time, given["hint"][None], **read(said))
            return jax.tree.map(lambda residual: given["strength"] * residual, residuals)

        found = itertools.starmap(added, zip(nets, arguments, strict=True))
        total = functools.reduce(lambda ours, more: jax.tree.map(jnp.add, ours, more), found)
        return _guessed(total, condition[STEERED]) if STEERED in condition else total

    return steer


def _guessed(added: Residuals, steered: Float[Array, " B"]) -> Residuals:
    """The residuals of what is steered, the less the larger their feature maps are."""
    weights = np.logspace(WEAKEST, 0, len(added.skips) + 1, dtype=np.float32)
    *skips, middle = (
        weight * steered[:, None, None, None] * residual
        for weight, residual in zip(weights, (*added.skips, added.middle), strict=True)
    )
    return Residuals(tuple(skips), middle)


def check_fits(net: ControlNet, unet: Any, factor: int) -> None:
    """Raises ValueError unless the ControlNet steers such a UNet over latents `factor` times as small as pictures."""
    require(
        isinstance(unet, UNet), f"controlnet steers a UNet, and the denoiser is a {type(unet).__name__}: leave it out"
    )
    for name in SAME:
        ours, other = getattr(net.unet, name), getattr(unet, name)
        require(ours == other, f"controlnet was made for another UNet: {name}={ours} where the denoiser has {other}")
    channels = net.unet.in_channels
    require(channels == unet.out_channels, f"controlnet was made for another UNet: it reads latents of {channels} "
            f"channels, and the denoiser's have {unet.out_channels}")  # fmt: skip
    require(net.factor == factor, f"controlnet reads hints {net.factor} times as large as latents, and the autoencoder "
            f"makes pictures {factor} times as large")  # fmt: skip
    require(net.hint_channels in (1, 3), f"controlnet reads hints of {net.hint_channels} channels, expected 1 or 3: "
            "pictures have no others")  # fmt: skip


def fit_hint(pixels: UInt8[np.ndarray, "H W C"], height: int, width: int) -> Float[np.ndarray, "{height} {width} C"]:
    """The middle of a picture in the shape of a drawing, at its size and in [0, 1].

    Raises:
        ValueError: if more than half of it would be cut off.
    """
    rows, columns = pixels.shape[:2]
    scale = min(rows / height, columns / width)
    cut = [max(round(side * scale), 1) for side in (height, width)]
    top, left = (rows - cut[0]) // 2, (columns - cut[1]) // 2
    require(
        cut[0] * cut[1] >= (1 - MOST_CUT) * rows * columns,
        f"the hint is {columns}x{rows} and the drawing {width}x{height}: expected like shapes, as more than half of it "
        "would be cut off",
    )
    middle = pixels[top : top + cut[0], left : left + cut[1]]
    if middle.shape[:2] != (height, width):
        image = Image.fromarray(middle[..., 0] if middle.shape[-1] == 1 else middle)
        middle = np.asarray(image.resize((width, height), Image.Resampling.LANCZOS)).reshape(height, width, -1)
    return middle.astype(np.float32) / 255
