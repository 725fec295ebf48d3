"""What the modules of a model are called in LoRA files, by name and not by pattern: every name that a layout has for a
module of these nets, made from the rule tables.

peft and diffusers use the dotted names of diffusers' and transformers' modules behind the name of the part; kohya's
trainer writes them with "_" for ".", of SDXL's UNet the names of Stability's code instead.
"""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from flax import linen as nn

from flaxgen.nets.clip import CLIP
from flaxgen.nets.mmdit import MMDiT
from flaxgen.nets.unet import UNet
from flaxgen.weights import clip, dit, ldm_unet, mmdit, unet2d, unet_condition
from flaxgen.weights.rules import tensor_namer
from flaxgen.weights.tree import leaves_of

DIFFUSERS = {"unet": "unet", "clip": "text_encoder", "clip_2": "text_encoder_2"}
"""What diffusers calls the parts of a model."""
TRANSFORMER = "transformer"
"""What it calls the net where that is an MMDiT."""
Net = UNet | MMDiT | CLIP
KOHYA = {"unet": ("lora_unet",), "clip": ("lora_te", "lora_te1"), "clip_2": ("lora_te2",)}
OLD = ((r"(attn\d)\.to_([qkv]|out)(\.0)?$", r"\1.processor.to_\2"), (r"(self_attn)\.([qkv]|out)_proj$", r"\1.to_\2"))
"""Attention in older versions of diffusers, of UNets and of text towers."""


class Place(NamedTuple):
    """A kernel that a LoRA can move: its part and path, the module's name in diffusers, and the kernel's shape; `there`
    is what diffusers calls the part."""

    part: str
    path: str
    module: str
    shape: tuple[int, ...]
    there: str


def places(targets: Mapping[str, nn.Module]) -> dict[str, Place]:
    """The kernel behind every name that a LoRA file can have for a module of these nets.

    Raises:
        ValueError: naming a part that is not in DIFFUSERS, a net that no LoRA files are read for, or a name that
            stands for two modules.
    """
    found: dict[str, Place] = {}
    for part, net in targets.items():
        if part not in DIFFUSERS:
            raise ValueError(f"part={part!r} is none of a model's, expected {', '.join(DIFFUSERS)}")
        if not isinstance(net, Net):
            raise ValueError(f"a {type(net).__name__} takes no LoRA here, only a UNet or an MMDiT: draw without it")
        for place, original in _kernels(part, net):
            for name in {*_names(place), *_kohya(part, original or place.module)}:
                if (first := found.setdefault(name, place)) != place:
                    raise ValueError(f"{first.path!r} and {place.path!r} are both {name!r} in LoRA files")
    return found


def _kernels(part: str, net: Net) -> Iterator[tuple[Place, str]]:
    """Every kernel of a net, and its module's name in the original code, "" where LoRA files do not use that."""
    if isinstance(net, UNet):
        like, rules, originals = unet2d.abstract_params(net), unet_condition.rules_of(net), ldm_unet.rules_for(net)
    elif isinstance(net, MMDiT):
        like, rules, originals = dit.abstract_params(net), mmdit.rules_of(net), None
    else:
        like, rules, originals = clip.abstract_params(net), clip.RULES, None
    there = TRANSFORMER if isinstance(net, MMDiT) else DIFFUSERS[part]
    name, original = tensor_namer(rules), tensor_namer(originals) if originals else None
    for path, leaf in leaves_of(like).items():
        if path.endswith("/kernel"):
            module = name(path).removesuffix(".weight")
            yield (
                Place(part, path, module, leaf.shape, there),
                original(path).removesuffix(".weight") if original else "",
            )


def _names(place: Place) -> Iterator[str]:
    """What peft, diffusers in its versions, and kohya's trainer with diffusers' paths call a module."""
    bare = place.module.removeprefix("text_model.")
    for module in (place.module, bare, *(re.sub(*old, place.module) for old in OLD)):
        yield f"{place.there}.{module}"
        if place.part == "unet":  # saved alone, without the part
            yield module
    yield from _kohya(place.part, place.module)


def _kohya(part: str, module: str) -> Iterator[str]:
    for prefix in KOHYA[part]:
        yield f"{prefix}_{module.replace('.', '_')}"
