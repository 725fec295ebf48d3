"""What a DALL-E 1 can be asked, of which parts it is made, and the declaration of its transformer [Ramesh21]."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np

from flaxgen.data import Data, to_pixels
from flaxgen.family.captions import TOKENIZER, WORDS
from flaxgen.family.companions import check_companion, companion_file, load_companion
from flaxgen.family.composite import Assembled, Composite, Part, Parts
from flaxgen.family.family import Family
from flaxgen.family.matching import open_matching
from flaxgen.family.pictures import Pictures
from flaxgen.family.request import Clash, Request, option, picture_option
from flaxgen.family.requests import Draw
from flaxgen.family.trained import Handler, Progress
from flaxgen.nets.dalle import Dalle
from flaxgen.train.config import require
from flaxgen.types import PRNGKey
from flaxgen.zoo.autoencoder import FAMILY as AUTOENCODER
from flaxgen.zoo.clip import FAMILY as CLIP
from flaxgen.zoo.dalle.config import (
    NAME,
    Config,
    Drawing,
    batch_spec,
    check_fits,
    load_autoencoder,
    open_source,
    prepare,
)
from flaxgen.zoo.dalle.model import Model, check_drawing, init_params, make_loss

OWN = "the model's own"
PREVIEWED = 8


@dataclass(frozen=True, kw_only=True)
class DrawDalle(Draw):
    """Draw what captions say."""

    examples: ClassVar[tuple[str, ...]] = (
        'flaxgen draw "a red circle above a blue square" --model models/dalle --num 4 --candidates 8 --out out.png',
        'flaxgen draw "a red circle" --model models/dalle --complete image.png --rows 4 --out completed.png',
    )

    guidance: float | None = option(None, "guidance by the empty caption; 1 is none", least=0, default_text=OWN)
    temperature: float | None = option(None, "of codes; 0 takes the likeliest", least=0, default_text=OWN)
    top_k: int | None = option(None, "choose among so many codes; 0 is all", least=0, default_text=OWN)
    top_p: float | None = option(
        None, "choose among the likeliest codes of this probability together", above=0, most=1, default_text=OWN
    )
    candidates: int = option(
        1, "draw N of each picture and keep the one that CLIP finds nearest to the caption", least=1,
        flag="candidates N",
    )  # fmt: skip
    complete: Any = picture_option("a picture whose upper rows are kept")
    rows: int | None = option(None, "how many rows of codes are kept", least=1, default_text="half")

    def __post_init__(self):
        super().__post_init__()
        if self.rows is not None and self.complete is None:
            raise Clash("{rows} are of a picture to complete: give {complete} too", rows=self.rows, complete=None)


class Drawn(NamedTuple):
    """The parts that draw: `clip` may be missing where there is one candidate."""

    transformer: Model
    autoencoder: Any
    clip: Any = None


def _drawing(config: Config, request: DrawDalle) -> Drawing:
    names = ("guidance", "temperature", "top_k", "top_p")
    return replace(config.drawing, **{name: v for name in names if (v := getattr(request, name)) is not None})


def settings(config: Config, request: DrawDalle) -> dict[str, Any]:
    """The settings used."""
    return {name: value for name, value in vars(_drawing(config, request)).items() if name != "batch"}


def check_request(config: Config, request: DrawDalle, has_clip: bool) -> None:
    """Raises ValueError unless such a model can do that."""
    check_drawing(config, _drawing(config, request))
    require(
        has_clip or request.candidates == 1,
        f"candidates={request.candidates} are told apart by a CLIP, and there is none: compose a model with a "
        "part clip, or set clip=DIR when training",
    )
    if request.rows is not None:
        height = config.net.rows
        require(request.rows < height, f"rows={request.rows}: expected 1 to {height - 1} of the {height} rows")


def draw(parts: Drawn, request: DrawDalle, progress: Progress) -> Pictures:
    """`num` pictures of each caption, those of the first caption first; of candidates those that CLIP finds nearest
    [Ramesh21, sec. 2.6]."""
    many = request.num * request.candidates
    captions = [caption for caption in request.captions for _ in range(many)]
    known = None
    if request.complete is not None:
        pixels = request.complete.with_channels(parts.autoencoder.config.net.in_channels)
        rows = request.rows or parts.transformer.config.net.rows // 2
        known = parts.autoencoder.encode_codes(parts.autoencoder.fit([pixels]))[0, :rows]
    progress("drawing codes")
    chosen = _drawing(parts.transformer.config, request)
    codes = parts.transformer.draw_codes(captions, jax.random.key(request.seed), drawing=chosen, known=known)
    progress("decoding")
    images = to_pixels(parts.autoencoder.decode_codes(codes))
    if parts.clip is None:
        return Pictures(images, "rows", request.captions)
    progress("choosing")
    text = np.repeat(parts.clip.text_fields(request.captions)["text_embedding"], many, 0)
    image = parts.clip.encode_image(images)
    cosines = (image * text).sum(-1) / np.linalg.norm(image, axis=-1) / np.linalg.norm(text, axis=-1)
    groups = cosines.reshape(-1, request.candidates)
    best = np.arange(0, len(images), request.candidates) + groups.argmax(1)
    scores = tuple(round(float(cosine), 4) for cosine in cosines[best])
    return Pictures(images[best], "rows", request.captions, scores=scores)


def _of_run(model: Model) -> Drawn:
    """The parts of a transformer's own run or model directory, from where its config says."""
    config = model.config
    autoencoder = load_autoencoder(config)
    check_companion(model.files, NAME, autoencoder.fingerprint)
    return Drawn(model, autoencoder, load_companion(CLIP, config.clip) if config.clip else None)


def preview(model: Model, key: PRNGKey) -> np.ndarray:
    """Pictures of the first captions of the data."""
    source = open_matching(model.config.data, {"text": ()}, 0)
    captions = tuple(source[i]["text"] for i in range(min(PREVIEWED, len(source))))
    return draw(_of_run(model)._replace(clip=None), DrawDalle(captions=captions, num=2), lambda stage: None).sheet()


FAMILY = Family(
    name="dalle",
    config=Config,
    init_params=init_params,
    batch_spec=batch_spec,
    make_loss=make_loss,
    check=lambda config: check_drawing(config, config.drawing),
    open_source=open_source,
    prepare=prepare,
    files=(TOKENIZER, WORDS, companion_file(NAME)),
    free=frozenset({"drawing", "autoencoder", "cache", "clip"}),
    preview=preview,
    model=Model,
    type_names={"DalleNet": Dalle},
    requests={
        DrawDalle: Handler(
            lambda model, request, progress: draw(_of_run(model), request, progress),
            lambda config, request: check_request(config, request, bool(config.clip)),
            lambda request: 3,
            lambda model, request: settings(model.config, request),
        )
    },
)


class Whole(Assembled):
    """A DALL-E 1 with all its parts."""

    @property
    def transformer(self) -> Model:
        """What draws codes; ValueError where it is missing."""
        for name in ("transformer", "autoencoder"):
            require(name in self.parts, f"this model lacks the part {name!r}: add it with `flaxgen compose`")
        found: Any = self.parts["transformer"]
        return found

    @property
    def data(self) -> Data:
        """What its transformer was trained on."""
        return self.transformer.config.data

    def unseen_words(self, request: Request) -> tuple[str, ...]:
        """The words of a request that its transformer has never seen in training."""
        return self.transformer.unseen_words(request)


def _draw_whole(model: Whole, request: DrawDalle, progress: Progress) -> Pictures:
    return draw(Drawn(model.transformer, model.parts["autoencoder"], model.parts.get("clip")), request, progress)


def _check_parts(parts: Parts) -> None:
    """Raises ValueError unless the transformer was trained on the codes of the autoencoder that is there."""
    if "transformer" in parts and "autoencoder" in parts:
        check_companion(parts["transformer"].files, NAME, parts["autoencoder"].fingerprint)
        check_fits(parts["transformer"].config, parts["autoencoder"])


WHOLE = Composite(
    name="dalle1",
    parts={"autoencoder": Part(AUTOENCODER), "transformer": Part(FAMILY), "clip": Part(CLIP)},
    model=Whole,
    check=_check_parts,
    requests={
        DrawDalle: Handler(
            _draw_whole,
            lambda model, request: check_request(model.transformer.config, request, "clip" in model.parts),
            lambda request: 3,
            lambda model, request: settings(model.transformer.config, request),
        )
    },
)
