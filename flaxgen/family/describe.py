"""Runs, models, composites and experiments in words: parameters, size, config, and what training takes of a device."""

from pathlib import Path
from typing import Any, NamedTuple

import jax

from flaxgen import parallel
from flaxgen.family import directory, files
from flaxgen.family.composite import Composite
from flaxgen.family.directory import Families
from flaxgen.family.family import Family
from flaxgen.train.config import require
from flaxgen.types import Params

LARGEST = 8
"""How many parts of a model are listed."""


class MeshShape(NamedTuple):
    """The shape of a mesh, whose devices need not be here; see `parallel.mesh_plan`."""

    data: int = 1
    fsdp: int = 1

    @property
    def devices(self) -> int:
        return self.data * self.fsdp


def describe(path: Path, families: Families, mesh: MeshShape | None = None) -> str:
    """A run, a model, the parts of a composite, or the experiment in a file: what it is, its step, its parameters by
    part beside those published, its size on disk, its config; with a `mesh` also what its training state takes of
    each device. Nothing is loaded or allocated for it.

    Raises:
        ValueError: if it is none of these, or the mesh has no devices.
    """
    if mesh is not None:
        require(min(mesh) >= 1, f"mesh data={mesh.data}, fsdp={mesh.fsdp}: expected 1 or more of both")
    if path.suffix == ".py":
        config, published = directory.read_experiment(path, families)
        family = directory.family_of(config, families)
        head = f"{path}: {_name(family, config)}, for {config.steps:,} steps"
        return "\n".join((head, *_body(family, config, published, mesh)))
    family = directory.family_in(path, families)
    if isinstance(family, Composite):
        return "\n".join(_composite(family, path, mesh))
    config, step = family.read_config(path)
    disk = f"on disk     {_size(files.bytes_in(path))}"
    head = f"{path}: {_name(family, config)}, {_progress(path, config, step)}"
    return "\n".join((head, disk, *_body(family, config, None, mesh)))


def _name(family: Family, config: Any) -> str:
    return f"{family.name} with a {type(config.net).__name__}"


def _progress(path: Path, config: Any, step: int) -> str:
    if not (path / files.WEIGHTS).is_file():
        step = max(files.steps_saved(path), default=0)
    elif not step:
        return "imported"
    return f"at step {step:,} of {config.steps:,}" if step else "nothing saved yet"


def _body(family: Family, config: Any, published: int | None, mesh: MeshShape | None) -> list[str]:
    params = family.abstract_params(config)
    fields = directory.flat(family.encode(config))
    shown = {key: value for key, value in fields.items() if key.rpartition(".")[2] != "type"}
    return [
        *_parameters(params, published),
        *(_training(family, config, mesh) if mesh else ()),
        "config",
        *(f"  {key} = {_shown(value)}" for key, value in shown.items()),
    ]


def _parameters(params: Params, published: int | None) -> list[str]:
    sizes = {name: _count(part) for name, part in params.items()}
    total = sum(sizes.values())
    lines = [f"parameters  {total:,} ({_size(4 * total)} in float32)"]
    if published is not None:
        lines.append(f"published   {published:,} (here {total / published - 1:+.1%})")
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:LARGEST]
    return [*lines, *(f"  {size:>13,}  {name}" for name, size in largest)]


def _training(family: Family, config: Any, mesh: MeshShape) -> list[str]:
    """What a device holds between two steps; gradients and activations come on top."""
    held, each = _held(family, config, mesh.fsdp), config.batch_size // mesh.devices
    if held is None:
        return ["per device  is not trained here"]
    examples = f"{each:,} on each" if each * mesh.devices == config.batch_size else "which they do not divide"
    return [
        f"per device  {_size(sum(held.values()))} of training state, without gradients and activations",
        *(f"  {_size(size):>13}  {name}" for name, size in held.items()),
        f"  data={mesh.data}, fsdp={mesh.fsdp}: {mesh.devices:,} devices, a batch of {config.batch_size:,}, {examples}",
    ]


def _held(family: Family, config: Any, fsdp: int) -> dict[str, int] | None:
    """The bytes of a device by parts of the state; None for a model that can be imported only."""
    if not family.is_trainable(config):
        return None
    init, _ = family.training(config)
    state = jax.eval_shape(init, jax.random.key(0))
    parts = {name: part for name, part in state._asdict().items() if jax.tree.leaves(part)}
    return {name: parallel.bytes_per_device(part, fsdp) for name, part in parts.items()}


def _composite(composite: Composite, path: Path, mesh: MeshShape | None) -> list[str]:
    folders = composite.folders(path)
    lines = [f"{path}: {composite.name}, {_size(files.bytes_in(path))} on disk"]
    for name, part in composite.parts.items():
        folder = folders.get(name, path / name)
        if not (folder / files.CONFIG).is_file():
            lines.append(f"  {'-':>13}  {name} (missing)")
            continue
        config, step = part.family.read_config(folder)
        held = _held(part.family, config, mesh.fsdp) if mesh else None
        state = f", {_size(sum(held.values()))} of training state per device" if held else ""
        count = _count(part.family.abstract_params(config))
        lines.append(f"  {count:>13,}  {name}: {type(config.net).__name__}, step {step:,}{state}")
    return lines


def _count(tree: Params) -> int:
    return sum(x.size for x in jax.tree.leaves(tree))


def _size(count: int) -> str:
    """Bytes in the unit that fits them."""
    for unit, power in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count >= 2**power:
            return f"{count / 2**power:,.1f} {unit}"
    return f"{count} B"


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
