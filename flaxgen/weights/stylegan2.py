"""The state_dicts of NVlabs' stylegan2-ada-pytorch, saved as safetensors <-> the variables of `Generator` and
`Discriminator`.

A state_dict holds beside the parameters the mean style, the constant noise, and at every layer that may resample the
same filter of 4x4 taps; the filters are checked, left out here and put back by the export.
"""

import functools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np

from flaxgen import programs
from flaxgen.nets.stylegan2 import Generator
from flaxgen.nets.stylegan2_discriminator import Discriminator
from flaxgen.nets.stylegan2_layers import BASE, FILTER
from flaxgen.types import Params, PRNGKey
from flaxgen.weights import store
from flaxgen.weights.convert import export_params, import_params
from flaxgen.weights.layouts import CONV, LINEAR, Layout
from flaxgen.weights.rules import Rule, tensor_namer, under
from flaxgen.weights.tree import leaves_of

Variables: TypeAlias = dict[str, Any]
"""{"params": ..., "buffers": ...}, the second of the generator only."""
TAPS = np.outer(FILTER, FILTER)
SUFFIX = ".resample_filter"

PICTURE = Layout(lambda x: x.transpose(1, 2, 0), lambda x: x.transpose(2, 0, 1), 3)
"""[channels, height, width] <-> [height, width, channels]"""
PIXELS = Layout(
    lambda x: x.reshape(len(x), -1, BASE, BASE).transpose(2, 3, 1, 0).reshape(-1, len(x)),
    lambda x: x.reshape(BASE, BASE, -1, x.shape[1]).transpose(3, 2, 0, 1).reshape(x.shape[1], -1),
    2,
)
"""A linear layer over all pixels: [out, (in, height, width)] <-> [(height, width, in), out]"""

DENSE = (Rule("weight", "kernel", LINEAR), Rule("bias", "bias"))
CONVOLUTION = (Rule("weight", "kernel", CONV), Rule("bias", "bias"))
MODULATED = (
    Rule("weight", "conv/kernel", CONV),
    *under([("affine", "conv/affine")], DENSE),
    Rule("bias", "bias"),
)
MAPPING = under([("mapping.embed", "params/mapping/embed"), ("mapping.fc{i}", "params/mapping/dense_{i}")], DENSE)
SYNTHESIS = (
    Rule("const", "const", PICTURE),
    *under([("conv{j}", "conv_{j}"), ("torgb", "to_image")], MODULATED),
    Rule("conv{j}.noise_strength", "conv_{j}/noise_strength"),
    Rule("skip.weight", "skip/kernel", CONV),
)
GENERATOR = (
    *MAPPING,
    Rule("mapping.w_avg", "buffers/w_avg"),
    *under([("synthesis.b{s}", "params/synthesis/block_{s}")], SYNTHESIS),
    Rule("synthesis.b{s}.conv{j}.noise_const", "buffers/synthesis/block_{s}/conv_{j}/noise_const"),
)
DISCRIMINATOR = (
    *MAPPING,
    *under(
        [
            ("b{s}.fromrgb", "params/block_{s}/from_image"),
            ("b{s}.conv{j}", "params/block_{s}/conv_{j}"),
            ("b4.conv", "params/block_4/conv"),
        ],
        CONVOLUTION,
    ),
    Rule("b{s}.skip.weight", "params/block_{s}/skip/kernel", CONV),
    Rule("b4.fc.weight", "params/block_4/dense/kernel", PIXELS),
    Rule("b4.fc.bias", "params/block_4/dense/bias"),
    *under([("b4.out", "params/block_4/out")], DENSE),
)


def import_generator(net: Generator, path: str | Path) -> Variables:
    """The variables (numpy, float32) of a generator from the state_dict of NVlabs' `Generator`.

    Raises:
        ValueError: naming the first tensor that is missing, extra, wrongly shaped or not finite, as one is where the
            state_dict is of another resolution, or a filter that is not StyleGAN2's.
        FileNotFoundError: if there is no such file.
    """
    return _import(net, GENERATOR, Path(path))


def import_discriminator(net: Discriminator, path: str | Path) -> Variables:
    """The variables (numpy, float32) of a discriminator; as `import_generator`."""
    return _import(net, DISCRIMINATOR, Path(path))


def export_generator(net: Generator, variables: Variables, path: str | Path) -> None:
    """Writes what NVlabs' `Generator.load_state_dict` takes; the inverse of `import_generator`, bit for bit.

    Raises:
        ValueError: naming a tensor that is not the net's, or not finite.
    """
    _export(net, GENERATOR, variables, Path(path))


def export_discriminator(net: Discriminator, variables: Variables, path: str | Path) -> None:
    """Writes what NVlabs' `Discriminator.load_state_dict` takes; as `export_generator`."""
    _export(net, DISCRIMINATOR, variables, Path(path))


def abstract_variables(net: Generator | Discriminator) -> Params:
    """The shapes and dtypes of the variables, as ShapeDtypeStructs."""
    return programs.shapes(functools.partial(_init, net))


def _init(net: Generator | Discriminator, key: PRNGKey) -> Params:
    label = jnp.zeros(1, jnp.int32) if net.num_classes else None
    if isinstance(net, Generator):
        x = jnp.zeros((1, net.latent_dim))
    else:
        x = jnp.zeros((1, net.image_size, net.image_size, net.channels))
    return net.init(key, x, label)


def _import(net: Generator | Discriminator, rules: Sequence[Rule], path: Path) -> Variables:
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}")
    tensors, like = store.open_file(path), abstract_variables(net)
    expected = list(map(tensor_namer(rules), leaves_of(like)))
    filters = filter_names(expected)
    store.check_names(tensors, {*expected, *filters}, str(path))
    for name in sorted(filters):
        if not np.array_equal(tensors[name], TAPS):
            raise ValueError(f"{path}: {name!r} is not the filter of taps 1 3 3 1 that flaxgen's nets resample by")
    return import_params(rules, tensors.without(filters), like, str(path))


def _export(net: Generator | Discriminator, rules: Sequence[Rule], variables: Variables, path: Path) -> None:
    tensors = export_params(rules, variables, abstract_variables(net))
    store.write_file(path, {**tensors, **dict.fromkeys(filter_names(tensors), TAPS)})


def filter_names(tensors: Iterable[str]) -> set[str]:
    """Where a net of these tensors keeps the filter: at every block but the discriminator's last, and every convolution
    that has no style or may resample."""
    names = set(tensors)
    layers = {match[1] for name in names if (match := re.fullmatch(r"(.*\.(conv\d?|fromrgb|skip))\.weight", name))}
    blocks = {match[1] for name in names if (match := re.match(r"((?:synthesis\.)?b\d+)\.", name))}
    return {f"{owner}{SUFFIX}" for owner in (layers | blocks) - {f"b{BASE}"}}
