"""What a saved step consists of: sums of its files, what its arrays are, and which step of which run it is."""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import flaxgen
from flaxgen import bounded_json

MANIFEST = "manifest.json"
FROZEN = "frozen"


class Content(NamedTuple):
    """Of a manifest: size and sha256 of every file, dtype and shape of every array, the step, the fingerprint of the
    run's config ("": not known), flaxgen's version, and the directory of the frozen weights ("": there are none). Those
    of version 0.1.0 lack all but the first two."""

    files: dict[str, list]
    leaves: dict[str, str]
    step: int | None = None
    config: str = ""
    flaxgen: str = ""
    frozen: str = ""


def write_manifest(
    path: Path, leaves: dict[str, str], *, step: int | None = None, config: str = "", frozen: str = ""
) -> str:
    """Describes what lies in `path`, and returns when all of it would outlive a power cut: the name for it if it is
    frozen weights, by a hash of the content."""
    files = sorted(file for file in path.rglob("*") if file.is_file())
    sums = {file.relative_to(path).as_posix(): [file.stat().st_size, _sha256(file)] for file in files}
    content = Content(sums, leaves, step, config, flaxgen.__version__, frozen)._asdict()
    (path / MANIFEST).write_text(json.dumps({"sha256": _content_sum(content), "content": content}, indent=1))
    for entry in [*path.rglob("*"), path]:
        sync(entry)
    return _frozen_name(content)


def sync(path: Path) -> None:
    """Returns when a file or a directory, which is a list of names, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_manifest(path: Path) -> Content:
    """The manifest of a saved step.

    Raises:
        OSError, ValueError: if it cannot be read, or is not as it was written.
    """
    try:
        manifest = bounded_json.loads((path / MANIFEST).read_bytes())
        content = manifest["content"]
        good = _content_sum(content) == manifest["sha256"]
        found = Content(**{name: content[name] for name in Content._fields if name in content})
        good = good and isinstance(found.leaves, dict) and all(map(_is_sum, found.files.values()))
        good = good and re.fullmatch(f"|{FROZEN}-[0-9a-f]{{16}}", found.frozen) is not None
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path / MANIFEST} is damaged") from error
    if not good:
        raise ValueError(f"{path / MANIFEST} is damaged")
    return found


def find_fault(path: Path, config: str = "") -> str | None:
    """What is wrong with a saved step, naming the file; None if every byte is as it was written, its number is that of
    the step that was saved, and, as far as both are known, it belongs to the run of this config."""
    try:
        if not path.is_dir():
            return "not a directory"
        if not any(path.iterdir()):
            return "an empty directory"
        manifest = read_manifest(path)
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except PermissionError as error:
        return f"it cannot be read ({error.strerror})"
    except (OSError, ValueError):
        return f"{MANIFEST} is damaged"
    if manifest.step is not None and str(manifest.step) != path.name:
        return f"it holds step {manifest.step}: the directory was renamed"
    # an older version may have known fewer fields of the config
    if config and manifest.config not in ("", config) and manifest.flaxgen == flaxgen.__version__:
        return "it was saved by a run of another config"
    faults = (_find_file_fault(path, name, *described) for name, described in manifest.files.items())
    fault = next((fault for fault in faults if fault), None)
    return fault or (_find_frozen_fault(path.parent / manifest.frozen) if manifest.frozen else None)


def _find_frozen_fault(path: Path) -> str | None:
    fault = find_fault(path)
    if fault is None and _frozen_name(bounded_json.loads((path / MANIFEST).read_bytes())["content"]) != path.name:
        fault = "the directory was renamed"
    return fault and f"its frozen weights in {path.name} cannot be used: {fault}"


def _find_file_fault(path: Path, name: str, size: int, digest: str) -> str | None:
    try:
        found = (path / name).stat().st_size
        if found != size:
            return f"{name} has {found} bytes instead of {size}"
        if _sha256(path / name) != digest:
            return f"{name} has changed since it was written (sha256 differs)"
    except FileNotFoundError:
        return f"{name} is missing"
    except OSError as error:
        return f"{name} cannot be read ({error.strerror})"
    return None


def leaf_specs(tree) -> dict[str, str]:
    """Of every leaf, by its path in the tree, dtype and shape, as in `float32[64,64]`."""

    def spec(x):
        dtype = x.dtype if hasattr(x, "dtype") else jnp.result_type(x)
        return f"{dtype}[{','.join(map(str, jnp.shape(x)))}]"

    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): spec(x) for path, x in leaves}


def check_specs(path: Path, wanted: dict[str, str]) -> None:
    """Orbax checks names and shapes but casts dtypes in silence.

    Raises:
        ValueError: naming the first array that is missing, unknown, or of another shape or dtype.
    """
    saved = read_manifest(path).leaves
    for name in sorted(saved.keys() | wanted.keys()):
        has, wants = saved.get(name, "no such array"), wanted.get(name, "no such array")
        if has != wants:
            raise ValueError(f"{path}: {name} is {has}, the experiment has {wants}: was its config changed?")


def _frozen_name(content: Any) -> str:
    return f"{FROZEN}-{_content_sum(content)[:16]}"


def _is_sum(described: Any) -> bool:
    return isinstance(described, list) and list(map(type, described)) == [int, str]


def _content_sum(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
