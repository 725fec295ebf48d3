"""What models over an autoencoder's codes have in common: how codes are drawn, and whose codes they are."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from flaxgen.data import Data
from flaxgen.family.companions import Cached, check_companion, companion_file, load_companion, open_cache
from flaxgen.family.family import Family
from flaxgen.family.request import Clash, Request, option, picture_option
from flaxgen.family.trained import Files
from flaxgen.train.config import require

AUTOENCODER = "autoencoder"
"""What the companion is called, and the field of a config that says where it lies."""
NAMED = companion_file(AUTOENCODER)
ONE_MAP = "codes"
"""What the map of an autoencoder without levels is called."""
OWN = "the model's own"
ASKED = ("temperature", "top_k", "top_p", "guidance")
"""Settings that a request may give."""
D = TypeVar("D", bound="CodeDrawing")


@dataclass(frozen=True)
class CodeDrawing:
    """How codes are drawn: from softmax(logits / temperature) within the `top_k` likeliest (0: all), then the nucleus
    `top_p`, with classifier-free `guidance`. At most `batch` pictures are drawn at once."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    guidance: float = 1.0
    batch: int = 64

    def __post_init__(self):
        require(self.temperature >= 0, f"temperature={self.temperature}: expected 0 (the likeliest) or more")
        require(self.top_k >= 0, f"top_k={self.top_k}: expected 0 (all) or more codes")
        require(0 < self.top_p <= 1, f"top_p={self.top_p}: expected a share in (0, 1]")
        require(self.guidance >= 0, f"guidance={self.guidance}: expected 0 or more")
        require(self.batch >= 1, f"batch={self.batch}: expected 1 or more")

    def kind(self: D) -> D:
        """What has to be compiled: these settings without those that may change freely. What is 1 stays, as it costs
        nothing then."""
        top_p, guidance = 1.0 if self.top_p == 1 else 0.5, 1.0 if self.guidance == 1 else 2.0
        return replace(self, temperature=1.0, top_p=top_p, guidance=guidance)

    def used(self) -> dict[str, Any]:
        """What is written into a picture."""
        return {name: value for name, value in vars(self).items() if name != "batch"}


@dataclass(frozen=True, kw_only=True)
class FromCodes(Request):
    """What every request whose pictures are drawn as codes may say."""

    guidance: float | None = option(None, "classifier-free guidance scale; 1 is none", least=0, default_text=OWN)
    temperature: float | None = option(None, "of codes; 0 takes the likeliest", least=0, default_text=OWN)
    top_k: int | None = option(None, "choose among so many codes; 0 is all", least=0, default_text=OWN)
    top_p: float | None = option(
        None, "choose among the likeliest codes of this probability together", above=0, most=1, default_text=OWN
    )
    complete: Any = picture_option("a picture whose upper rows are kept")
    rows: int | None = option(None, "how many rows of codes, or of pixels, are kept", least=1, default_text="half")

    def __post_init__(self):
        super().__post_init__()
        if self.rows is not None and self.complete is None:
            raise Clash("{rows} are of a picture to complete: give {complete} too", rows=self.rows, complete=None)


def asked(drawing: D, request: FromCodes, names: tuple[str, ...] = ASKED) -> D:
    """The settings, with those that a request gives."""
    return replace(drawing, **{name: value for name in names if (value := getattr(request, name)) is not None})


def check_fits(
    net: Any, sides: tuple[int, int], autoencoder: Any, spare: bool = False, level: str = "", name: str = "net"
) -> None:
    """Raises ValueError unless a net, of this `name` in its config, for maps of codes with these `sides` is for the
    codes of the autoencoder, or those of its `level`; with `spare` it may know more."""
    autoencoder.check_codes()
    maps = autoencoder.maps
    has = "one map of codes" if ONE_MAP in maps else f"two maps of codes, {' and '.join(maps)}"
    said = f"its {level} one" if level else "one alone"
    require((level or ONE_MAP) in maps, f"the autoencoder has {has}, and this model reads {said}: choose another")
    codes, side = maps[level or ONE_MAP]
    fits = net.codes == codes or (spare and net.codes > codes)
    require(fits, f"{name}.codes={net.codes}, the autoencoder has {codes}: set {name}.codes={codes}")
    require(
        sides == (side, side),
        f"the {name} is for maps of {sides[0]} x {sides[1]} codes, the autoencoder's is {side} x {side}: set both "
        "alike",
    )


def load_autoencoder(family: Family, config: Any, sides: tuple[int, int], spare: bool = False) -> Any:
    """The autoencoder, of this family, whose codes the net of a config reads; see `check_fits`.

    Raises:
        ValueError: if it is not there, has no codes, or others than the net reads.
    """
    found = load_companion(family, config.autoencoder)
    check_fits(config.net, sides, found, spare)
    return found


def name_autoencoder(found: Files, autoencoder: Any) -> Files:
    """The small file that names the autoencoder; ValueError if `found` names another."""
    return check_companion(found, AUTOENCODER, autoencoder.fingerprint)


def open_codes(autoencoder: Any, data: Data, cache: str) -> Cached:
    """The codes of all examples of `data`, in a folder below `cache` ("": below the autoencoder's own directory)."""
    return Cached(*open_cache(autoencoder.encoder, data, Path(cache or Path(autoencoder.name) / "codes")))


def check_plain(data: Data) -> None:
    """Raises ValueError unless pictures are read as they are: their codes are computed once."""
    require(
        not (data.flip or data.random_crop),
        "data.flip and data.random_crop change pictures, and their codes are computed once: set them false",
    )


def check_rows(rows: int | None, height: int) -> None:
    """Raises ValueError unless so many upper rows of a map of that height can be kept, and some are left to draw."""
    require(rows is None or 0 < rows < height, f"rows={rows}: expected 1 to {height - 1} of the {height} rows")


def check_hidden(drawing: CodeDrawing, share: float, field: str) -> None:
    """Raises ValueError unless a model from which that share of the conditions was hidden can draw so."""
    require(
        drawing.guidance == 1 or share > 0,
        f"guidance={drawing.guidance} needs a model trained with {field}, and this one was not",
    )
