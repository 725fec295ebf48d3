"""Folders of image files: with a `metadata.jsonl`, or one subfolder a class, or neither."""

import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from flaxgen import bounded_json
from flaxgen.data.decode import MAX_LABEL, SUFFIXES, BrokenImage, DataError
from flaxgen.data.files import MAX_TEXT, check_regular, read_regular

CAPTION_FIELDS = ("text", "caption")
"""Where captions are looked for when no field is named."""
METADATA = "metadata.jsonl"


class Folder(NamedTuple):
    """Image files below `root` by relative path, with what is known of each."""

    root: Path
    files: Sequence[str]
    labels: Sequence[int] | None
    captions: Sequence[str] | None
    class_names: tuple[str, ...] | None
    num_classes: int | None


class StoredFolder:
    """The files of a folder, undecoded; see `images.Stored`."""

    def __init__(self, folder: Folder):
        self.class_names, self.num_classes = folder.class_names, folder.num_classes
        self._folder = folder

    def __len__(self) -> int:
        return len(self._folder.files)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        folder = self._folder
        example: dict[str, Any] = {"image": read_regular(folder.root / folder.files[index])}
        if folder.labels is not None:
            example["label"] = folder.labels[index]
        if folder.captions is not None:
            example["text"] = folder.captions[index]
        return example

    def name(self, index: int) -> str:
        return str(self._folder.root / self._folder.files[index])

    def outline(self) -> Iterator[str]:
        """Name, size, label and caption of every file; see `identity.Filed`."""
        folder, unknown = self._folder, itertools.repeat(None)
        for file, label, caption in zip(folder.files, folder.labels or unknown, folder.captions or unknown):  # noqa: B905
            yield f"{file} {file_size(str(folder.root / file))} {label} {caption}"


def open_folder(root: Path, caption_field: str = "", label_field: str = "label") -> StoredFolder:
    """A `metadata.jsonl` in `root` rules (one object a line: `file_name`, and the caption and label fields where there
    are any); else, when all images lie in subfolders, the sorted first-level folders are the classes 0, 1 ...

    Raises:
        DataError: if no image is found, or metadata.jsonl is not as described.
    """
    described = os.path.lexists(root / METADATA)
    folder = _from_metadata(root, caption_field, label_field) if described else _from_subfolders(root)
    if not folder.files:
        raise DataError(f"data.path {root} holds no image ({' '.join(SUFFIXES)})")
    return StoredFolder(folder)


def file_size(path: str) -> int:
    """Bytes of a file; -1 where there is none."""
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def as_caption(value: Any, where: str) -> str:
    """A caption that data in JSON or in records give.

    Raises:
        BrokenImage: if it is no text, such as null.
    """
    if not isinstance(value, str):
        raise BrokenImage(f"its caption in {where} is {json.dumps(value, default=str)[:60]}, expected text")
    return value


def caption_key(columns: Sequence[str], asked: str, where: str) -> str | None:
    """The field that holds captions: the one asked for, else the first usual name among `columns`, else None.

    Raises:
        DataError: if the one asked for is not there.
    """
    if asked and asked not in columns:
        raise DataError(f"data.caption_field={asked!r} is not in {where}, which has {', '.join(columns)}")
    return asked or next((name for name in CAPTION_FIELDS if name in columns), None)


def _from_subfolders(root: Path) -> Folder:
    files = []
    for directory, subfolders, names in os.walk(root):
        subfolders.sort()
        relative = Path(directory).relative_to(root)
        files += [str(relative / name) for name in sorted(names) if name.lower().endswith(SUFFIXES)]
    classes = [Path(file).parts[0] for file in files]
    if any(name == file for name, file in zip(classes, files, strict=True)):  # an image beside the folders
        return Folder(root, files, None, None, None, None)
    class_names = tuple(sorted(set(classes)))
    number = {name: i for i, name in enumerate(class_names)}
    return Folder(root, files, [number[name] for name in classes], None, class_names, len(class_names))


def _from_metadata(root: Path, caption_field: str, label_field: str) -> Folder:
    rows = _rows(root / METADATA)
    columns = list(rows[0]) if rows else []
    caption = caption_key([c for c in columns if c != "file_name"], caption_field, str(root / METADATA))
    labels, class_names, num_classes = None, None, None
    if label_field in columns:
        values = _column(root, rows, label_field, (int, str))
        _check_labels(root, rows, label_field)
        labels, class_names, num_classes = _labels(values)
    captions = _column(root, rows, caption, (str,)) if caption else None
    files = _column(root, rows, "file_name", (str,))
    _check_inside(root / METADATA, files)
    return Folder(root, files, labels, captions, class_names, num_classes)


def _rows(path: Path) -> list[dict]:
    rows = []
    check_regular(path)
    with open(path, "rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_TEXT + 1), b""), 1):
            if len(line) > MAX_TEXT:
                raise DataError(f"{path} line {number} has more than {MAX_TEXT} bytes")
            if line.strip():
                rows.append(_row(line, f"{path} line {number}"))
    return rows


def _row(line: bytes, where: str) -> dict:
    try:
        row = bounded_json.loads(line)
    except ValueError as error:
        raise DataError(f"{where} is not JSON: {error}") from error
    if not isinstance(row, dict) or "file_name" not in row:
        raise DataError(f"{where} is not an object with a file_name")
    return row


def _check_inside(path: Path, files: list[str]) -> None:
    """Raises DataError if a file lies outside the folder that the metadata at `path` describe."""
    for file in files:
        if os.path.isabs(file) or ".." in Path(file).parts or "\0" in file:
            raise DataError(f"{path} names {file!r}, expected the name of a file in {path.parent} or a folder below")


def _column(root: Path, rows: list[dict], name: str, kinds: tuple[type, ...]) -> list:
    for row in rows:
        if not isinstance(row.get(name), kinds) or isinstance(row[name], bool):
            expected = " or ".join(kind.__name__ for kind in kinds)
            raise DataError(
                f"{root / METADATA}: {name!r} of {row['file_name']} is {row.get(name)!r}, expected {expected}"
            )
    return [row[name] for row in rows]


def _check_labels(root: Path, rows: list[dict], name: str) -> None:
    for row in rows:
        if isinstance(row[name], int) and not 0 <= row[name] <= MAX_LABEL:
            raise DataError(
                f"{root / METADATA}: {name!r} of {row['file_name']} is {row[name]}, expected 0 to {MAX_LABEL}: number "
                "the classes from 0, or read no labels with --set data.label_field="
            )


def _labels(values: list[int | str]) -> tuple[list[int], tuple[str, ...] | None, int]:
    """Numbers stay; names are numbered in sorted order."""
    numbers = [value for value in values if isinstance(value, int)]
    if len(numbers) == len(values):
        return numbers, None, max(numbers) + 1
    class_names = tuple(sorted({str(value) for value in values}))
    number = {name: i for i, name in enumerate(class_names)}
    return [number[str(value)] for value in values], class_names, len(class_names)
