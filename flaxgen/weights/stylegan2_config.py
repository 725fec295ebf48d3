"""Of NVlabs' state_dicts of StyleGAN2, the fields of `Generator` and `Discriminator`: from names and shapes."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from flaxgen.nets.stylegan2 import Generator
from flaxgen.nets.stylegan2_discriminator import Discriminator
from flaxgen.nets.stylegan2_layers import BASE
from flaxgen.weights import store

Shapes = Mapping[str, tuple[int, ...]]
MARKS = {"generator": f"synthesis.b{BASE}.const", "discriminator": f"b{BASE}.out.weight"}
"""A tensor that every such state_dict has, and no other net."""


def read_shapes(path: Path) -> Shapes:
    """The shapes of a safetensors file's tensors by their names; ValueError as `store.read_header`."""
    return {name: entry.shape for name, entry in store.read_header(path).items()}


def kind_of(shapes: Shapes) -> Literal["generator", "discriminator"] | None:
    """Which of NVlabs' nets has tensors of these names; None if neither."""
    if MARKS["generator"] in shapes:
        return "generator"
    return "discriminator" if MARKS["discriminator"] in shapes else None


def generator_from_shapes(shapes: Shapes, where: str) -> Generator:
    """The generator of such a state_dict. Its clamp, dtype and dtype_blocks are in no tensor, and hold defaults.

    What does not fit together here is refused by the import, tensor by tensor.

    Raises:
        ValueError: naming a tensor that is missing, or of a shape that no such net has.
    """
    blocks = _blocks(shapes, "synthesis.")
    image_size = max(blocks)
    classes, style_dim = _classes(shapes, where), _size(shapes, "mapping.w_avg", 0, 1, where)
    widths = {s: _size(shapes, f"synthesis.b{s}.conv1.weight", 0, 4, where) for s in blocks}
    latent_dim = _size(shapes, "mapping.fc0.weight", 1, 2, where) - (style_dim if classes else 0)
    if latent_dim < 1:
        shape = shapes["mapping.fc0.weight"]
        raise ValueError(f"{where}: tensor 'mapping.fc0.weight' has shape {shape}, which leaves no inputs for a latent")
    return Generator(
        image_size=image_size,
        channels=_size(shapes, f"synthesis.b{image_size}.torgb.weight", 0, 4, where),
        latent_dim=latent_dim,
        style_dim=style_dim,
        num_classes=classes,
        mapping_depth=_depth(shapes),
        channel_base=_channel_base(widths),
        channel_max=max(widths.values()),
        architecture=_architecture(shapes, "synthesis.", f"synthesis.b{BASE}.torgb.weight"),
    )


def discriminator_from_shapes(shapes: Shapes, where: str) -> Discriminator:
    """The discriminator of such a state_dict; as `generator_from_shapes`, and its group is in no tensor either."""
    blocks = _blocks(shapes, "")
    image_size = max(blocks)
    widths = {s: _size(shapes, f"b{s}.conv0.weight", 0, 4, where) for s in blocks if s > BASE}
    widths[BASE] = _size(shapes, f"b{BASE}.conv.weight", 0, 4, where)
    return Discriminator(
        image_size=image_size,
        channels=_size(shapes, f"b{image_size}.fromrgb.weight", 1, 4, where),
        num_classes=_classes(shapes, where),
        mapping_depth=_depth(shapes) if _classes(shapes, where) else Discriminator.mapping_depth,
        channel_base=_channel_base(widths),
        channel_max=max(widths.values()),
        architecture=_architecture(shapes, "", f"b{BASE}.fromrgb.weight"),
        deviations=_size(shapes, f"b{BASE}.conv.weight", 1, 4, where) - widths[BASE],
    )


def discriminator_for(generator: Generator) -> Discriminator:
    """NVlabs' discriminator for such a generator, where there is no state_dict of one."""
    return Discriminator(
        image_size=generator.image_size,
        channels=generator.channels,
        num_classes=generator.num_classes,
        channel_base=generator.channel_base,
        channel_max=generator.channel_max,
    )


def _size(shapes: Shapes, name: str, axis: int, ndim: int, where: str) -> int:
    if name not in shapes:
        raise ValueError(f"{where}: tensor {name!r} is missing")
    if len(shapes[name]) != ndim:
        raise ValueError(f"{where}: tensor {name!r} has shape {shapes[name]}, expected {ndim} dimensions")
    return shapes[name][axis]


def _blocks(shapes: Shapes, prefix: str) -> list[int]:
    """The sizes that doubling from 4 reaches, up to the largest block."""
    found = [int(m[1]) for name in shapes if (m := re.match(rf"{re.escape(prefix)}b([1-9]\d*)\.", name))]
    return [BASE << i for i in range(max(found).bit_length()) if BASE << i <= max(found)]


def _classes(shapes: Shapes, where: str) -> int:
    embed = "mapping.embed.weight"
    return _size(shapes, embed, 1, 2, where) if embed in shapes else 0


def _depth(shapes: Shapes) -> int:
    return sum(re.fullmatch(r"mapping\.fc\d+\.weight", name) is not None for name in shapes)


def _channel_base(widths: Mapping[int, int]) -> int:
    """The smallest that gives these widths, as far as channel_base over size can."""
    return max(size * width for size, width in widths.items())


def _architecture(shapes: Shapes, prefix: str, skips: str) -> str:
    if any(re.fullmatch(rf"{re.escape(prefix)}b\d+\.skip\.weight", name) for name in shapes):
        return "resnet"
    return "skip" if skips in shapes else "orig"
