"""What an autoencoder can be asked, as values."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from flaxgen.family.request import Request, option, positional
from flaxgen.family.requests import OfPictures, Sample, check_pictures, examples_of
from flaxgen.train.config import require
from flaxgen.zoo.autoencoder.config import Config, check_size, check_tile


@dataclass(frozen=True, kw_only=True)
class SampleLatents(Sample):
    """Draw samples."""

    std: float = option(1.0, "of the latents that are drawn; below 1 all come nearer to the mean", above=0)


@dataclass(frozen=True, kw_only=True)
class Reconstruct(OfPictures):
    """Encode and decode pictures."""

    verb: ClassVar[str] = "reconstruct"
    examples: ClassVar[tuple[str, ...]] = (
        "flaxgen reconstruct runs/vqvae a.png b.png --out out.png",
        "flaxgen reconstruct models/kl large.png --whole --tile 512 --out out.png",
        "flaxgen reconstruct runs/vae --num 1000 --out out.npz",
    )
    out: ClassVar[str] = "reconstructed.png"

    whole: bool = option(False, "take pictures as they are, and not their middle squares")
    tile: int = option(0, "pixels a side of the tiles that large pictures are taken in; 0: none", least=0)
    noise: float = option(0.0, "standard deviation of noise to undo, in units of [-1, 1]", least=0)
    bound: int = option(1, "draws a picture for the bound on bits a number, of a VAE with a likelihood", least=1)

    def __post_init__(self):
        super().__post_init__()
        if self.whole and not self.images:
            raise ValueError("whole is for pictures that are named: examples have the size of its data")
        if self.tile and not self.whole:
            raise ValueError("tile is for pictures that are taken as they are: ask for whole too")


@dataclass(frozen=True, kw_only=True)
class Encode(OfPictures):
    """Pictures to codes, or to latents."""

    verb: ClassVar[str] = "encode"
    examples: ClassVar[tuple[str, ...]] = ("flaxgen encode runs/vqvae a.png b.png --out codes.npz",)
    out: ClassVar[str] = "codes.npz"


@dataclass(frozen=True, kw_only=True)
class Decode(Request):
    """Pictures of codes, or of latents."""

    verb: ClassVar[str] = "decode"
    examples: ClassVar[tuple[str, ...]] = ("flaxgen decode runs/vqvae codes.npz --out out.png",)
    model_first: ClassVar[bool] = True
    out: ClassVar[str] = "decoded.png"

    file: str = positional("an .npz of `flaxgen encode`, or an .npy of codes [N h w] or latents [N h w D]")


@dataclass(frozen=True, kw_only=True)
class InterpolateLatents(OfPictures):
    """Walk between pictures."""

    verb: ClassVar[str] = "interpolate"
    examples: ClassVar[tuple[str, ...]] = ("flaxgen interpolate runs/vae a.png b.png --frames 9 --out walk.png",)
    out: ClassVar[str] = "walk.gif"

    num: int = option(4, "how many examples, where no pictures are named", least=2)
    frames: int = option(60, "how many pictures in all", least=2)
    once: bool = option(False, "end at the last picture; else the walk goes back")
    fps: float = option(20.0, "frames a second of a .gif", above=0, most=50)

    def __post_init__(self):
        super().__post_init__()
        if len(self.images) == 1:
            raise ValueError("a walk needs two pictures or more, and one is named")


def check_reconstruct(config: Config, request: Reconstruct) -> None:
    """Raises ValueError unless there are such pictures, and where they are taken as they are the net takes them."""
    check_pictures(config, request)
    check_tile(config, request.tile)
    if not request.whole:
        return
    for image in request.images:
        height, width = image.pixels.shape[:2]
        check_size(config, height, width, image.path or "a picture")
    sizes = {image.pixels.shape[:2] for image in request.images}
    said = ", ".join(sorted(f"{width}x{height}" for height, width in sizes))
    require(len(sizes) == 1, f"the pictures are of different sizes, {said}: take those of one size at a time")


@dataclass(frozen=True, kw_only=True)
class Anomaly(OfPictures):
    """Tell pictures that are unlike the data, by what is lost of them."""

    verb: ClassVar[str] = "anomaly"
    examples: ClassVar[tuple[str, ...]] = ("flaxgen anomaly runs/ae a.png b.png --out errors.png",)
    out: ClassVar[str] = "anomaly.png"

    against: int = option(1000, "how many examples of its training data to compare with", least=1)


def pictures_of(model: Any, request: OfPictures) -> np.ndarray:
    """The pictures that are meant, uint8 [N H W C] at the model's size."""
    if not request.images:
        return examples_of(model.config, request)
    images = [image.with_channels(model.config.net.in_channels) for image in request.images]
    return np.stack(images) if getattr(request, "whole", False) else model.fit(images)
