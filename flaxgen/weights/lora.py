"""LoRA files [Hu22] <-> factors by parameter path, and their sum with the parameters.

A LoRA moves a kernel by scale * down up, where down leads to a few dimensions, its rank, and up back from there; scale
is alpha / rank. Read are peft's, diffusers' and kohya's layouts, of convolutions too (LoCon); written is peft's.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from flaxgen import bounded_json
from flaxgen.types import Params, Scalar
from flaxgen.weights import store
from flaxgen.weights.fields import NUMBER
from flaxgen.weights.header import check_file
from flaxgen.weights.lora_names import Place, module_of, places
from flaxgen.weights.tree import leaves_of, unflatten

DOWN, UP, ALPHA = "down", "up", "alpha"
ENDINGS = {
    ".lora_A.weight": DOWN,
    ".lora_B.weight": UP,
    ".lora.down.weight": DOWN,
    ".lora.up.weight": UP,
    "_lora.down.weight": DOWN,
    "_lora.up.weight": UP,
    ".lora_linear_layer.down.weight": DOWN,
    ".lora_linear_layer.up.weight": UP,
    ".lora_down.weight": DOWN,
    ".lora_up.weight": UP,
    ".alpha": ALPHA,
}
"""What names of tensors end in, behind a module's."""
OTHERS = {
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "hada_": "LoHa",
    "lokr_": "LoKr",
    "lora_mid": "LoCon with a core between down and up",
}
"""Other methods, by what names of their tensors have in them."""
OF_T5 = ("lora_te3_", "text_encoder_3.")
"""What names of tensors begin with that move the T5 of SD 3."""
METADATA = "lora_adapter_metadata"
"""Where diffusers keeps peft's configs of all parts in a file's header."""


class Factors(NamedTuple):
    """What is added to a kernel [... in, out] at strength 1: scale * down @ up."""

    down: Any
    """[... in, rank], the dots a convolution's height and width."""
    up: Any
    """[rank, out]"""
    scale: Any


Lora = dict[str, dict[str, Factors]]
"""By part ("unet", "clip", "clip_2") and by parameter path there."""


def merge(params: Params, loras: Sequence[tuple[Mapping[str, Factors], Scalar]]) -> dict[str, Any]:
    """The parameters of a part with LoRAs in them, each of its strength; pure, so that under `jax.jit` a strength is
    an argument and another one compiles nothing. Sums are float32; dtypes stay.

    Raises:
        ValueError: naming a path that the parameters do not have, or whose shape is another.
    """
    leaves, moves = leaves_of(params), dict[str, jax.Array]()
    for factors, strength in loras:
        for path, (down, up, scale) in factors.items():
            shape = (*down.shape[:-1], up.shape[-1])
            if path not in leaves or leaves[path].shape != shape:
                there = leaves[path].shape if path in leaves else "none"
                raise ValueError(
                    f"a LoRA moves {path!r} of shape {shape}, these parameters have {there}: another model"
                )
            move = strength * scale * jnp.matmul(*_float32(down, up), precision="highest")
            moves[path] = moves[path] + move if path in moves else move
    moved = {path: (leaves[path].astype(jnp.float32) + move).astype(leaves[path].dtype) for path, move in moves.items()}
    return unflatten(leaves | moved)


def _float32(*arrays: Any) -> list[jax.Array]:
    return [jnp.asarray(array, jnp.float32) for array in arrays]


def read_lora(path: str | Path, targets: Mapping[str, nn.Module]) -> Lora:
    """The LoRA in a file (numpy, float32) for the nets of these parts; of a part that it leaves alone nothing.

    Raises:
        ValueError: if the file is of another method than LoRA, or naming the first tensor that has no place in the
            nets, no counterpart, or another shape.
        FileNotFoundError: if there is no such file.
    """
    path = Path(path)
    check_file(path)
    tensors, known, configs = store.open_file(path), places(targets), _configs(path)
    found: dict[Place, dict[str, str]] = {}
    for name in sorted(tensors):
        module, role = _module_of(name, known, path)
        for place in module:
            if (first := found.setdefault(place, {}).setdefault(role, name)) != name:
                raise ValueError(f"{path}: tensors {first!r} and {name!r} are both {role} of {place.path!r}")
    lora: Lora = {part: {} for part in targets}
    for place, names in found.items():
        if place.path in lora[place.part]:
            raise ValueError(f"{path}: tensor {next(iter(names.values()))!r} moves {place.path!r}, which another does")
        values = {role: np.asarray(tensors[name], np.float32) for role, name in names.items()}
        lora[place.part][place.path] = _factors(place, names, values, configs, path)
    return {part: factors for part, factors in lora.items() if factors}


def _module_of(name: str, known: Mapping[str, tuple[Place, ...]], path: Path) -> tuple[tuple[Place, ...], str]:
    """The kernels that a tensor is of, and what it is to them."""
    if other := next((method for mark, method in OTHERS.items() if mark in name), None):
        raise ValueError(f"{path}: tensor {name!r} is of {other}, expected LoRA: not supported")
    if name.startswith(OF_T5):
        raise ValueError(
            f"{path}: tensor {name!r} moves a T5, of which no LoRAs are read: expected a file without them"
        )
    for ending, role in ENDINGS.items():
        if name.endswith(ending) and (module := known.get(name.removesuffix(ending))):
            return module, role
    raise ValueError(f"{path}: tensor {name!r} has no place in this model: the LoRA is of another one")


def _factors(
    place: Place, names: Mapping[str, str], values: Mapping[str, np.ndarray], configs: Mapping[str, Any], path: Path
) -> Factors:
    for role in (DOWN, UP):
        if role not in names:
            raise ValueError(f"{path}: tensor {next(iter(names.values()))!r} has no {role!r} beside it")
    laid_out = {role: _laid_out(values[role]) for role in (DOWN, UP)}
    if place.spans and laid_out[UP].shape[-1] == place.total:
        laid_out[UP] = laid_out[UP][..., place.rows()]
    rank, (*sides, inputs, outputs) = laid_out[DOWN].shape[-1], place.shape
    window = sides if math.prod(sides) > 1 else []
    expected = {DOWN: (*window, inputs, rank), UP: (rank, outputs), ALPHA: ()}
    for role, value in (laid_out | {ALPHA: values.get(ALPHA, np.zeros(1)).squeeze()}).items():
        if value.shape != expected[role] or not rank:
            raise ValueError(
                f"{path}: tensor {names[role]!r} of shape {values[role].shape} is no {role!r} of rank {rank} for "
                f"{place.path!r} of shape {place.shape}: the LoRA is of another model"
            )
    alpha = float(values[ALPHA].squeeze()) if ALPHA in values else 0.0
    scale = alpha / rank if alpha else _configured(place, rank, configs)
    return Factors(laid_out[DOWN].reshape(*sides, inputs, rank), laid_out[UP], np.float32(scale))


def _laid_out(value: np.ndarray) -> np.ndarray:
    """[out, in] or [out, in, height, width] as [in, out] or [height, width, in, out]; some trainers take a linear layer
    for a 1 x 1 convolution, or the other way round, so height and width go where they are 1."""
    if value.ndim < 2:
        return value[None]
    value = np.ascontiguousarray(np.moveaxis(value, (0, 1), (-1, -2)))
    return value.reshape(value.shape[-2:]) if math.prod(value.shape[:-2]) == 1 else value


def _configs(path: Path) -> dict[str, Any]:
    """peft's configs in a file's header: their keys behind the name of the part, as "unet.lora_alpha"."""
    text = store.read_metadata(path).get(METADATA, "{}")
    try:
        configs = bounded_json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path}: {METADATA} is not JSON ({error})") from error
    if not isinstance(configs, dict):
        raise ValueError(f"{path}: {METADATA} is not an object")
    return configs


def _configured(place: Place, rank: int, configs: Mapping[str, Any]) -> float:
    """alpha / rank, or with rsLoRA alpha / sqrt(rank), as peft's config has it; 1 where there is none."""
    prefix = place.there
    patterns = configs.get(f"{prefix}.alpha_pattern") or {}
    if not isinstance(patterns, dict):
        raise ValueError(f"{METADATA}: {prefix}.alpha_pattern={patterns!r}, expected an object of numbers")
    # peft takes the keys for regular expressions; what is written are names of modules, or their ends
    ends = (key for key in patterns if f".{place.module}".endswith(f".{key.removeprefix('^')}"))
    alpha = next((patterns[key] for key in ends), configs.get(f"{prefix}.lora_alpha"))
    if alpha is None:
        return 1.0
    if not NUMBER.accepts(alpha):
        raise ValueError(f"{METADATA}: alpha={alpha!r} of {prefix}.{place.module}, expected a number")
    return alpha / (math.sqrt(rank) if configs.get(f"{prefix}.use_rslora") else rank)


def write_lora(path: str | Path, lora: Mapping[str, Mapping[str, Factors]], targets: Mapping[str, nn.Module]) -> None:
    """Writes what peft, and diffusers' `load_lora_weights`, read. Their layout has no scale: up is multiplied by it.

    Raises:
        ValueError: naming a part or a path that the nets do not have.
    """
    known = module_of(targets)
    tensors: dict[str, np.ndarray] = {}
    for part, factors in lora.items():
        for name, (down, up, scale) in factors.items():
            if (place := known.get((part, name))) is None:
                raise ValueError(f"a LoRA moves {name!r} of {part!r}, which this model does not have: not exported")
            down, up = (np.asarray(array, np.float32) for array in (down, up))
            up = up[:, np.argsort(place.rows())]
            ones = (1,) * len(place.shape[:-2])
            stem = f"{place.there}.{place.module}"
            tensors[f"{stem}.lora_A.weight"] = np.moveaxis(down, (-1, -2), (0, 1))
            tensors[f"{stem}.lora_B.weight"] = (up * np.float32(scale)).T.reshape(*up.shape[::-1], *ones)
    store.write_file(Path(path), tensors)
