"""From the tensors of another layout to a net's parameters and back, by a rule table: what all importers share."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flaxgen.types import Params
from flaxgen.weights import store
from flaxgen.weights.lazy import Lazy, Tensors
from flaxgen.weights.rules import Rule, from_params, tensor_namer, to_params


def import_params(
    rules: Sequence[Rule], tensors: Tensors, like: Params, where: str, keep_dtype: bool = False
) -> dict[str, Any]:
    """The tensors as numpy arrays in the tree of `like` and of its dtypes, or of their own with `keep_dtype`.

    One tensor is read at a time; `where` they come from is for the errors, which call tensors by their own names.

    Raises:
        ValueError: naming a tensor that is missing, extra, wrongly shaped, of another kind of number or not finite.
    """
    return store.fit(to_params(rules, tensors), like, where, tensor_namer(rules), keep_dtype)


def export_params(rules: Sequence[Rule], params: Params, like: Params) -> Lazy:
    """The inverse of `import_params`: the tensors, in the dtypes of the parameters, each made when it is asked for.

    Raises:
        ValueError: naming a parameter that does not fit `like`.
    """
    fitted = store.fit(store.flatten(params), like, "the parameters to export", keep_dtype=True)
    return from_params(rules, store.flatten(fitted))


def write_folder(folder: Path, stem: str, config: Mapping[str, Any], tensors: Tensors) -> None:
    """Writes config.json and `stem`.safetensors into a folder, which is made if need be; ValueError as `write_file`."""
    folder.mkdir(parents=True, exist_ok=True)
    store.write_file(folder / f"{stem}.safetensors", tensors)
    store.write_json(folder / "config.json", config)


def find_part(folder: str | Path, *names: str) -> Path:
    """The folder, or where it has no config.json the first of the `names` in it that does: a part of a pipeline."""
    folder = Path(folder)
    if (folder / "config.json").is_file():
        return folder
    inside = (folder / name for name in names)
    return next((part for part in inside if (part / "config.json").is_file()), folder)
