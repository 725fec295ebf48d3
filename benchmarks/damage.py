"""Damage to what flaxgen reads, seeded: checkpoints, models, tars and folders; the trials of `benchmarks.faults`."""

import io
import json
import os
import random
import shutil
import tarfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from flaxgen import verbs
from flaxgen.cli import main as flaxgen
from flaxgen.data import Data, open_source
from flaxgen.train import checkpoint

EXPERIMENT = Path(__file__).parents[1] / "experiments" / "ddpm_scurve.py"
RUN = ("steps=40", "checkpoint_every=20", "preview_every=0", "log_every=20", "net.width=16", "net.depth=1")
STEP, EXAMPLES = 5, 40
"""Pictures of the data trials: the value of every pixel of number n is n times STEP."""
NO_JSON = (
    "[]", "1", "null", '"text"', '{"content": 3, "sha256": 4}', "[" * 10**6, '{"a": ' * 10**5, "", "\udcff", "1" * 10**5
)  # fmt: skip
Trial = tuple[str, Callable[[], str | None]]
"""What is done, and what does it: it returns what is wrong, or None."""


def same(one, other) -> bool:
    """Whether two trees of arrays are equal, bit for bit."""
    equal = jax.tree.map(lambda a, b: np.array_equal(np.asarray(a), np.asarray(b)), one, other)
    return all(jax.tree.leaves(equal))


def trained(folder: Path) -> Path:
    """A small run with two checkpoints."""
    run = folder / "run"
    if not run.exists():
        words = [str(EXPERIMENT), "--workdir", str(run), "--set", *RUN]
        assert flaxgen(["train", *words]) == 0
    return run


def checkpoints(folder: Path, rng: random.Random) -> Iterator[Trial]:
    """60 damages to the checkpoints of a run, of which the newest good one has to be read, or none."""
    run = trained(folder)
    truth = {}
    for step in checkpoint.steps_in(run / "checkpoints"):
        alone = folder / "alone" / str(step)
        shutil.copytree(run / "checkpoints" / str(step), alone / str(step))
        truth[step] = checkpoint.read(alone, ("ema_params",))[1]
    kinds = (_flip, _cut, _append, _remove, _rename, _exchange, _no_manifest, _no_directory)
    for i in range(60):
        kind, copy = kinds[i % len(kinds)], folder / f"checkpoints{i}"
        shutil.copytree(run / "checkpoints", copy)
        kind(copy, rng)

        def read(copy=copy):
            step, found = checkpoint.read(copy, ("ema_params",))
            return None if step in truth and same(found, truth[step]) else f"silent: step {step} is not what was saved"

        yield f"checkpoints, {kind.__name__[1:]}", read


def _files(folder: Path) -> list[Path]:
    newest = max(folder.iterdir(), key=lambda path: int(path.name))
    return sorted(path for path in newest.rglob("*") if path.is_file())


def _flip(folder: Path, rng: random.Random) -> None:
    flip(rng.choice([path for path in _files(folder) if path.stat().st_size]), rng)


def flip(path: Path, rng: random.Random, first: int = 0, last: int | None = None) -> None:
    """Flips one bit of a file."""
    content = bytearray(path.read_bytes())
    content[rng.randrange(first, len(content) if last is None else last)] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def _cut(folder: Path, rng: random.Random) -> None:
    path = rng.choice([path for path in _files(folder) if path.stat().st_size])
    os.truncate(path, rng.randrange(path.stat().st_size))


def _append(folder: Path, rng: random.Random) -> None:
    with rng.choice(_files(folder)).open("ab") as file:
        file.write(rng.randbytes(rng.randrange(1, 100)))


def _remove(folder: Path, rng: random.Random) -> None:
    rng.choice(_files(folder)).unlink()


def _rename(folder: Path, rng: random.Random) -> None:
    newest = max(folder.iterdir(), key=lambda path: int(path.name))
    newest.rename(folder / str(int(newest.name) + rng.randrange(1, 100)))


def _exchange(folder: Path, rng: random.Random) -> None:
    older, newer = sorted(folder.iterdir(), key=lambda path: int(path.name))[-2:]
    for old, new in ((older, folder / "a"), (newer, older), (folder / "a", newer)):
        old.rename(new)


def _no_manifest(folder: Path, rng: random.Random) -> None:
    manifest = next(path for path in _files(folder) if path.name == "manifest.json")
    manifest.write_text(rng.choice(NO_JSON), errors="surrogateescape")


def _no_directory(folder: Path, rng: random.Random) -> None:
    newest = max(folder.iterdir(), key=lambda path: int(path.name))
    shutil.rmtree(newest)
    if rng.random() < 0.5:
        newest.write_bytes(rng.randbytes(10))
    else:
        newest.mkdir()


def models(folder: Path, rng: random.Random) -> Iterator[Trial]:
    """40 damages to the files of a model directory. A flipped bit of a weight is no fault that a file without sums
    shows, so bits are flipped in the header alone."""
    model = folder / "model"
    verbs.export(trained(folder), model)
    truth = verbs.load(model)
    weights, config = "model.safetensors", "config.json"
    header = 8 + int.from_bytes((model / weights).read_bytes()[:8], "little")

    def mistyped(path: Path) -> None:
        """Some value of the config, at some depth, becomes what it cannot be."""
        whole = json.loads(path.read_text())
        inner = whole["config"]
        while rng.random() < 0.5 and (below := [value for value in inner.values() if isinstance(value, dict)]):
            inner = rng.choice(below)
        inner[rng.choice([name for name in inner if name != "type"])] = {"type": "Nothing"}
        path.write_text(json.dumps(whole))

    kinds: dict[str, Callable[[Path], object]] = {
        "header": lambda copy: flip(copy / weights, rng, 0, header),
        "cut": lambda copy: os.truncate(copy / weights, rng.randrange((copy / weights).stat().st_size)),
        "longer": lambda copy: (copy / weights).open("ab").write(rng.randbytes(rng.randrange(1, 99))),
        "no JSON": lambda copy: (copy / config).write_text(rng.choice(NO_JSON), errors="surrogateescape"),
        "mistyped": lambda copy: mistyped(copy / config),
    }
    for i in range(40):
        name, copy = list(kinds)[i % len(kinds)], folder / f"model{i}"
        shutil.copytree(model, copy)
        kinds[name](copy)

        def load(copy=copy):
            found = verbs.load(copy)
            good = found.config == truth.config and same(found.params, truth.params)
            return None if good else "silent: another model was loaded"

        yield f"models, {name}", load


def data(folder: Path, rng: random.Random) -> Iterator[Trial]:
    """66 damaged tars and folders: what is read has to be right, and what is lost has to be counted."""
    for i in range(66):
        place = folder / f"data{i}"
        place.mkdir()
        if i % 2:
            kind = list(SHARDS)[i // 2 % len(SHARDS)]
            _write_shard(place / "a.tar")
            SHARDS[kind](place / "a.tar", rng)
            yield f"tar, {kind}", lambda place=place: _read_all(Data("webdataset", path=str(place)))
        else:
            kind = list(FOLDERS)[i // 2 % len(FOLDERS)]
            _write_folder(place)
            FOLDERS[kind](place)
            yield f"folder, {kind}", lambda place=place: _read_all(Data("folder", path=str(place)))


def picture(number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), number * STEP, np.uint8)).save(file, "PNG")
    return file.getvalue()


def _write_shard(path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        for number in range(EXAMPLES):
            for suffix, content in (("png", picture(number)), ("cls", str(number).encode())):
                member = tarfile.TarInfo(f"{number:03}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def _write_folder(folder: Path) -> None:
    for number in range(EXAMPLES):
        (folder / f"{number:03}.png").write_bytes(picture(number))
    rows = [{"file_name": f"{number:03}.png", "label": number, "text": "grey"} for number in range(EXAMPLES)]
    _write_rows(folder, rows)


def _write_rows(folder: Path, rows: list) -> None:
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _change_row(**changes):
    def change(folder: Path) -> None:
        rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
        rows[7] |= changes
        _write_rows(folder, rows)

    return change


def _offsets(path: Path) -> list[tuple[int, int]]:
    with tarfile.open(path) as tar:
        return [(member.offset, member.offset_data) for member in tar.getmembers()]


def _flip_header(path: Path, rng: random.Random) -> None:
    flip(path, rng, *rng.choice(_offsets(path)))


def _flip_picture(path: Path, rng: random.Random) -> None:
    start = rng.choice(_offsets(path)[::2])[1]
    flip(path, rng, start, start + len(picture(0)))


def _blank(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    start = 512 * rng.randrange(2 * EXAMPLES)
    content[start : start + 512] = bytes(512)
    path.write_bytes(content)


SHARDS: dict[str, Callable[[Path, random.Random], object]] = {
    "header": _flip_header,
    "picture": _flip_picture,
    "blank block": _blank,
    "cut": lambda path, rng: os.truncate(path, rng.randrange(path.stat().st_size)),
    "no end": lambda path, rng: os.truncate(path, path.stat().st_size // 512 * 512 - 512 * rng.randrange(1, 40)),
    "more behind": lambda path, rng: path.write_bytes(path.read_bytes() + rng.randbytes(512)),
}
FOLDERS: dict[str, Callable[[Path], object]] = {
    "cut": lambda folder: os.truncate(folder / "007.png", 40),
    "empty": lambda folder: (folder / "007.png").write_bytes(b""),
    "no picture": lambda folder: (folder / "007.png").write_bytes(b"<svg/>" * 20),
    "gone": lambda folder: (folder / "007.png").unlink(),
    "pipe": lambda folder: ((folder / "007.png").unlink(), os.mkfifo(folder / "007.png")),
    "device": lambda folder: (folder / "x.png").symlink_to("/dev/zero"),
    "outside": _change_row(file_name="../007.png"),
    "absolute": _change_row(file_name="/etc/passwd"),
    "negative label": _change_row(label=-1),
    "large label": _change_row(label=10**30),
    "no caption": _change_row(text=None),
    "deep": lambda folder: (folder / "metadata.jsonl").write_text("[" * 10**6),
    "no UTF-8": lambda folder: (folder / "metadata.jsonl").write_bytes(b'{"file_name": "\xff\xfe.png"}\n'),
}


def _read_all(config: Data) -> str | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = open_source(config)
        seen = set()
        for i in range(len(source)):
            example = source[i]
            number = int(example["image"][0, 0, 0]) // STEP
            if (example["image"] != number * STEP).any() or example.get("label", number) != number:
                return f"silent: picture {number} has label {example.get('label')}"
            if example.get("text", "grey") != "grey":
                return f"silent: the caption is {example['text']!r}"
            seen.add(number)
    lost = EXAMPLES - len(seen)
    return f"silent: {lost} are gone and none is counted" if lost and not getattr(source, "broken", {}) else None
