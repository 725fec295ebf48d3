"""What is in a wheel and an sdist: the page of the studio, the models, the types; and nothing that should not be.

python -m build && python scripts/check_dist.py dist --version 0.1.0
"""

import argparse
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
CARRIED = ("flaxgen/py.typed", "flaxgen/app/page/", "flaxgen/models/")
STRAY = re.compile(
    r"(^|/)(\.env|\.git|\.venv|node_modules|__pycache__|runs|build|checkpoints)(/|$)|\.(pem|key|pyc|ckpt|pkl)$"
)
SECRET = re.compile(
    rb"-----BEGIN [A-Z ]*PRIVATE KEY|\bgh[pousr]_\w{30}|\bhf_[A-Za-z0-9]{30}|\bpypi-AgE\w{20}|\bAKIA[0-9A-Z]{16}\b"
)
LARGEST = 60 << 20
"""Bytes of a wheel; PyPI takes 100 MB."""


def tracked() -> list[str]:
    """The files of git that a wheel carries beside modules."""
    listed = subprocess.run(["git", "ls-files", *CARRIED], cwd=ROOT, capture_output=True, text=True, check=True)
    return listed.stdout.splitlines()


def wrongs(names: dict[str, bytes], version: str, wanted: list[str], path: Path) -> list[str]:
    """Lines about what is wrong with the files of an archive, by their names."""
    lines = [f"{name} is missing" for name in wanted if name not in names]
    lines += [f"{name} should not be there" for name in names if STRAY.search(name)]
    lines += [f"{name} looks as if it held a secret" for name, data in names.items() if SECRET.search(data)]
    if f"-{version}" not in path.name:
        lines.append(f"expected version {version}")
    if path.stat().st_size > LARGEST:
        lines.append(f"{path.stat().st_size} bytes, expected at most {LARGEST}")
    return [f"{path.name}: {line}" for line in lines]


def read(path: Path) -> dict[str, bytes]:
    """The files of a wheel or an sdist; of an sdist without its top folder."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
    with tarfile.open(path) as archive:
        files = {member.name: archive.extractfile(member) for member in archive.getmembers() if member.isfile()}
        return {name.partition("/")[2]: file.read() for name, file in files.items() if file}


def main(arguments: list[str] | None = None) -> int:
    """Prints what is wrong; 1 where something is."""
    parser = argparse.ArgumentParser(description="Look into a wheel and an sdist.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--version", help="expected (setup.cfg's)")
    parsed = parser.parse_args(arguments)
    said = re.search(r"^version = (\S+)", (ROOT / "setup.cfg").read_text(), flags=re.M)
    version = parsed.version or (said[1] if said else "")
    found = [*parsed.folder.glob("*.whl"), *parsed.folder.glob("*.tar.gz")]
    if sorted(path.suffix for path in found) != [".gz", ".whl"]:
        print(
            f"{parsed.folder}: expected one wheel and one sdist, got {[path.name for path in found]}", file=sys.stderr
        )
        return 1
    lines = [line for path in found for line in wrongs(read(path), version, tracked(), path)]
    print("\n".join(lines or [f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, as it should be" for path in found]))
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
