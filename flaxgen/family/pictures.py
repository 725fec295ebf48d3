"""Pictures as a value: arrays that know how they were drawn, show themselves in a notebook and save themselves."""

import base64
import dataclasses
import html
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import flaxgen
from flaxgen import bounded_json
from flaxgen.family import request as requests
from flaxgen.family import sheets

IMAGES = (".png", ".jpg", ".jpeg", ".webp")
ABOUT = "flaxgen"
"""The text of a PNG that holds the request; other formats have it in EXIF's ImageDescription."""
DESCRIPTION = 0x010E
Layout = Literal["grid", "rows", "strip", "film"]


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Pictures:
    """`arrays` are N pictures, uint8 [N H W C], or where a model draws points those, float32 [N D].

    A sheet of them is a `grid`, `rows` with a caption above each, a `strip`, or a `film` of `fps` pictures a second.
    `beside` are real examples to show next to them, `scores` a number a picture, `about` what they were made by,
    `extra` arrays that were found with them, `note` a line about them.
    """

    arrays: np.ndarray
    layout: Layout = "grid"
    captions: tuple[str, ...] = ()
    fps: float = 20.0
    beside: np.ndarray | None = None
    scores: tuple[float, ...] = ()
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    extra: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    note: str = ""

    @property
    def are_points(self) -> bool:
        """Whether these are points, which are plotted, and no pictures."""
        return self.arrays.ndim == 2

    @property
    def images(self) -> UInt8[np.ndarray, "N H W C"]:
        """The pictures; of points the plot."""
        return self.sheet()[None] if self.are_points else self.arrays

    def __len__(self) -> int:
        return len(self.arrays)

    def __getitem__(self, index: int | slice) -> "Pictures":
        if isinstance(index, int):
            index = range(len(self))[index]
            index = slice(index, index + 1)
        return dataclasses.replace(
            self, arrays=self.arrays[index], scores=self.scores[index], layout="grid", beside=None
        )

    def __iter__(self) -> Iterator["Pictures"]:
        return (self[i] for i in range(len(self)))

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self.arrays, dtype)

    def drawn_by(self, request: Any, settings: Mapping[str, Any], model: Any) -> "Pictures":
        """The same, knowing the request, the settings used, and the model's name, step and a hash of its weights."""
        import jax

        about = {
            "request": requests.to_json(request),
            "settings": dict(settings),
            "model": model.name,
            "step": model.step,
            "weights": model.fingerprint,
            "flaxgen": flaxgen.__version__,
            "jax": jax.__version__,
        }
        return dataclasses.replace(self, about=about)

    def scores_by_caption(self) -> list[tuple[str, tuple[float, ...]]]:
        """The scores of each caption's pictures."""
        if not (self.scores and self.captions):
            return []
        each = len(self.scores) // len(self.captions)
        return [(caption, self.scores[i * each : (i + 1) * each]) for i, caption in enumerate(self.captions)]

    def sheet(self) -> sheets.Picture:
        """One picture of them all."""
        if self.are_points:
            kind = sheets.histogram if self.arrays.shape[1] == 1 else sheets.scatter
            return kind(self.arrays, self.beside)
        if self.layout == "rows" and len(self.captions) > 1:
            return sheets.captioned(self.arrays, self.captions)
        drawn = sheets.grid(self.arrays, columns=len(self) if self.layout == "strip" else None)
        return drawn if self.beside is None else sheets.beside(drawn, sheets.grid(self.beside))

    def save(self, path: str | Path, *, force: bool = False, only: int | None = None) -> Path:
        """Writes them, each with what it was made by; returns where the first of them is.

        A name without suffix, or a folder, gets a file a picture. `.png`, `.jpg` and `.webp` are the picture itself
        where there is one, and else a sheet, with a folder of that name beside it; `.gif` is a film; `.npz` the arrays
        as `samples`. With `only` it is that one picture. What is there already is left alone, and the name gets a
        number, unless `force`.

        Raises:
            ValueError: for another suffix.
        """
        path = Path(path)
        check_suffix(path)
        path = path if force else unused(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if only is not None:
            self._save_one(path, self.images[only], only)
        elif not path.suffix:
            self._save_each(path, ".png")
        elif path.suffix == ".npz":
            arrays: dict[str, Any] = {"samples": self.arrays, **self.extra}
            np.savez_compressed(path, **arrays)
        elif path.suffix == ".gif":
            sheets.save_gif(path, self.arrays, self.fps)
        elif len(self) == 1 and not self.are_points and self.beside is None:
            self._save_one(path, self.images[0], 0)
        else:
            self._save_one(path, self.sheet(), None)
            if not self.are_points:
                self._save_each(path.with_suffix(""), path.suffix)
        for file, value in zip(self.beside_files(path), self.extra.values(), strict=False):
            np.save(file, value)
        return path

    def beside_files(self, path: Path) -> list[Path]:
        """Where what was found with the pictures lies, if these are at `path`; an .npz holds it itself."""
        return [] if path.suffix == ".npz" else [path.with_suffix(f".{name}.npy") for name in self.extra]

    def _save_each(self, folder: Path, suffix: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for i, image in enumerate(self.images):
            self._save_one(folder / f"{i:03d}{suffix}", image, i)

    def _save_one(self, path: Path, image: np.ndarray, number: int | None) -> None:
        about = dict(self.about)
        if number is not None:
            about |= {"picture": number, "of": len(self)} | ({"score": self.scores[number]} if self.scores else {})
        save_image(path, image, about)

    def __repr__(self) -> str:
        size = "x".join(map(str, self.arrays.shape[1:]))
        return f"{len(self)} {'points' if self.are_points else 'pictures'} of {size}"

    def _repr_png_(self) -> bytes:
        return encode_png(self.images[0] if len(self) == 1 else self.sheet())

    def _repr_html_(self) -> str:
        return f'<img src="data:image/png;base64,{base64.b64encode(self._repr_png_()).decode()}" ' \
               f'alt="{html.escape(repr(self))}">'  # fmt: skip


def encode_png(image: np.ndarray) -> bytes:
    """A picture [H W 1 or 3] as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(_flat(image)).save(file, "PNG")
    return file.getvalue()


def _flat(image: np.ndarray) -> np.ndarray:
    return image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image


def save_image(path: Path, image: np.ndarray, about: Mapping[str, Any]) -> None:
    """Writes one picture, with `about` inside it as JSON."""
    text = json.dumps(about, default=str).encode("utf-8", "replace").decode()
    picture = Image.fromarray(_flat(image))
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        info = PngInfo()
        info.add_text(ABOUT, text)
        picture.save(path, pnginfo=info)
    else:
        exif = Image.Exif()
        exif[DESCRIPTION] = text
        picture.save(path, quality=95, exif=exif)


def read_about(path: Path) -> dict[str, Any]:
    """What a picture that flaxgen wrote was made by.

    Raises:
        ValueError, OSError: if it is no picture, or says nothing.
    """
    with Image.open(path, formats=["PNG", "JPEG", "WEBP"]) as picture:
        text = getattr(picture, "text", {}).get(ABOUT) or picture.getexif().get(DESCRIPTION, "")
    try:
        about = bounded_json.loads(text)
    except ValueError:
        about = None
    if not isinstance(about, dict) or not isinstance(about.get("request"), dict):
        raise ValueError(f"{path} does not say how it was made: expected a picture that flaxgen wrote")
    return about


def check_suffix(path: Path, suffixes: tuple[str, ...] = (*IMAGES, ".npz", ".gif", "")) -> None:
    """Raises ValueError unless pictures can be written to a file of that name."""
    if path.suffix not in suffixes:
        named = ", ".join(suffix for suffix in suffixes if suffix)
        folder = ", or the name of a folder" if "" in suffixes else ""
        raise ValueError(f"{path}: expected a name that ends in {named}{folder}")


def unused(path: Path) -> Path:
    """The path, or where something is there already the first of NAME-1, NAME-2 ... where nothing is."""
    candidate, number = path, 0
    while candidate.exists() or (path.suffix in IMAGES and candidate.with_suffix("").is_dir()):
        number += 1
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return candidate
