"""LoRA files through diffusers' own converters of them: kohya's names and old ones are the modules that we find.

peft is not needed: what these functions give are the names by which peft finds modules of diffusers' nets.
"""

import random

import ldm_toy
import numpy as np
import pytest

from flaxgen.weights import store
from flaxgen.weights.ldm_unet import rules_for
from flaxgen.weights.lora import read_lora, write_lora
from flaxgen.weights.lora_names import module_of
from flaxgen.weights.rules import tensor_namer

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
]
RANK = 2
TARGETS = {
    "sd1": {"unet": ldm_toy.SD1, "clip": ldm_toy.OPENAI},
    "sdxl": {"unet": ldm_toy.SDXL, "clip": ldm_toy.OPENAI, "clip_2": ldm_toy.PROJECTED},
}
PREFIXES = {"unet": "lora_unet_", "clip": "lora_te1_", "clip_2": "lora_te2_"}


def kohya_file(targets, original):
    """A LoRA of all transformers, residual blocks and text layers, by kohya's names; of the UNet `original` ones."""
    rng, tensors = np.random.default_rng(0), {}
    namer = tensor_namer(rules_for(targets["unet"]))
    for place in module_of(targets).values():
        module = place.module
        if module.startswith("add_embedding") and not original:
            continue  # under this name it has no place in diffusers
        if place.part == "unet" and original:
            module = namer(place.path).removesuffix(".weight")
        name = PREFIXES[place.part] + module.replace(".", "_")
        *sides, inputs, outputs = place.shape
        down, up = (RANK, inputs, *sides), (outputs, RANK, *(1 for _ in sides))
        tensors[f"{name}.lora_down.weight"] = rng.standard_normal(down).astype(np.float32)
        tensors[f"{name}.lora_up.weight"] = rng.standard_normal(up).astype(np.float32)
        tensors[f"{name}.alpha"] = np.array(random.Random(name).choice((1, 2, 4)), np.float32)
    return tensors


def pefts(tensors, unet):
    """What diffusers hands to peft: tensors by module, and alphas by module."""
    from diffusers.loaders import lora_conversion_utils as theirs
    from diffusers.utils.state_dict_utils import convert_state_dict_to_peft, convert_unet_state_dict_to_peft

    config = diffusers.configuration_utils.FrozenDict(layers_per_block=unet.depth)
    given = {name: torch.from_numpy(value) for name, value in tensors.items()}
    given = theirs._maybe_map_sgm_blocks_to_diffusers(given, config)
    found, alphas = theirs._convert_non_diffusers_lora_to_diffusers(given)
    parts = {}
    for name, value in found.items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = value
    converted = {}
    for part, state in parts.items():
        state = convert_unet_state_dict_to_peft(state) if part == "unet" else convert_state_dict_to_peft(state)
        for name, value in state.items():  # what it leaves of a text projection is renamed here
            converted[f"{part}.{name.replace('.lora.down', '.lora_A').replace('.lora.up', '.lora_B')}"] = value.numpy()
    return converted, alphas


@pytest.mark.parametrize(("name", "original"), [("sd1", False), ("sdxl", True), ("sdxl", False)])
def test_diffusers_finds_the_same_modules(name, original, tmp_path):
    """A LoRA is the same from kohya's file and from the names that diffusers makes of it; we write those names."""
    targets = TARGETS[name]
    tensors = kohya_file(targets, original)
    store.write_file(tmp_path / "kohya.safetensors", tensors)
    lora = read_lora(tmp_path / "kohya.safetensors", targets)
    theirs, alphas = pefts(tensors, targets["unet"])
    store.write_file(tmp_path / "peft.safetensors", {key: np.ascontiguousarray(value) for key, value in theirs.items()})
    again = read_lora(tmp_path / "peft.safetensors", targets)
    assert {part: set(factors) for part, factors in again.items()} == {part: set(f) for part, f in lora.items()}
    for part, factors in lora.items():
        for path, (down, up, scale) in factors.items():
            np.testing.assert_array_equal(again[part][path].down, down)
            np.testing.assert_array_equal(again[part][path].up, up)
            assert scale in (0.5, 1.0, 2.0)
    assert len(alphas) == sum(map(len, lora.values()))
    write_lora(tmp_path / "written.safetensors", again, targets)
    assert set(store.read_file(tmp_path / "written.safetensors")) == set(theirs)
