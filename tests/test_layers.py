"""Who may import whom (docs/design.md), names that say nothing, and what `import flaxgen` costs."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LEVELS = (
    {"types", "cache", "lazy", "bounded_json"},
    {"programs"},
    {"parallel", "scenes", "resample"},
    {"nets", "diffusion", "gan", "latents", "tokens", "data", "metrics"},
    {"weights", "train"},
    {"family"},
    {"zoo"},
    {"interchange", "measure"},
    {"verbs"},
    {"app"},
    {"cli"},
    {"__main__"},
)
LEVEL = {package: level for level, packages in enumerate(LEVELS) for package in packages}
TREES = {path: ast.parse(path.read_text()) for path in sorted((ROOT / "flaxgen").rglob("*.py"))}
ONLY_IN_PARALLEL = {"pmap", "Mesh", "NamedSharding", "PartitionSpec", "make_mesh", "distributed", "shard_map"}
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


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


def misplaced_imports(here: str, names: set[str]) -> set[str]:
    """What a module of the package `here` may not import."""
    outside = {name for name in names if name.split(".")[0] in ("experiments", "tests", "benchmarks")}
    others = {package_of(name) for name in names} - {None, here}
    if here == "__init__":
        return outside
    return outside | {p for p in others if LEVEL[p] >= LEVEL[here]}


def test_imports_point_down():
    wrong = {}
    for path, tree in TREES.items():
        here = path.relative_to(ROOT / "flaxgen").with_suffix("").parts[0]
        if names := misplaced_imports(here, imported(tree)):
            wrong[path.name] = names
    assert not wrong


def foreign_families(place: tuple[str, ...], tree: ast.Module) -> list[str]:
    """What a module of zoo imports of another family beyond its FAMILY, under another name."""
    wrong = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            wrong += [alias.name for alias in node.names if alias.name.startswith("flaxgen.zoo")]
        elif isinstance(node, ast.ImportFrom):
            parts = (node.module or "").split(".")
            if node.level:
                wrong.append("a relative import")
            if parts[:2] != ["flaxgen", "zoo"] or parts[2:3] == [place[1]]:
                continue
            named = [(alias.name, alias.asname) for alias in node.names]
            if len(parts) != 3 or [name for name, _ in named] != ["FAMILY"] or named[0][1] is None:
                wrong.append(f"from {node.module} import {named}")
    return wrong


def test_families_know_each_other_by_their_declaration_alone():
    wrong = {}
    for path, tree in TREES.items():
        place = path.relative_to(ROOT / "flaxgen").with_suffix("").parts
        if place[0] == "zoo" and place != ("zoo", "__init__") and (found := foreign_families(place, tree)):
            wrong[path.name] = found
    assert not wrong


def test_a_family_that_knows_too_much_is_found():
    text = "from flaxgen.zoo.clip import FAMILY as CLIP\nfrom flaxgen.zoo.prior.config import TEXT"
    assert foreign_families(("zoo", "decoder"), ast.parse(text)) == [
        "from flaxgen.zoo.prior.config import [('TEXT', None)]"
    ]


def test_devices_are_named_in_one_file():
    wrong = {}
    for path, tree in TREES.items():
        attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        used = {name.split(".")[-1] for name in imported(tree)} | attributes
        if path.name != "parallel.py" and used & ONLY_IN_PARALLEL:
            wrong[path.name] = used & ONLY_IN_PARALLEL
    assert not wrong


def test_names_say_something():
    classes = {n.name for tree in TREES.values() for n in ast.walk(tree) if isinstance(n, ast.ClassDef)}
    assert not {name for name in classes if name.startswith("Base") or name.endswith("Manager")}
    assert not {path.stem for path in TREES} & {"utils", "common", "helpers", "misc"}


def test_no_file_is_so_long_that_it_hides_a_concept():
    assert not {path.name: n for path in TREES if (n := path.read_text().count("\n")) > 400}


def undocumented(tree: ast.Module) -> list[str]:
    """Public functions of a module, and all its public classes, that have no docstring."""
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    functions = [node for node in tree.body if isinstance(node, DEFINITIONS) and node not in classes]
    nodes = classes + functions
    return [node.name for node in nodes if not node.name.startswith("_") and not ast.get_docstring(node)]


def test_what_is_public_has_a_docstring():
    assert not {str(path.relative_to(ROOT)): names for path, tree in TREES.items() if (names := undocumented(tree))}


def test_a_function_without_a_docstring_is_found():
    text = "def f(): pass\nclass A:\n  def g(self): pass\ndef _h(): pass\ndef k():\n  'Doc.'\n  def inner(): pass"
    assert sorted(undocumented(ast.parse(text))) == ["A", "f"]


def test_an_import_that_points_up_is_found():
    assert misplaced_imports("nets", {"flaxgen.train.loop", "flaxgen.types", "tests.oracles"}) == {
        "train",
        "tests.oracles",
    }


def test_import_is_light():
    code = "import sys, flaxgen; print(*({'torch', 'tensorflow', 'matplotlib', 'sklearn'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def zoo_imports() -> dict[str, set[str]]:
    """Of each module of zoo, `__init__` files counted, the modules of zoo that it imports."""
    modules = {}
    for path, tree in TREES.items():
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[:2] == ("flaxgen", "zoo"):
            modules[".".join(parts).removesuffix(".__init__")] = imported(tree)
    longest = {name: {prefix for prefix in modules if f"{name}.".startswith(f"{prefix}.")} for name in modules}
    return {
        module: {max((m for m in modules if f"{name}.".startswith(f"{m}.")), key=len, default=module) for name in names}
        - {module} - longest[module]
        for module, names in modules.items()
    }  # fmt: skip


def test_families_stand_on_few_floors():
    """The longest chain of imports among the files of zoo, and no circle."""
    floors, waiting = [], zoo_imports()
    while waiting:
        floor = {module for module, names in waiting.items() if not names & waiting.keys()}
        assert floor, f"these import each other in a circle: {', '.join(waiting)}"
        floors.append(floor)
        waiting = {module: names for module, names in waiting.items() if module not in floor}
    assert len(floors) <= 8
