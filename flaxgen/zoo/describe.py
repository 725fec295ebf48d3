"""Runs, models, unCLIPs and experiments in words: parameters, size, config, and what training takes of a device."""

from pathlib import Path
from typing import Any, NamedTuple

import jax

from flaxgen import parallel
from flaxgen.train.config import require
from flaxgen.types import Params
from flaxgen.weights import store
from flaxgen.zoo import directory, files, unclip
from flaxgen.zoo.unclip.stages import INDEX

LARGEST = 8
"""How many parts of a model are listed."""


class MeshShape(NamedTuple):
    """The shape of a mesh, whose devices need not be here; see `parallel.mesh_plan`."""

    data: int = 1
    fsdp: int = 1

    @property
    def devices(self) -> int:
        return self.data * self.fsdp


def describe(path: Path, mesh: MeshShape | None = None) -> str:
    """A run, a model, the stages of an unCLIP, or the experiment in a file: what it is, its step, its parameters by
    part beside those published, its size on disk, its config; with a `mesh` also what its training state takes of
    each device. Nothing is loaded or allocated for it.

    Raises:
        ValueError: if it is none of these, or the mesh has no devices.
    """
    if mesh is not None:
        require(min(mesh) >= 1, f"mesh data={mesh.data}, fsdp={mesh.fsdp}: expected 1 or more of both")
    if unclip.is_composite(path):
        return "\n".join(_composite(path, mesh))
    if path.suffix == ".py":
        config, published = directory.read_experiment_file(path)
        return "\n".join((f"{path}: {_name(config)}, for {config.steps:,} steps", *_body(config, published, mesh)))
    config, step = directory.read_config(path)
    disk = f"on disk     {_size(files.bytes_in(path))}"
    return "\n".join((f"{path}: {_name(config)}, {_progress(path, config, step)}", disk, *_body(config, None, mesh)))


def _name(config: Any) -> str:
    return f"{directory.family_name(type(config))} with a {type(config.net).__name__}"


def _progress(path: Path, config: Any, step: int) -> str:
    if not (path / files.WEIGHTS).is_file():
        step = max(files.steps_saved(path), default=0)
    elif not step:
        return "imported"
    return f"at step {step:,} of {config.steps:,}" if step else "nothing saved yet"


def _body(config: Any, published: int | None, mesh: MeshShape | None) -> list[str]:
    params = directory.abstract_params(config)
    fields = directory.flat(directory.encode(config))
    shown = {key: value for key, value in fields.items() if key.rpartition(".")[2] != "type"}
    return [
        *_parameters(params, published),
        *(_training(config, mesh) if mesh else ()),
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


def _training(config: Any, mesh: MeshShape) -> list[str]:
    """What a device holds between two steps; gradients and activations come on top."""
    held, each = _held(config, mesh.fsdp), config.batch_size // mesh.devices
    if held is None:
        return ["per device  is not trained here"]
    examples = f"{each:,} on each" if each * mesh.devices == config.batch_size else "which they do not divide"
    return [
        f"per device  {_size(sum(held.values()))} of training state, without gradients and activations",
        *(f"  {_size(size):>13}  {name}" for name, size in held.items()),
        f"  data={mesh.data}, fsdp={mesh.fsdp}: {mesh.devices:,} devices, a batch of {config.batch_size:,}, {examples}",
    ]


def _held(config: Any, fsdp: int) -> dict[str, int] | None:
    """The bytes of a device by parts of the state; None for a model that can be imported only."""
    if getattr(config, "last_step", False):
        return None
    init, _ = directory.FAMILIES[type(config)].make_training(config)
    state = jax.eval_shape(init, jax.random.key(0))
    parts = {name: part for name, part in state._asdict().items() if jax.tree.leaves(part)}
    return {name: parallel.bytes_per_device(part, fsdp) for name, part in parts.items()}


def _composite(path: Path, mesh: MeshShape | None) -> list[str]:
    listed = store.read_json(path / INDEX).get("stages", {})
    lines = [f"{path}: unclip, {_size(files.bytes_in(path))} on disk"]
    for name in unclip.STAGES:
        folder = path / str(listed.get(name, name))
        if not (folder / files.CONFIG).is_file():
            lines.append(f"  {'-':>13}  {name} (not there)")
            continue
        config, step = directory.read_config(folder)
        held = _held(config, mesh.fsdp) if mesh else None
        state = f", {_size(sum(held.values()))} of training state per device" if held else ""
        count = _count(directory.abstract_params(config))
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
