"""The published weights of the FID Inception <-> the parameters of `Inception`.

pytorch-fid and torch-fidelity publish the same file under two names. Every convolution is a `conv` without bias and a
`bn`; the counters of batches that torch keeps beside a batch normalisation are not part of the net.
"""

import hashlib
import pickle
import re
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from flaxgen import programs
from flaxgen.nets.inception import BLOCKS, STEM, Inception
from flaxgen.types import Params, PRNGKey
from flaxgen.weights import store
from flaxgen.weights.convert import export_params, import_params
from flaxgen.weights.layouts import CONV, LINEAR
from flaxgen.weights.lazy import Lazy
from flaxgen.weights.rules import Rule, under

URLS = (
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
)
"""The same bytes twice."""
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
UNIT = (
    Rule("conv.weight", "kernel", CONV),
    Rule("bn.weight", "scale"),
    Rule("bn.bias", "bias"),
    Rule("bn.running_mean", "mean"),
    Rule("bn.running_var", "variance"),
)


def _unit_paths() -> list[str]:
    """Where the units stand in the parameters."""
    blocks = [block for group in BLOCKS for block in group]
    units = {b.name: [unit for branch in b.branches for fork in branch for unit in fork] for b in blocks}
    pools = [f"{block.name}/{unit.name}" for block in blocks if (unit := block.pool_unit())]
    stem = [unit.name for group in STEM for unit in group]
    return stem + [f"{name}/{unit.name}" for name, inside in units.items() for unit in inside] + pools


PLACES = [(path.replace("/", "."), path) for path in _unit_paths()]
RULES = (*under(PLACES, UNIT), Rule("fc.weight", "fc/kernel", LINEAR), Rule("fc.bias", "fc_bias"))
COUNTERS = frozenset(f"{tensor}.bn.num_batches_tracked" for tensor, _ in PLACES)


def import_inception(path: str | Path) -> dict[str, Any]:
    """The parameters (numpy, float32) from a local file in the published layout: safetensors, or .pth where torch is.

    Raises:
        FileNotFoundError: if there is no such file, saying where it comes from.
        ValueError: if it is damaged, cannot be read here, or a tensor is missing, extra, wrongly shaped or not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}: download {URLS[0]} (sha256 {SHA256}) and name the file here")
    tensors = _read_pickle(path) if path.suffix in (".pth", ".pt") else store.open_file(path)
    if any(name.startswith("AuxLogits.") for name in tensors):
        raise ValueError(f"{path} is torchvision's Inception, whose features give another FID: expected {URLS[0]}")
    return import_params(RULES, tensors.without(COUNTERS), abstract_params(), str(path))


def export_inception(params: Params, path: str | Path) -> None:
    """Writes safetensors in the published layout; the inverse of `import_inception`, bit for bit.

    Raises:
        ValueError: naming a tensor that is not the net's, or not finite.
    """
    store.write_file(Path(path), export_params(RULES, params, abstract_params()))


def abstract_params() -> Params:
    """The shapes and dtypes of the parameters, as ShapeDtypeStructs."""
    return programs.shapes(_init)["params"]


def _init(key: PRNGKey) -> Params:
    images = jnp.zeros((1, 1, 1, 3), jnp.uint8)
    return Inception().init(key, images)


def _read_pickle(path: Path) -> Lazy:
    """The tensors of a torch state_dict, through torch's reader that runs no code from the file."""
    _check_name(path)
    try:
        import torch  # of the parity extra
    except ImportError as error:
        convert = (
            "import torch; from safetensors.torch import save_file; "
            f"save_file(torch.load('{path.name}', weights_only=True), '{path.with_suffix('.safetensors').name}')"
        )
        raise ValueError(
            f'{path} is a pickle, which is read through torch only: install it, or run elsewhere python -c "{convert}"'
        ) from error
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ValueError(
            f"{path} is not a file of tensors that torch reads: it is damaged or another format"
        ) from error
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise ValueError(f"{path} holds more than tensors by name: expected the state_dict of {URLS[0]}")
    return Lazy({str(name): partial(_array, f"{path}: tensor {name!r}", value) for name, value in found.items()})


def _array(what: str, tensor: Any) -> np.ndarray:
    """A torch tensor as an array, once it is known to be finite."""
    value = np.asarray(tensor.detach().numpy())
    store.check_finite(what, value)
    return value


def _check_name(path: Path) -> None:
    """torch's published files carry the first 8 digits of their sha256 in their name."""
    match = re.fullmatch(r".*-([0-9a-f]{8})\.pth", path.name)
    if match is None:
        return
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(match[1]):
        raise ValueError(f"{path} has sha256 {digest[:8]}..., its name says {match[1]}: download it again")
