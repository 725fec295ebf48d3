"""What tells data that lie in files from others, wherever they lie: changed data give a run other batches."""

import hashlib
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np

from flaxgen.data.decode import BrokenImage
from flaxgen.data.images import Stored

SAMPLED = 512
"""Elements that are read; of fewer, all are."""


@runtime_checkable
class Filed(Stored, Protocol):
    """Examples that lie in files. `outline` says a line for each file, its name below the data and its size, and what
    else is known of the examples before any is read."""

    def outline(self) -> Iterator[str]: ...


def identify(stored: Filed) -> dict[str, Any]:
    """How many examples there are, and hashes: `names` of the outline, `content` of what SAMPLED of the examples hold,
    evenly spread."""
    names, content, count = hashlib.sha256(), hashlib.sha256(), len(stored)
    for line in stored.outline():
        names.update(line.encode("utf-8", "surrogatepass") + b"\n")
    for index in sorted({i * count // SAMPLED for i in range(SAMPLED)}) if count else []:
        content.update(_content(stored, index))
    return {"count": count, "names": names.hexdigest()[:16], "content": content.hexdigest()[:16]}


def _content(stored: Filed, index: int) -> bytes:
    """A hash of an example; of one that cannot be read it is that of none."""
    digest = hashlib.sha256()
    try:
        example = stored[index]
    except (BrokenImage, OSError):
        return digest.digest()
    image = example["image"]
    digest.update(
        image if isinstance(image, bytes) else f"{image.shape}".encode() + np.ascontiguousarray(image).tobytes()
    )
    for field in ("label", "text"):
        if field in example:
            digest.update(f"\0{field} {example[field]}".encode("utf-8", "surrogatepass"))
    return digest.digest()
