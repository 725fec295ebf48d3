"""OpenAI's encoder.pkl and decoder.pkl of DALL-E's discrete autoencoder to a folder that flaxgen reads.

    python scripts/convert_openai_dvae.py encoder.pkl decoder.pkl models/dvae

Needs torch. Both files are whole pickled modules, which torch.load(weights_only=True) refuses. They are read through an
unpickler that finds tensors, plain containers and nothing else: every module becomes an object of this script that
holds what the file says of it, so nothing of the file is run, and OpenAI's package is not needed. A file that names
anything else is refused. The folder gets encoder.safetensors and decoder.safetensors, with OpenAI's names of tensors.
"""

import argparse
import pickle
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

ALLOWED = {
    "builtins": {"set"},
    "__builtin__": {"set"},
    "collections": {"OrderedDict"},
    "torch": {"Size", "device"},
    "torch._utils": {"_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter"},
    "torch.nn.parameter": {"Parameter"},
}
"""What a file may name; each only makes a value of what it is given. torch finds storages itself."""
MODULES = ("torch.nn.modules.", "dall_e.")
"""Where the classes come from that become `Module`."""


class Module:
    """What is left of a pickled module: the fields that the file gives it."""

    dump_patches = False  # torch asks for it where the source of a class is not what the file was written with

    def __init__(self, *_: Any):
        pass


class Unpickler(pickle.Unpickler):
    """Finds ALLOWED names, and `Module` for those of MODULES."""

    def find_class(self, module: str, name: str) -> Any:
        """The object that a file names; UnpicklingError if it is none of the known."""
        if module.startswith(MODULES):
            return Module
        if name in ALLOWED.get(module, ()):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no discrete autoencoder needs")


def load(file: Any, **options: Any) -> Any:
    """`pickle.load` by `Unpickler`."""
    return Unpickler(file, **options).load()


READER = types.ModuleType("reader")
"""What torch asks a pickle module for."""
READER.Unpickler, READER.load = Unpickler, load  # type: ignore[attr-defined]


def tensors_of(module: Module, prefix: str = "") -> dict[str, torch.Tensor]:
    """All parameters of a module and its parts, by the names of its state_dict."""
    fields, found = vars(module), {}
    for name, value in fields.get("_parameters", {}).items():
        if isinstance(value, torch.Tensor):
            found[prefix + name] = value.detach().contiguous()
    for name, part in fields.get("_modules", {}).items():
        if isinstance(part, Module):
            found |= tensors_of(part, f"{prefix}{name}.")
    return found


def convert(source: Path, target: Path) -> int:
    """Writes the tensors of one pickled module; how many there are.

    Raises:
        ValueError: if the file names what it should not, or holds no module with tensors.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the source of classes has changed
            module = torch.load(source, map_location="cpu", pickle_module=READER, weights_only=False)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{source} is not read: {str(error).splitlines()[0]}") from error
    tensors = tensors_of(module) if isinstance(module, Module) else {}
    if "blocks.input.w" not in tensors:
        raise ValueError(f"{source} is no part of OpenAI's dVAE: expected a module with a tensor 'blocks.input.w'")
    save_file(tensors, target, {"format": "pt"})
    return len(tensors)


def main() -> int:
    """The command; 2 if a file is not what it should be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("encoder", "decoder", "folder"):
        parser.add_argument(name, type=Path)
    given = parser.parse_args()
    try:
        given.folder.mkdir(parents=True, exist_ok=True)
        for part in ("encoder", "decoder"):
            target = given.folder / f"{part}.safetensors"
            print(f"{target}: {convert(getattr(given, part), target)} tensors")
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
