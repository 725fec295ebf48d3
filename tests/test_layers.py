"""Who may import whom (docs/design.md), names that say nothing, and what `import flaxgen` costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEVELS = (
    {"types", "cache", "lazy"},
    {"programs"},
    {"parallel", "scenes", "resample"},
    {"nets", "diffusion", "gan", "tokens", "data", "metrics"},
    {"weights", "train"},
    {"family"},
    {"zoo"},
    {"interchange", "measure"},
    {"verbs"},
    {"cli"},
    {"__main__"},
)
LEVEL = {package: level for level, packages in enumerate(LEVELS) for package in packages}
FILES = sorted((ROOT / "flaxgen").rglob("*.py"))
ONLY_IN_PARALLEL = {"pmap", "Mesh", "NamedSharding", "PartitionSpec", "make_mesh", "distributed", "shard_map"}


def imported(tree: ast.AST) -> set[str]:
    """Dotted names of everything a module imports."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def package_of(name: str) -> str | None:
    parts = name.split(".")
    return parts[1] if parts[0] == "flaxgen" and len(parts) > 1 else None


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    here = path.relative_to(ROOT / "flaxgen").with_suffix("").parts[0]
    if here == "__init__":
        return
    names = imported(ast.parse(path.read_text()))
    assert not {n for n in names if n.split(".")[0] in ("experiments", "tests", "benchmarks")}
    for other in {package_of(n) for n in names} - {None, here}:
        below = LEVEL[other] < LEVEL[here] or (here, other) == ("parallel", "types")
        assert below, f"{here} may not import {other}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_families_know_each_other_by_their_declaration_alone(path):
    """A module of zoo imports of another family no more than its FAMILY, under another name."""
    place = path.relative_to(ROOT / "flaxgen").with_suffix("").parts
    if place[0] != "zoo" or place == ("zoo", "__init__"):
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not {alias.name for alias in node.names if alias.name.startswith("flaxgen.zoo")}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide what is imported"
            parts = (node.module or "").split(".")
            if parts[:2] != ["flaxgen", "zoo"] or parts[2:3] == [place[1]]:
                continue
            named = [(alias.name, alias.asname) for alias in node.names]
            declared = len(parts) == 3 and [name for name, _ in named] == ["FAMILY"] and named[0][1] is not None
            assert declared, f"from {node.module} import {named}: expected FAMILY as ..."


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_devices_are_named_in_one_file(path):
    if path.name == "parallel.py":
        return
    tree = ast.parse(path.read_text())
    used = {n.split(".")[-1] for n in imported(tree)} | {
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)
    }
    assert not used & ONLY_IN_PARALLEL


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_names_and_sizes(path):
    text = path.read_text()
    assert path.stem not in ("utils", "common", "helpers", "misc")
    assert text.count("\n") <= 400, "a file of this length hides a concept"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            assert not node.name.startswith("Base")
            assert not node.name.endswith("Manager")
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            public = isinstance(node, ast.ClassDef) or node in ast.parse(text).body
            assert not public or ast.get_docstring(node), f"{node.name} has no docstring"


def test_import_is_light():
    code = "import sys, flaxgen; print(*({'torch', 'tensorflow', 'matplotlib', 'sklearn'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
