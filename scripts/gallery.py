"""Draws the pictures of docs/gallery.md again, by the commands that stand there.

python scripts/gallery.py            # all
python scripts/gallery.py edit.png   # some
"""

import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from flaxgen import cli

DOCS = Path(__file__).parents[1] / "docs"
SIZE = 128
"""Pixels a side of what the model draws, and so of the mask."""


def commands(page: str) -> dict[str, list[str]]:
    """The arguments of `flaxgen`, by the file that they write."""
    blocks = "".join(re.findall(r"```\n(.*?)```", page, flags=re.S)).replace("\\\n", " ")
    split = [shlex.split(line)[1:] for line in blocks.splitlines()]
    return {arguments[arguments.index("--out") + 1]: arguments for arguments in split}


def main(names: list[str]) -> int:
    """Draws them all, or those of these names; returns the first exit code that is not 0."""
    folder = DOCS / "gallery"
    os.chdir(folder)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[: SIZE // 2, : SIZE // 2] = 255
    Image.fromarray(mask).save("mask.png")
    for name, arguments in commands((DOCS / "gallery.md").read_text(encoding="utf-8")).items():
        if names and name not in names:
            continue
        if code := cli.main([*arguments, "--force"]):
            return code
        shutil.rmtree(folder / Path(name).stem, ignore_errors=True)  # the single pictures of a sheet
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
