"""What the modules of a model are called in LoRA files, by name and not by pattern: every name that a layout has for a
module of these nets, made from the rule tables.

peft and diffusers use the dotted names of diffusers' and transformers' modules behind the name of the part; kohya's
trainer writes them with "_" for ".", of the nets of SDXL and SD 3 the names of Stability's code instead.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from flax import linen as nn

from flaxgen.nets.clip import CLIP
from flaxgen.nets.mmdit import MMDiT
from flaxgen.nets.unet import UNet
from flaxgen.types import Params
from flaxgen.weights import clip, dit, ldm_unet, mmdit, sd3_single, unet2d, unet_condition
from flaxgen.weights.rules import Rule, row_finder
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
    """A kernel that a LoRA can move: its part and path, the module's name in diffusers or in the original code, and the
    kernel's shape; `there` is what diffusers calls the part. Its columns are the rows `spans` of the module's, from one
    up to another number, of which there are `total`; () is all of them in their order."""

    part: str
    path: str
    module: str
    shape: tuple[int, ...]
    there: str
    spans: tuple[tuple[int, int], ...] = ()
    total: int = 0

    def rows(self) -> np.ndarray:
        """The module's row of each column."""
        return np.concatenate([np.arange(*span) for span in self.spans or ((0, self.shape[-1]),)])


def places(targets: Mapping[str, nn.Module]) -> dict[str, tuple[Place, ...]]:
    """The kernel behind every name that a LoRA file can have for a module of these nets, or the several kernels that
    are one module in the original code.

    Raises:
        ValueError: naming a part that is not in DIFFUSERS, a net that no LoRA files are read for, or a name that
            stands for two modules.
    """
    found: dict[str, tuple[Place, ...]] = {}
    for part, net in targets.items():
        if part not in DIFFUSERS:
            raise ValueError(f"part={part!r} is none of a model's, expected {', '.join(DIFFUSERS)}")
        if not isinstance(net, Net):
            raise ValueError(f"a {type(net).__name__} takes no LoRA here, only a UNet or an MMDiT: draw without it")
        like, rules, originals = _tables(net)
        for is_original, table in enumerate((rules, originals)):
            for module in _modules(part, net, like, table):
                names = _kohya(part, module[0].module) if is_original else _names(module[0])
                for name in set(names):
                    first = found.setdefault(name, module)
                    if [place.path for place in first] != [place.path for place in module]:
                        raise ValueError(f"{first[0].path!r} and {module[0].path!r} are both {name!r} in LoRA files")
    return found


def module_of(targets: Mapping[str, nn.Module]) -> dict[tuple[str, str], Place]:
    """By part and path, the module that diffusers has for each kernel."""
    return {
        (place.part, place.path): place
        for part, net in targets.items()
        if isinstance(net, Net)
        for module in _modules(part, net, *_tables(net)[:2])
        for place in module
    }


def _tables(net: Net) -> tuple[Params, Sequence[Rule], Sequence[Rule]]:
    """The parameters of a net, the names of its tensors in diffusers, and those in the original code where LoRA files
    use them."""
    if isinstance(net, UNet):
        return unet2d.abstract_params(net), unet_condition.rules_of(net), ldm_unet.rules_for(net)
    if isinstance(net, MMDiT):
        return dit.abstract_params(net), mmdit.rules_of(net), sd3_single.net_rules(net)
    return clip.abstract_params(net), clip.RULES, ()


def _modules(part: str, net: Net, like: Params, rules: Sequence[Rule]) -> Iterator[tuple[Place, ...]]:
    """The kernels of every module that the rules name."""
    there = TRANSFORMER if isinstance(net, MMDiT) else DIFFUSERS[part]
    find, found = row_finder(rules), dict[str, list[Place]]()
    for path, leaf in leaves_of(like).items():
        if rules and path.endswith("/kernel"):
            name, rows = find(path, leaf.shape[-1])
            module = name.removesuffix(".weight")
            found.setdefault(module, []).append(Place(part, path, module, leaf.shape, there, _spans(rows)))
    for module in found.values():
        total = sum(place.shape[-1] for place in module)
        is_whole = module[0].spans == ((0, total),)
        yield tuple(place._replace(spans=() if is_whole else place.spans, total=total) for place in module)


def _spans(rows: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Numbers as spans of one after the other."""
    cuts = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
    return tuple((int(cut[0]), int(cut[-1]) + 1) for cut in cuts)


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
