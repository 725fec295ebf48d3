"""The published weights of LPIPS and of the VGG16 it stands on -> the parameters of `Lpips`.

They come in one safetensors file. It may hold torchvision's VGG16 beside the weights of the channels:

    import torch, torchvision; from safetensors.torch import save_file
    weights = torchvision.models.vgg16(weights="IMAGENET1K_V1").state_dict() | torch.load("vgg.pth", weights_only=True)
    save_file(weights, "lpips.safetensors")

where vgg.pth is that of the package lpips (v0.1), or be the state_dict of its net, or of a run of taming-transformers,
whose loss has one. Left out are VGG16's dense layers, "classifier.", and what these state_dicts hold twice or beside
LPIPS.
"""

import functools
import re
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from flaxgen import programs
from flaxgen.nets.lpips import SCALE, SHIFT, WIDTHS, Lpips
from flaxgen.types import Params, PRNGKey
from flaxgen.weights import store
from flaxgen.weights.convert import import_params
from flaxgen.weights.layouts import CONV, SAME, squeeze
from flaxgen.weights.lazy import Lazy
from flaxgen.weights.rules import Rule

RUN = "loss.perceptual_loss."
"""Where LPIPS lies in a checkpoint of taming-transformers."""
LEFT_OUT = ("classifier.", "lins.", "scaling_layer.")
WHITENING = {"scaling_layer.shift": SHIFT, "scaling_layer.scale": SCALE}
CHANNELS = squeeze((0, 2, 3), SAME, 4)
"""[1, channels, 1, 1] <-> [channels]"""


def import_lpips(path: str | Path, net: Lpips | None = None) -> dict[str, Any]:
    """The parameters (numpy, float32) of `net`, None for the published one.

    Raises:
        ValueError: naming a tensor that is missing, extra, wrongly shaped or not finite, or another whitening.
        FileNotFoundError: if there is no such file.
    """
    path, net = Path(path), net or Lpips()
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}: flaxgen/weights/lpips.py says how to make one")
    tensors = store.open_file(path)
    if any(name.startswith(RUN) for name in tensors):
        tensors = tensors.without(name for name in tensors if not name.startswith(RUN))
        tensors = tensors.renamed(lambda name: name.removeprefix(RUN))
    _check_whitening(tensors, str(path))
    tensors = tensors.without(name for name in tensors if name.startswith(LEFT_OUT)).renamed(_torchvisions_name)
    return import_params(rules_for(net), tensors, abstract_params(net), str(path))


def _check_whitening(tensors: Lazy, where: str) -> None:
    for name, values in WHITENING.items():
        if name in tensors and not np.allclose(tensors[name].reshape(-1), values):
            raise ValueError(f"{where}: {name!r} is not {values}, by which LPIPS v0.1 whitens pictures in [-1, 1]")


def _torchvisions_name(name: str) -> str:
    """Of VGG16's tensors, in which LPIPS counts layers on through slices; the weights of channels get one name."""
    if match := re.fullmatch(r"net\.slice\d\.(\d+\.\w+)", name):
        return f"features.{match[1]}"
    match = re.fullmatch(r"lin(\d)\.(?:model\.\d\.)?weight", name)
    return f"lin{match[1]}.weight" if match else name


def rules_for(net: Lpips) -> tuple[Rule, ...]:
    """The names at torchvision and lpips; VGG16's count ReLUs and maxima too."""
    rules, place = [Rule(f"lin{i}.weight", f"weight_{i}", CHANNELS) for i in range(len(net.widths))], 0
    for i, group in enumerate(net.widths):
        for j in range(len(group)):
            module = f"vgg/conv_{i}_{j}"
            rules.append(Rule(f"features.{place}.weight", f"{module}/kernel", CONV))
            rules.append(Rule(f"features.{place}.bias", f"{module}/bias"))
            place += 2
        place += 1
    return tuple(rules)


def abstract_params(net: Lpips) -> Params:
    """The shapes and dtypes of the parameters, as ShapeDtypeStructs."""
    return programs.shapes(functools.partial(_init, net))["params"]


def _init(net: Lpips, key: PRNGKey) -> Params:
    size = 2 ** (len(WIDTHS) - 1)
    x = jnp.zeros((1, size, size, len(SHIFT)))
    return net.init(key, x, x)
