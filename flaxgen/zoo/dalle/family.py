"""What a DALL-E 1 or dalle-mini can be asked, of which parts it is made, and the declaration of its transformer
[Ramesh21; Dayma21]."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np

from flaxgen.data import Data, Transform, to_pixels
from flaxgen.data.bpe_dropout import make_bpe_dropout
from flaxgen.data.tokenize import Tokenized
from flaxgen.family import coded
from flaxgen.family.captions import TOKENIZER, WORDS, make_tokenizer, prepare_tokenizer
from flaxgen.family.companions import Joined, load_companion
from flaxgen.family.composite import Assembled, Composite, Part, Parts
from flaxgen.family.drawing import nearest
from flaxgen.family.family import Family
from flaxgen.family.matching import open_matching
from flaxgen.family.pictures import Pictures
from flaxgen.family.request import Request, option
from flaxgen.family.requests import Draw
from flaxgen.family.trained import Files, Handler, Progress
from flaxgen.nets.dalle import Dalle
from flaxgen.train.config import require
from flaxgen.types import PRNGKey, Source
from flaxgen.zoo.autoencoder import FAMILY as AUTOENCODER
from flaxgen.zoo.clip import FAMILY as CLIP
from flaxgen.zoo.dalle.config import MISSING, Config, batch_spec
from flaxgen.zoo.dalle.kinds import kind_of, sides_of
from flaxgen.zoo.dalle.model import Model, check_drawing, init_params, make_loss

PREVIEWED = 8


@dataclass(frozen=True, kw_only=True)
class DrawDalle(coded.FromCodes, Draw):
    """Draw what captions say."""

    examples: ClassVar[tuple[str, ...]] = (
        'flaxgen draw "a red circle above a blue square" --model models/dalle --num 4 --candidates 8 --out out.png',
        'flaxgen draw "a red circle" --model models/dalle --complete image.png --rows 4 --out completed.png',
    )

    candidates: int = option(
        1, "draw N of each picture and keep the one that CLIP finds nearest to the caption", least=1,
        flag="candidates N",
    )  # fmt: skip


class Drawn(NamedTuple):
    """The parts that draw: `clip` may be missing where there is one candidate."""

    transformer: Model
    autoencoder: Any
    clip: Any = None


def check_request(config: Config, request: DrawDalle, has_clip: bool) -> None:
    """Raises ValueError unless such a model can do that."""
    check_drawing(config, coded.asked(config.drawing, request))
    require(
        has_clip or request.candidates == 1,
        f"candidates={request.candidates} are told apart by a CLIP, and there is none: compose a model with a "
        "part clip, or set clip=DIR when training",
    )
    coded.check_rows(request.rows, sides_of(config.net)[0])


def _check_alone(config: Config, request: DrawDalle) -> None:
    """Raises ValueError unless a transformer by itself, with what its config names, can do that."""
    require(
        bool(config.autoencoder),
        "this is a transformer alone: draw with the model that `flaxgen compose DIR transformer=... autoencoder=...` "
        "makes of it and the autoencoder whose codes it draws",
    )
    check_request(config, request, bool(config.clip))


def draw(parts: Drawn, request: DrawDalle, progress: Progress) -> Pictures:
    """`num` pictures of each caption, those of the first caption first; of candidates those that CLIP finds nearest
    [Ramesh21, sec. 2.6]."""
    many = request.num * request.candidates
    captions = [caption for caption in request.captions for _ in range(many)]
    known = None
    if request.complete is not None:
        pixels = request.complete.with_channels(parts.autoencoder.config.net.in_channels)
        rows = request.rows or sides_of(parts.transformer.config.net)[0] // 2
        known = parts.autoencoder.encode_codes(parts.autoencoder.fit([pixels]))[0, :rows]
    progress("drawing codes")
    chosen = coded.asked(parts.transformer.config.drawing, request)
    num_codes = parts.autoencoder.config.bottleneck.num_codes
    codes = parts.transformer.draw_codes(
        captions, jax.random.key(request.seed), drawing=chosen, known=known, num_codes=num_codes
    )
    progress("decoding")
    images = to_pixels(parts.autoencoder.decode_codes(codes))
    if parts.clip is None:
        return Pictures(images, "rows", request.captions)
    progress("choosing")
    text = np.repeat(parts.clip.text_fields(request.captions)["text_embedding"], many, 0)
    cosines = parts.clip.cosines(images, text)
    best = nearest(cosines, request.candidates)
    scores = tuple(round(float(cosine), 4) for cosine in cosines[best])
    return Pictures(images[best], "rows", request.captions, scores=scores)


def _autoencoder(config: Config) -> Any:
    return coded.load_autoencoder(AUTOENCODER, config, sides_of(config.net), kind_of(config.net).spare)


def _of_run(model: Model) -> Drawn:
    """The parts of a transformer's own run or model directory, from where its config says."""
    config, autoencoder = model.config, _autoencoder(model.config)
    coded.name_autoencoder(model.files, autoencoder)
    return Drawn(model, autoencoder, load_companion(CLIP, config.clip) if config.clip else None)


def prepare(config: Config, found: Files) -> Files:
    """The name of the autoencoder, and the tokenizer.

    Raises:
        ValueError: if one of them is not there, does not fit the net, or is not the one found.
    """
    named = coded.name_autoencoder(found, _autoencoder(config))
    known = (config.net.text_tokens, "net.text_tokens")
    return {**prepare_tokenizer(config.vocabulary, config.data, config.net.context, known, found), **named}


def open_source(family: Family, config: Config, files: Files) -> Source:
    """The codes of the pictures with their captions as tokens.

    Raises:
        ValueError: if the data cannot be read, have no captions, or do not fit the net.
    """
    captioned = Tokenized(open_matching(config.data, {"text": ()}, 0), make_tokenizer(files, MISSING))
    text = (captioned, lambda example: {name: example[name] for name in ("text", "ids", "mask")})
    cached = coded.open_codes(_autoencoder(config), config.data, config.cache)
    return Joined((cached, lambda example: {"codes": example["codes"]}), text)


def augment(config: Config, files: Files) -> Transform | None:
    """BPE dropout [Provilkov20], where the config asks for it; what else changes pictures, `check_plain` refuses.

    Raises:
        ValueError: if the tokenizer is of another kind than BPE dropout is for.
    """
    return make_bpe_dropout(make_tokenizer(files, MISSING), config.bpe_dropout) if config.bpe_dropout else None


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
    augment=augment,
    prepare=prepare,
    files=(TOKENIZER, WORDS, coded.NAMED),
    companions={coded.AUTOENCODER: AUTOENCODER, "clip": CLIP},
    free=frozenset({"drawing", "autoencoder", "cache", "clip"}),
    preview=preview,
    model=Model,
    type_names={"DalleNet": Dalle},
    requests={
        DrawDalle: Handler(
            lambda model, request, progress: draw(_of_run(model), request, progress),
            _check_alone,
            lambda request: 3,
            lambda model, request: coded.asked(model.config.drawing, request).used(),
        )
    },
)


class Whole(Assembled):
    """A DALL-E 1, or a dalle-mini, with all its parts."""

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
        transformer: Any = parts["transformer"]
        coded.name_autoencoder(transformer.files, parts["autoencoder"])
        net = transformer.config.net
        coded.check_fits(net, sides_of(net), parts["autoencoder"], kind_of(net).spare)


def _note(parts: Parts) -> str:
    """What could not be compared: an imported transformer does not know whose codes it was trained on."""
    if "transformer" not in parts or "autoencoder" not in parts or coded.NAMED in parts["transformer"].files:
        return ""
    return (
        "the transformer does not say which autoencoder's codes it was trained on: this one's map is the same and its "
        "codes are not too many, and nothing more was compared"
    )


WHOLE = Composite(
    name="dalle1",
    parts={"autoencoder": Part(AUTOENCODER), "transformer": Part(FAMILY), "clip": Part(CLIP)},
    model=Whole,
    check=_check_parts,
    note=_note,
    requests={
        DrawDalle: Handler(
            _draw_whole,
            lambda model, request: check_request(model.transformer.config, request, "clip" in model.parts),
            lambda request: 3,
            lambda model, request: coded.asked(model.transformer.config.drawing, request).used(),
        )
    },
)
