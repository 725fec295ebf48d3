"""A run's data are those it began with, or it is said: other data would give other batches from there on."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flaxgen import bounded_json, parallel

FILE = "data.json"
DIFFERENCES = {
    "count": "{known} examples then and {found} now",
    "names": "the names or sizes of its files, or its labels or captions, are others",
    "content": "its files hold something else",
}
"""What can be said of each part of an identity that differs, the plainest first."""


def keep(workdir: Path, step: int, found: Mapping[str, Any], accept: bool) -> str:
    """Keeps the identity of the data in `workdir`, as those from `step` on; "" if they are the same as before, or what
    is to be said. Process 0 does, and all hear what came of it.

    A run that has taken no step, or was begun by a version that kept no identity, has the data it finds; so has one
    whose data have none ({}).

    Raises:
        ValueError: if the data differ from those before `step` and are not to be accepted, or the file is damaged.
    """
    said, refusal = "", None
    if parallel.process_index() == 0 and found:
        try:
            said = _keep(workdir, step, found, accept)
        except (ValueError, OSError) as error:
            refusal = error
    if parallel.agree(int(refusal is not None)):
        raise refusal or ValueError(f"process 0 cannot go on with the data in {workdir} and says why")
    return said


def _keep(workdir: Path, step: int, found: Mapping[str, Any], accept: bool) -> str:
    known = _read(workdir / FILE) if step else []
    changed = _difference(known[-1], found) if known else ""
    if changed and not accept:
        raise ValueError(
            f"{workdir} was trained on other data up to step {step}: {changed}; bring them back, go on with "
            "--accept-new-data, or choose another --workdir"
        )
    if changed or not known:
        _write(workdir / FILE, [*known, {"from_step": step, **found}])
    return f"new data from step {step} on: {changed}" if changed else ""


def _difference(known: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    for part, said in DIFFERENCES.items():
        if known.get(part) != found.get(part):
            return said.format(known=known.get(part), found=found.get(part))
    return ""


def _read(path: Path) -> list[dict[str, Any]]:
    """The data that the run has had, in order; none of an older version's run."""
    if not path.exists():
        return []
    try:
        known = bounded_json.loads(path.read_bytes())["data"]
        good = isinstance(known, list) and all(
            isinstance(one, dict) and DIFFERENCES.keys() <= one.keys() for one in known
        )
    except (ValueError, KeyError, TypeError):
        good, known = False, []
    if not good:
        raise ValueError(f"{path} is damaged: delete it, and the run goes on with the data as they are")
    return known


def _write(path: Path, known: list[dict[str, Any]]) -> None:
    """Whole or not at all."""
    torn = path.with_name(f"{path.name}.tmp")
    torn.write_text(json.dumps({"data": known}, indent=1) + "\n")
    os.replace(torn, path)
