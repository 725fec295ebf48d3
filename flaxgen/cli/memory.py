"""What to do where memory is full: the ways out that a command has and does not take yet."""

import dataclasses
from typing import Any

TILE = 512
"""Pixels of a tile that is offered."""


def ways_out(command: str, asked: Any = None, is_whole: bool = False) -> str:
    """What needs less memory than `asked`, the request of pictures or the config of a run that is trained. Without
    either, what all commands of that name have. A model `is_whole` if it has several parts, all of them in memory."""
    if asked is None:
        return {"train": "--set batch_size", "eval": "--batch"}.get(command, "--set batch=1")
    fields = {field.name for field in dataclasses.fields(asked)}
    ways = _of_run(asked) if command == "train" else _of_request(asked, fields)
    return ", or ".join([*ways, *(["one part of the model at a time (--sequential)"] if is_whole else [])])


def _of_run(config: Any) -> list[str]:
    """Of a run that is trained."""
    half = max(config.batch_size // 2, 1)
    ways = [f"a smaller batch (--set batch_size={half})"] if config.batch_size > 1 else []
    parts = getattr(config, "accumulate", 0)
    if 0 < parts < config.batch_size:
        ways.append(f"the same batch in parts (--set accumulate={_next_divisor(config.batch_size, parts)})")
    if getattr(getattr(config, "net", None), "remat", None) is False:
        ways.append("computing activations again (--set net.remat=true)")
    return [*ways, "more devices (--parallel mesh)"]


def _next_divisor(number: int, above: int) -> int:
    return next(divisor for divisor in range(above + 1, number + 1) if number % divisor == 0)


def _of_request(request: Any, fields: set[str]) -> list[str]:
    """Of pictures that are drawn."""
    ways = []
    if "set" in fields and not any(said.startswith("batch=") for said in request.set):
        ways.append("fewer pictures at once (--set batch=1)")
    if "tile" in fields and not 0 < request.tile <= TILE:
        ways.append(f"tiles (--tile {TILE})")
    if "width" in fields:
        ways.append("a smaller --width and --height")
    return ways or ["a smaller model"]
