"""The user's cache directory, where commands keep what they compile, so that the second one takes seconds.

Nothing is kept before `begin`, which the command line calls and `import flaxgen` does not. What is read from here is
run: so the folders belong to the user, nobody else can write in them, and files are checked for damage.
"""

import contextlib
import hashlib
import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

VARIABLE = "FLAXGEN_CACHE"
"""Names another directory, or is "off"."""
XLA_BYTES, PROGRAM_BYTES = 2 * 2**30, 2**28
"""How large the two folders may grow: JAX's compiled programs, and our traced ones."""
DIGEST = hashlib.sha256().digest_size


class Cache(NamedTuple):
    """A cache that has begun: the folder of the traced programs, and a hash of the code that runs."""

    folder: Path
    source: str


_current: Cache | None = None


def current() -> Cache | None:
    """What `begin` opened; None where nothing is kept."""
    return _current


def begin(environ: Mapping[str, str] = os.environ) -> Cache | None:
    """Keeps from now on what is compiled, in JAX's own cache and in `read` and `write`; not where `environ` says "off".

    A directory that cannot be used is a line on stderr and nothing more. Call it before JAX compiles anything, as it
    looks for a cache once.
    """
    global _current
    _current = None
    if environ.get(VARIABLE) == "off":
        return None
    try:
        directory = Path(environ[VARIABLE]).absolute() if environ.get(VARIABLE) else default_directory(environ)
        _own(directory)
        xla, programs = directory / f"xla-{_machine()}", directory / "programs"
        for folder, limit in ((xla, XLA_BYTES), (programs, PROGRAM_BYTES)):
            _own(folder)
            folder.chmod(0o700)
            trim(folder, limit)
        with tempfile.TemporaryFile(dir=programs):
            pass
    except (OSError, RuntimeError) as error:  # a RuntimeError says that there is no home
        print(f"warning: nothing compiled is kept for the next command: {error}", file=sys.stderr)
        return None
    _tell_jax(xla)
    _current = Cache(programs, _source())
    return _current


def default_directory(environ: Mapping[str, str] = os.environ, system: str = sys.platform) -> Path:
    """Where this system keeps what can be made again."""
    home = Path.home()
    if system == "darwin":
        return home / "Library" / "Caches" / "flaxgen"
    if system == "win32":
        return Path(environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "flaxgen" / "Cache"
    named = Path(environ.get("XDG_CACHE_HOME", ""))
    return (named if named.is_absolute() else home / ".cache") / "flaxgen"


def read(name: str) -> bytes | None:
    """What `write` kept under that name; None where there is nothing, or it is damaged."""
    if _current is None:
        return None
    path = _current.folder / name
    with contextlib.suppress(OSError):
        digest, content = (whole := path.read_bytes())[:DIGEST], whole[DIGEST:]
        if hashlib.sha256(content).digest() == digest:
            os.utime(path)  # `trim` removes what was not used for longest
            return content
        path.unlink()
    return None


def write(name: str, content: bytes) -> None:
    """Keeps `content` whole or not at all; where the disk is full, not at all."""
    if _current is None:
        return
    with contextlib.suppress(OSError), tempfile.NamedTemporaryFile(dir=_current.folder, delete=False) as file:
        try:
            file.write(hashlib.sha256(content).digest() + content)
            file.close()
            os.replace(file.name, _current.folder / name)
        except OSError:
            os.unlink(file.name)


def trim(folder: Path, limit: int) -> None:
    """Removes the files of a folder that were not used for longest, and those that a full disk left empty, until the
    rest has at most `limit` bytes.

    JAX can do so itself, but then it reads its whole folder at every program that it keeps.
    """
    files = sorted(_files(folder), key=lambda file: max(file[1].st_atime, file[1].st_mtime), reverse=True)
    total = 0
    for path, about in files:
        total += about.st_size
        if total > limit or about.st_size == 0:
            path.unlink(missing_ok=True)


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for path, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # another process trims too
                yield (file := Path(path, name)), file.lstat()


def _own(folder: Path) -> None:
    """Makes a folder for this user alone where there is none.

    Raises:
        PermissionError: if it belongs to another user, or others can write in it.
        OSError: if it cannot be made.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    if not hasattr(os, "geteuid"):
        return
    about = folder.stat()
    if about.st_uid != os.geteuid():
        raise PermissionError(f"{folder} belongs to another user: name another directory with {VARIABLE}")
    if about.st_mode & 0o022:
        raise PermissionError(f"others can write in {folder}: take that from them with chmod 700")


def _machine() -> str:
    """Tells processors apart that cannot run each other's programs, where they share a home directory."""
    text = f"{platform.system()} {platform.machine()} {platform.processor()}"
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        text += "".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _source() -> str:
    """A hash of this package's code, taken before the most of it is imported: what is edited later was not run."""
    root, digest = Path(__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root)} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _tell_jax(folder: Path) -> None:
    """JAX's own settings, unless the user chose a folder; through the environment where JAX is yet to be imported, so
    that a command that needs no JAX does without it."""
    options = {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    if "jax" not in sys.modules:
        if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
            os.environ.update({name.upper(): str(value) for name, value in options.items()})
        return
    import jax

    if not getattr(jax.config, "jax_compilation_cache_dir", None):
        for name, value in options.items():
            jax.config.update(name, value)
