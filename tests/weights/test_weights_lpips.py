"""Files with LPIPS' weights: the names they may have, what is left out and refused. Numbers: tests/parity."""

import jax
import numpy as np
import pytest
import random_weights

from flaxgen.nets.lpips import SCALE, SHIFT, Lpips
from flaxgen.weights import store
from flaxgen.weights.lpips import abstract_params, import_lpips, rules_for
from flaxgen.weights.rules import from_params
from flaxgen.weights.tree import flatten

NET = Lpips(widths=((2,), (3, 3), (4,)))
PARAMS = random_weights.draw_like(abstract_params(NET))
PLAIN = dict(from_params(rules_for(NET), flatten(PARAMS)))
DENSE = {"classifier.0.weight": np.zeros((2, 2), np.float32)}
WHITENING = {
    "scaling_layer.shift": np.array(SHIFT, np.float32)[None, :, None, None],
    "scaling_layer.scale": np.array(SCALE, np.float32)[None, :, None, None],
}


def renamed(lin, features, prefix=""):
    """Under other names; `features` is a format of the layer's number and the leaf."""
    out = {}
    for name, value in PLAIN.items():
        part, number, leaf = name.split(".") if name.startswith("features") else (*name.split("."), "")
        new = features.format(number, leaf) if part == "features" else lin.format(part)
        out[prefix + new] = value
    return out


PACKAGE = renamed("{}.model.1.weight", "net.slice1.{}.{}") | WHITENING
CASES = {
    "torchvision and lpips": PLAIN | DENSE,
    "the head of the package": renamed("{}.model.1.weight", "features.{}.{}"),
    "the package": PACKAGE | {"lins.0.model.1.weight": PLAIN["lin0.weight"]},
    "a run": {f"loss.perceptual_loss.{name}": value for name, value in PACKAGE.items()}
    | {"encoder.conv_in.bias": np.zeros(3, np.float32), "loss.discriminator.main.0.bias": np.zeros(2, np.float32)},
}


def test_layers_are_counted_as_in_torchvision():
    """Convolutions of VGG16.features: every layer counts, ReLUs and maxima too."""
    names = {rule.tensor for rule in rules_for(Lpips())}
    numbers = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    assert {name for name in names if name.endswith(".bias")} == {f"features.{n}.bias" for n in numbers}


@pytest.mark.parametrize("name", CASES)
def test_weights_are_read_under_all_their_names(name, tmp_path):
    store.write_file(tmp_path / "lpips.safetensors", CASES[name])
    found = import_lpips(tmp_path / "lpips.safetensors", NET)
    jax.tree.map(np.testing.assert_array_equal, found, PARAMS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features.0.bias": None}, r"'features\.0\.bias' is missing"),
        ({"lin2.weight": None}, r"'lin2\.weight' is missing"),
        ({"lin2.weight": (2, 4, 1, 1)}, "expected 1 at dimension 0"),
        ({"features.1.bias": (2,)}, r"no rule matches 'features\.1\.bias'"),
        ({"net.slice1.0.bias": (2,)}, r"are both 'features\.0\.bias'"),
        ({"scaling_layer.shift": (1, 3, 1, 1)}, r"'scaling_layer\.shift' is not \(-0\.03, "),
    ],
)
def test_other_files_are_refused(changes, message, tmp_path):
    tensors = {name: value for name, value in PLAIN.items() if name not in changes}
    tensors |= {name: np.zeros(shape, np.float32) for name, shape in changes.items() if shape is not None}
    store.write_file(tmp_path / "lpips.safetensors", tensors)
    with pytest.raises(ValueError, match=message):
        import_lpips(tmp_path / "lpips.safetensors", NET)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no .*: flaxgen/weights/lpips\.py says how"):
        import_lpips(tmp_path / "lpips.safetensors")
