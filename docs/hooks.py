"""What the site does beyond Sphinx: signatures as they are written, and links from paths and citations in prose."""

import ast
import inspect
import re
import textwrap
from pathlib import Path

from docutils import nodes
from sphinx.util.nodes import make_refnode

HERE = Path(__file__).parent
PACKAGE = HERE.parent / "flaxgen"
FACES = {"app", "cli", "models"}
"""Folders whose users speak HTTP or type commands."""
NAMESAKES = {"flaxgen.data.identity"}
"""Modules of packages that have a function of this name, which is what the index knows."""
NOTEBOOKS = HERE.parent / "notebooks"
ELSEWHERE = re.compile(r"\[([^\]\[\"\n]+)\]\(\.\./(?:experiments|flaxgen|tests|benchmarks|scripts|README)[^)]*\)")
CITED = re.compile(r"\[([A-Z][a-zá-ž]+\d\d[a-z]?\b[^\]`]*)\](?!_)")
CODE = re.compile(r"`([^`]+)`")
MARKS = re.compile(r"[*|]|(?<=\w)_(?!\w)")
"""What docstrings mean as it stands, and reStructuredText reads as marks."""
PAGE = re.compile(r"(?:docs/)?(\w+)\.md")
MODULE = re.compile(r"(?:flaxgen/)?([\w/]+)\.py")


def connect(app) -> None:
    """Adds all of it to Sphinx."""
    app.connect("builder-inited", copy_notebooks)
    app.connect("builder-inited", write_api)
    app.connect("autodoc-skip-member", skip)
    app.connect("autodoc-process-signature", sign)
    app.connect("autodoc-process-docstring", translate, priority=400)  # before napoleon, whose marks are meant
    app.connect("doctree-resolved", link_paths)


def copy_notebooks(app) -> None:
    """Sphinx reads no page from outside this folder; links to files that are no pages become their text."""
    found = sorted(NOTEBOOKS.glob("*.ipynb"))
    texts = {path.name: path.read_text(encoding="utf-8").replace("](../docs/", "](../") for path in found}
    listed = "\n".join(path.stem for path in found)
    contents = f"```{{toctree}}\n:maxdepth: 1\n\n{listed}\n```" if found else "There are none here yet."
    pages = {"index.md": f"# Notebooks\n\n{contents}\n"}
    fill(HERE / "notebooks", pages | {name: ELSEWHERE.sub(r"\1", text) for name, text in texts.items()})


def write_api(app) -> None:
    """A page for each package, with a section for each of its modules."""
    pages = {}
    for init in sorted(PACKAGE.rglob("__init__.py")):
        names = init.parent.relative_to(PACKAGE.parent).parts
        if not FACES & set(names):
            modules = sorted(path.stem for path in init.parent.glob("*.py") if not path.stem.startswith("__"))
            pages[f"{'.'.join(names)}.md"] = page_of(".".join(names), modules)
    fill(HERE / "api", pages)


def fill(folder: Path, files: dict[str, str]) -> None:
    """Makes the folder hold these files and no others; what is as it should be stays, so that it is not built again."""
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        if path.name not in files:
            path.unlink()
    for name, text in files.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def page_of(package: str, modules: list[str]) -> str:
    """The Markdown of a package's page."""
    whole = [package, *(f"{package}.{module}" for module in modules)]
    unlisted = {name: "\n   :no-index:" if name in NAMESAKES else "" for name in whole}
    sections = [f"```{{eval-rst}}\n.. automodule:: {name}{more}\n```\n" for name, more in unlisted.items()]
    heads = [f"# {package}", *(f"## {name.removeprefix('flaxgen.')}" for name in whole[1:])]
    return "\n".join(f"{head}\n\n{section}" for head, section in zip(heads, sections, strict=True))


def skip(app, what, name, obj, skipped, options) -> bool | None:
    """Leaves out what says nothing, but for calls, whose shapes do, and what belongs to others."""
    text = getattr(obj, "__doc__", None) or ""
    if inspect.isclass(obj) or inspect.isroutine(obj):
        foreign = not (getattr(obj, "__module__", None) or "flaxgen").startswith("flaxgen")
        return True if foreign or not (text or name == "__call__") else None
    return True if text.startswith("Alias for field number") else None


def sign(app, what, name, obj, options, signature, returned):
    """Answers autodoc with the signature that the source has: aliases by their names, shapes as they were written."""
    node = definition(obj) if what in ("function", "method", "class", "exception") else None
    if node is None:
        return None
    if isinstance(node, ast.ClassDef):
        fields = [ast.unparse(shortened(one)) for one in node.body if isinstance(one, ast.AnnAssign)]
        return (f"({', '.join(fields)})", None) if fields else None
    first = (node.args.posonlyargs or node.args.args)[:1]
    if first and first[0].arg in ("self", "cls"):
        (node.args.posonlyargs or node.args.args).pop(0)
    return f"({ast.unparse(node.args)})", node.returns and ast.unparse(node.returns)


def shortened(field: ast.AnnAssign) -> ast.AnnAssign:
    """The field with the default alone of `option(default, help, ...)`, and without what calls `field`."""
    if isinstance(field.value, ast.Call) and isinstance(field.value.func, ast.Name):
        name, given = field.value.func.id, field.value.args
        if name == "option" or name == "field":
            field.value = given[0] if name == "option" and given else None
    return field


def definition(obj) -> ast.ClassDef | ast.FunctionDef | None:
    """The source of a class or a function; None where there is none."""
    try:
        (node,) = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(obj)))).body
    except (OSError, TypeError, SyntaxError, ValueError):
        return None
    return node if isinstance(node, ast.ClassDef | ast.FunctionDef) else None


def translate(app, what, name, obj, options, lines) -> None:
    """To reStructuredText: `code`, links to the references from [Key22, eq. 1], and all else as it stands."""
    parts = CODE.split("\n".join(lines))  # prose and code in turn
    for i, part in enumerate(parts):
        plain = MARKS.sub(r"\\\g<0>", part)
        parts[i] = f"``{part}``" if i % 2 else CITED.sub(r":doc:`[\1] </references>`", plain)
    lines[:] = "".join(parts).split("\n")


def link_paths(app, doctree, page) -> None:
    """Makes links of `docs/guide.md` and `flaxgen/types.py`, which are paths for who reads the files themselves."""
    known = app.env.found_docs
    for literal in list(doctree.findall(nodes.literal)):
        target = target_of(literal.astext(), known)
        if target and target[0] != page and not isinstance(literal.parent, nodes.reference):
            literal.replace_self(make_refnode(app.builder, page, *target, [literal.deepcopy()]))


def target_of(text: str, known: set[str]) -> tuple[str, str | None] | None:
    """The page and the place in it that show the file of this path."""
    if found := PAGE.fullmatch(text):
        return (found[1], None) if found[1] in known else None
    if found := MODULE.fullmatch(text):
        path = PACKAGE / f"{found[1]}.py"
        package = "api/" + ".".join(path.parent.relative_to(PACKAGE.parent).parts)
        if path.is_file() and package in known:
            return package, f"module-flaxgen.{found[1].replace('/', '.').removesuffix('.__init__')}"
    return None
