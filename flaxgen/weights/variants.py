"""Variants of weights, such as model.fp16.safetensors beside model.safetensors, read as if they were the plain ones."""

import re
from collections.abc import Iterable
from pathlib import Path

SHARD = r"-\d+-of-\d+"


def of_variant(names: Iterable[str], variant: str, where: str) -> dict[str, str]:
    """Of the names of files, those to be read where a variant of the weights is wanted: the file for each name that
    readers of plain weights look for. Weights that have no such variant stay; those of other variants do too.

    Raises:
        ValueError: if there are no weights of the variant, naming those that there are.
    """
    names = sorted(names)
    found: dict[str, str] = {}
    for name in names:
        for pattern, plain in (
            (rf"(.+)\.{re.escape(variant)}\.safetensors", "{}.safetensors"),
            (rf"(.+)\.safetensors\.index\.{re.escape(variant)}\.json", "{}.safetensors.index.json"),
        ):
            match = re.fullmatch(pattern, name)
            if match and not re.search(f"{SHARD}$", match[1]):
                found[plain.format(match[1])] = name
    if not found:
        known = ", ".join(variants_in(names)) or "none"
        raise ValueError(f"{where} has no weights of --variant {variant}; the variants there are: {known}")
    stems = {re.escape(re.sub(r"\.safetensors(\.index\.json)?$", "", name)) for name in found}
    replaced = re.compile(rf"({'|'.join(sorted(stems))})({SHARD})?\.safetensors(\.index\.json)?")
    return {name: name for name in names if not replaced.fullmatch(name)} | found


def variants_in(names: Iterable[str]) -> list[str]:
    """The variants that there are of any weights among files of these names."""
    patterns = (rf".+?\.(\w+?)({SHARD})?\.safetensors", r".+\.safetensors\.index\.(\w+)\.json")
    matches = (re.fullmatch(pattern, name.rpartition("/")[2]) for name in names for pattern in patterns)
    return sorted({match[1] for match in matches if match})


def link_variant(folder: Path, variant: str, view: Path) -> Path:
    """Makes, in the empty directory `view`, a folder of links to the files of `folder` with the weights of a variant
    under the names of the plain ones; returns it. Beside it are the folders that are beside one of a pipeline.

    Raises:
        ValueError: as `of_variant`.
    """
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    for name, source in of_variant(files, variant, str(folder)).items():
        link = view / folder.resolve().name / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to((folder / source).resolve())
    pipeline = folder.resolve().parent
    if (pipeline / "model_index.json").is_file():
        for part in pipeline.iterdir():
            if part.is_dir() and part.name != folder.resolve().name:
                (view / part.name).symlink_to(part)
    return view / folder.resolve().name
