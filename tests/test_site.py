"""The site builds without a warning, and its links lead somewhere; what a release carries is looked at."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def load(name: str):
    """A file of scripts/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    (tmp_path / "a.html").write_text('<a href="b.html#there">1</a><a href="b.html#gone">2</a><img src="no.png">')
    (tmp_path / "b.html").write_text('<p id="there"></p><a href="a.html">3</a><a href="https://jax.dev/">4</a>')
    broken, outside = load("check_links").check(tmp_path)
    assert broken == ["a.html: b.html#gone leads nowhere", "a.html: no.png leads nowhere"]
    assert outside == {"https://jax.dev/"}


def test_what_a_wheel_lacks_or_should_not_have_is_found(tmp_path):
    wheel = tmp_path / "flaxgen-0.1.0-py3-none-any.whl"
    wheel.write_bytes(b"")
    names = {"flaxgen/py.typed": b"", "flaxgen/old.ckpt": b"", "flaxgen/a.py": b"TOKEN = 'hf_" + b"a" * 34 + b"'"}
    lines = load("check_dist").wrongs(names, "0.1.1", ["flaxgen/py.typed", "flaxgen/app/page/index.html"], wheel)
    assert [line.partition(": ")[2] for line in lines] == [
        "flaxgen/app/page/index.html is missing", "flaxgen/old.ckpt should not be there",
        "flaxgen/a.py looks as if it held a secret", "expected version 0.1.1",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_sphinx_builds_the_site_without_a_warning(tmp_path):
    for module in ("sphinx", "myst_nb", "sphinx_book_theme", "sphinx_copybutton"):
        pytest.importorskip(module)
    sphinx = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going", "--fresh-env"]
    done = subprocess.run([*sphinx, "docs", str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    broken, _ = load("check_links").check(tmp_path)
    assert broken == []
    signature = re.sub(
        r"<[^>]+>", "", (tmp_path / "api" / "flaxgen.diffusion.samplers.html").read_text(encoding="utf-8")
    )
    assert "init(x_T: Float[Array, 'B ...'])" in re.sub(r"\s+", " ", signature).replace("( ", "(").replace(", )", ")")
