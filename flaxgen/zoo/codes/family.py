"""What a prior over codes can be asked, and the declaration of the family."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import numpy as np

from flaxgen.data import to_pixels
from flaxgen.data.transforms import center_crop, resize_short_side
from flaxgen.family.companions import companion_file
from flaxgen.family.family import Family
from flaxgen.family.pictures import Pictures
from flaxgen.family.request import Clash, option, picture_option
from flaxgen.family.requests import Sample, check_beside, label_option, sampled, set_option
from flaxgen.family.trained import Handler, Progress
from flaxgen.train.config import override, require
from flaxgen.zoo.codes.config import (
    NAME,
    Config,
    Drawing,
    batch_spec,
    num_labels,
    of_pixels,
    open_source,
    prepare,
    to_levels,
)
from flaxgen.zoo.codes.model import Model, check_drawing, init_params, make_loss


@dataclass(frozen=True, kw_only=True)
class SampleCodes(Sample):
    """Draw samples."""

    examples: ClassVar[tuple[str, ...]] = (
        "flaxgen sample runs/prior --num 64 --class 3 --temperature 0.9 --out grid.png",
        "flaxgen sample runs/prior --complete image.png --rows 2 --num 8 --out completed.png",
    )

    label: int | None = label_option()
    set: tuple[str, ...] = set_option()
    steps: int | None = option(None, "rounds of a masked net", least=1, default_text="the model's own")
    guidance: float | None = option(None, "classifier-free guidance scale; 1 is none", default_text="the model's own")
    temperature: float | None = option(None, "of codes; 0 takes the likeliest", least=0, default_text="the model's own")
    top_k: int | None = option(None, "choose among so many codes; 0 is all", least=0, default_text="the model's own")
    top_p: float | None = option(
        None, "choose among the likeliest codes of this probability together", above=0, most=1,
        default_text="the model's own",
    )  # fmt: skip
    complete: Any = picture_option("a picture whose upper rows are kept")
    rows: int | None = option(None, "how many rows of codes, or of pixels, are kept", least=1, default_text="half")

    def __post_init__(self):
        super().__post_init__()
        if self.rows is not None and self.complete is None:
            raise Clash("{rows} are of a picture to complete: give {complete} too", rows=self.rows, complete=None)


def _drawing(config: Config, request: SampleCodes) -> Drawing:
    names = ("steps", "guidance", "temperature", "top_k", "top_p")
    given = {name: value for name in names if (value := getattr(request, name)) is not None}
    return override(replace(config.drawing, **given), request.set)


def settings(model: Model, request: SampleCodes) -> dict[str, Any]:
    """The settings used."""
    return {name: value for name, value in vars(_drawing(model.config, request)).items() if name != "batch"}


def check_sample(config: Config, request: SampleCodes) -> None:
    """Raises ValueError unless such a model can do that."""
    check_drawing(config, _drawing(config, request))
    classes = num_labels(config)
    if request.label is not None:
        require(classes > 0, f"label={request.label}: this model knows no classes")
        require(request.label < classes, f"label={request.label}: expected a class from 0 to {classes - 1}")
    if request.rows is not None:
        height = config.net.height
        require(request.rows < height, f"rows={request.rows}: expected 1 to {height - 1} of the {height} rows")
    check_beside(config, request, are_points=False)


def draw_samples(model: Model, request: SampleCodes, progress: Progress) -> Pictures:
    """What a request asks for."""
    progress("drawing codes")
    known, rows = None, request.rows or model.config.net.height // 2
    if request.complete is not None:
        known = (codes_of(model, request.complete), rows)
    key = jax.random.key(request.seed)
    codes = model.draw_codes(
        key, request.numbers, label=request.label, drawing=_drawing(model.config, request), known=known
    )
    progress("decoding")
    return replace(sampled(model, request, model.to_pictures(codes)), extra={"codes": codes})


def codes_of(model: Model, picture: Any) -> np.ndarray:
    """The codes, or levels of pixels, of a picture's middle square."""
    if not of_pixels(model.config):
        autoencoder = model.autoencoder
        pixels = picture.with_channels(autoencoder.config.net.in_channels)
        return autoencoder.encode_codes(autoencoder.fit([pixels]))[0]
    net = model.config.net
    require(net.height == net.width, f"this model is of {net.height} x {net.width} pixels, and squares are completed")
    pixels = picture.with_channels(net.pixel_channels)
    square = resize_short_side(center_crop(pixels, min(pixels.shape[:2])), net.height, model.config.data.filter)
    return np.asarray(to_levels(square, net.codes))


def preview(model: Model, key) -> np.ndarray:
    """The first samples, of all classes in turn."""
    return Pictures(to_pixels(model.generate(key, 16))).sheet()


FAMILY = Family(
    name="codes",
    config=Config,
    init_params=init_params,
    batch_spec=batch_spec,
    make_loss=make_loss,
    classes=num_labels,
    check=lambda config: check_drawing(config, config.drawing),
    open_source=open_source,
    prepare=prepare,
    files=(companion_file(NAME),),
    free=frozenset({"drawing", "autoencoder", "cache"}),
    preview=preview,
    model=Model,
    requests={SampleCodes: Handler(draw_samples, check_sample, lambda request: 2, settings)},
)
