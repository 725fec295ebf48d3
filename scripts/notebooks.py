"""Writes the pairs in notebooks/: NAME.py, which is edited, and NAME.ipynb, which is opened.

    python scripts/notebooks.py

NAME.py is in jupytext's percent format. Its first two cells are the same in all notebooks but for the title: a badge
that opens it in Colab, and the code of `notebooks/first_cell.py`; they are put there anew. NAME.ipynb is made of it,
without outputs: pictures in a repository would have to be drawn again with every change of a sentence.
"""

import json
import re
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parents[1] / "notebooks"
FIRST = FOLDER / "first_cell.py"
MARK = "# %%"
HEADER = """\
# ---
# jupyter:
#   jupytext:
#     formats: py:percent,ipynb
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---
"""


class Cell(NamedTuple):
    """A cell: `kind` is "code" or "markdown"."""

    kind: str
    source: str


def names() -> list[str]:
    """The notebooks, in their order."""
    return [path.stem for path in sorted(FOLDER.glob("[0-9]*.py"))]


def read_script(text: str) -> list[Cell]:
    """The cells of a NAME.py."""
    cells = []
    for part in re.split(rf"^{MARK}", text, flags=re.M)[1:]:
        mark, _, body = part.partition("\n")
        lines = body.strip("\n").split("\n")
        if "[markdown]" in mark:
            cells.append(Cell("markdown", "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines)))
        else:
            cells.append(Cell("code", "\n".join(lines)))
    return cells


def write_script(cells: list[Cell]) -> str:
    """The text of a NAME.py."""
    parts = [HEADER]
    for cell in cells:
        lines = cell.source.split("\n")
        if cell.kind == "markdown":
            parts.append("\n".join([f"{MARK} [markdown]", *(f"# {line}".rstrip() for line in lines)]) + "\n")
        else:
            parts.append("\n".join([MARK, *lines]) + "\n")
    return "\n".join(parts)


def badge(name: str) -> str:
    """The line that opens a notebook in Colab; where the repository is, `first_cell.py` says."""
    found = re.search(r'^REPOSITORY = "(.+?)"', FIRST.read_text("utf-8"), flags=re.M)
    assert found
    address = f"https://colab.research.google.com/github/{found[1]}/blob/main/notebooks/{name}.ipynb"
    return f"[![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)]({address})"


def with_first_cells(name: str, cells: list[Cell]) -> list[Cell]:
    """The cells with today's badge and first cell of code."""
    title, *rest = cells
    lines = [line for line in title.source.split("\n") if "colab-badge" not in line]
    title = Cell("markdown", "\n".join([badge(name), "", *lines]).replace("\n\n\n", "\n\n"))
    return [title, Cell("code", FIRST.read_text("utf-8").strip("\n")), *rest[1:]]


def to_notebook(cells: list[Cell]) -> str:
    """The text of a NAME.ipynb."""
    written = []
    for i, cell in enumerate(cells):
        one = {"cell_type": cell.kind, "id": f"cell-{i}", "metadata": {}, "source": cell.source.splitlines(True)}
        written.append(one if cell.kind == "markdown" else {**one, "execution_count": None, "outputs": []})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    whole = {"cells": written, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Brings every pair up to date."""
    for name in names():
        script = FOLDER / f"{name}.py"
        found = read_script(script.read_text("utf-8"))
        cells = with_first_cells(name, found)
        if cells != found:
            script.write_text(write_script(cells), "utf-8")
        (FOLDER / f"{name}.ipynb").write_text(to_notebook(cells), "utf-8")


if __name__ == "__main__":
    main()
