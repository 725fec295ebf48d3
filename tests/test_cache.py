"""The cache directory is the user's alone, and a command does without one that cannot be used."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flaxgen import cache


@pytest.fixture
def begin(tmp_path, monkeypatch):
    """`cache.begin` in a folder of this test, JAX left alone."""
    monkeypatch.setattr(cache, "_tell_jax", lambda folder: None)
    monkeypatch.setattr(cache, "_current", None)
    return lambda folder=tmp_path / "cache": cache.begin({cache.VARIABLE: str(folder)})


@pytest.mark.parametrize(
    ("system", "environ", "expected"),
    [
        ("linux", {}, "~/.cache/flaxgen"),
        ("linux", {"XDG_CACHE_HOME": "/fast"}, "/fast/flaxgen"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "~/.cache/flaxgen"),  # to be ignored, says the specification
        ("darwin", {"XDG_CACHE_HOME": "/fast"}, "~/Library/Caches/flaxgen"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/flaxgen/Cache"),
    ],
)
def test_every_system_has_its_place(system, environ, expected):
    assert cache.default_directory(environ, system) == Path(expected).expanduser()


def test_folders_are_for_the_user_alone(begin, tmp_path):
    assert begin().folder == tmp_path / "cache" / "programs"
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "cache", *(tmp_path / "cache").iterdir())} == {0o700}


def test_off_keeps_nothing(begin):
    begin()
    assert begin("off") is None
    assert cache.current() is None
    cache.write("name", b"content")
    assert cache.read("name") is None


def test_what_cannot_be_a_directory_is_one_line(begin, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert begin(tmp_path / "file" / "cache") is None
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: nothing compiled is kept")
    assert str(tmp_path / "file") in line


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no owners here")
def test_the_folder_of_another_user_is_refused(begin, monkeypatch, capsys):
    begin()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert begin() is None
    assert "belongs to another user" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no owners here")
@pytest.mark.parametrize("which", ["cache", "cache/programs"])
def test_a_folder_that_others_write_in_is_refused(begin, tmp_path, which, capsys):
    begin()
    (tmp_path / which).chmod(0o770)
    assert begin() is None
    assert "others can write" in capsys.readouterr().err


def test_what_is_kept_is_read_whole_or_not_at_all(begin):
    folder = begin().folder
    cache.write("name", b"content")
    assert cache.read("name") == b"content"
    whole = (folder / "name").read_bytes()
    for damaged in (whole[:-1], whole[:7], b"", whole[:-1] + b"x"):
        (folder / "name").write_bytes(damaged)
        assert cache.read("name") is None
        assert not (folder / "name").exists()


def test_a_full_disk_is_no_error(begin, monkeypatch):
    folder = begin().folder

    def replace(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", replace)
    cache.write("name", b"content")
    assert list(folder.iterdir()) == []


def test_what_was_not_used_for_longest_goes_first(tmp_path):
    for age, size in enumerate((4, 0, 4, 4)):
        (tmp_path / str(age)).write_bytes(b"x" * size)
        os.utime(tmp_path / str(age), (1000 - age, 1000 - age))
    cache.trim(tmp_path, 9)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "2"]


def test_importing_keeps_nothing_and_beginning_needs_no_jax(tmp_path):
    code = (
        "import os, sys, flaxgen.cli\n"
        "from flaxgen import cache\n"
        "assert cache.current() is None and 'JAX_COMPILATION_CACHE_DIR' not in os.environ\n"
        "cache.begin()\n"
        "assert cache.current() and 'jax' not in sys.modules\n"
        "import jax\n"
        "print(jax.config.jax_compilation_cache_dir, jax.config.jax_persistent_cache_min_compile_time_secs,\n"
        "      jax.config.jax_persistent_cache_min_entry_size_bytes)"
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environ[cache.VARIABLE] = str(tmp_path / "cache")
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    (xla,) = (tmp_path / "cache").glob("xla-*")
    assert done.stdout.split() == [str(xla), "0.0", "-1"]
