"""Textual inversion as runs: the vectors of one new word are learned from pictures, and nothing else [Gal22]."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from flaxgen.family.family import Family
from flaxgen.family.trained import Files
from flaxgen.nets.clip import CLIP
from flaxgen.nets.unet import UNet
from flaxgen.train.config import require
from flaxgen.types import Condition, Held, Loss, Params, PRNGKey, Source
from flaxgen.zoo.latent import drawing, family, model
from flaxgen.zoo.latent.adapt import knowing
from flaxgen.zoo.latent.config import SIZES, BesideConfig, condition_spec
from flaxgen.zoo.latent.config import batch_spec as net_batch_spec
from flaxgen.zoo.latent.model import text_encoders
from flaxgen.zoo.latent.prompts import Prompt, chunked
from flaxgen.zoo.latent.text import make_states, size_waves, usual_sizes

VECTORS = "vectors"
"""The only parameter: what is added to the vectors that the word begins as."""
THINGS = (
    "a photo of a {}",
    "a photo of one {}",
    "a good photo of a {}",
    "a close-up of a {}",
    "a picture of the {}",
    "a bright photo of the {}",
    "a dark photo of the {}",
    "a cropped photo of the {}",
)
"""What is said of pictures that show a thing."""


@dataclass(frozen=True)
class Word:
    """The word that captions will have, how many `vectors` it is, and the known word that they are in the `beginning`,
    again and again if that has fewer tokens. Pictures are learned with one of the `captions` by chance, in which {}
    stands for the word; for a style say such as "a painting in the style of {}"."""

    text: str = "<new>"
    vectors: int = 1
    beginning: str = "photo"
    captions: tuple[str, ...] = THINGS

    def __post_init__(self):
        require(bool(self.text) and not any(map(str.isspace, self.text)), f"word.text={self.text!r}: expected one word")
        require(self.vectors >= 1, f"word.vectors={self.vectors}: expected 1 or more")
        for caption in self.captions:
            require("{}" in caption, f"word.captions has {caption!r}: expected a {{}} where the word stands")
        require(bool(self.captions), "word.captions is empty: say at least one, such as 'a photo of a {}'")

    @property
    def said(self) -> tuple[str, ...]:
        """The captions with the word."""
        return tuple(caption.replace("{}", self.text) for caption in self.captions)


@dataclass(frozen=True, kw_only=True)
class WordConfig(BesideConfig):
    """A run whose parameters are the vectors of a word, for the net in the directory `base`, which has the same `net`,
    and its text encoders. Captions of `data` are not read."""

    word: Word = Word()

    def __post_init__(self):
        super().__post_init__()
        kind = type(self.net).__name__
        require(isinstance(self.net, UNet), f"net is a {kind}: expected a UNet, whose text encoders have words")
        require(self.net.token_dim > 0, "net.token_dim=0: expected a net that reads captions, which have words")
        require(self.prior_data is None, "prior_data is set: a word is learned without class pictures, leave it out")


def init_params(config: WordConfig, key: PRNGKey) -> Params:
    """Nothing added to what the word begins as; the vectors of two text encoders lie side by side."""
    return {VECTORS: jnp.zeros((config.word.vectors, config.net.token_dim))}


def batch_spec(config: WordConfig) -> dict[str, jax.ShapeDtypeStruct]:
    """Latents, and labels and sizes where the net reads some: what captions say is computed in the step."""
    return {name: spec for name, spec in net_batch_spec(config).items() if name in ("latent", "label", SIZES)}


def said_spec(config: WordConfig) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of what the net reads of one caption."""
    return {name: spec for name, spec in condition_spec(config).items() if name != "label"}


def widths_of(config: WordConfig, clips: Sequence[Any]) -> list[int]:
    """The width of each text encoder's vectors.

    Raises:
        ValueError: if they are not together what the net reads.
    """
    widths = [clip.config.net.text.width for clip in clips]
    wide = config.net.token_dim
    require(sum(widths) == wide, f"net.token_dim={wide}: the text encoders' vectors are "
            f"{' + '.join(map(str, widths))} wide")  # fmt: skip
    return widths


def beginnings(config: WordConfig, clips: Sequence[Any]) -> list[Float[np.ndarray, "K D"]]:
    """What the word begins as, for each text encoder.

    Raises:
        ValueError: if the encoders are not those of the net, or the beginning is longer than the word.
    """
    widths_of(config, clips)
    return [beginning_of(clip, config.word) for clip in clips]


def beginning_of(clip: Any, word: Word) -> Float[np.ndarray, "K D"]:
    """The vectors of the tokens that the word begins as.

    Raises:
        ValueError: if these are more than the word has vectors.
    """
    ids = list(clip.tokenizer.pieces(word.beginning))
    require(0 < len(ids) <= word.vectors, f"word.beginning={word.beginning!r} is {len(ids)} tokens and word.vectors="
            f"{word.vectors}: expected at most as many, and at least one")  # fmt: skip
    return np.asarray(clip.params["text"]["tokens"]["embedding"])[np.resize(ids, word.vectors)]


def init_held(config: WordConfig, key: PRNGKey, params: Params) -> Held:
    """Weights of the net and the text encoders, and what the word begins as."""
    net = family.base_params(config, key)
    clips = text_encoders(config) if config.clip else ()
    begun = np.concatenate(beginnings(config, clips), axis=1) if clips else np.zeros(params[VECTORS].shape, np.float32)
    return Held(frozen={"net": net, "clips": [dict(clip.params) for clip in clips], VECTORS: jnp.asarray(begun)})


def with_rows(net: CLIP, params: Params, rows: Float[Array, "K D"]) -> tuple[CLIP, dict[str, Any]]:
    """A text encoder that knows as many tokens more, of these vectors."""
    tower = net.text
    assert tower is not None
    table = jnp.concatenate([params["text"]["tokens"]["embedding"], rows])
    text = {**params["text"], "tokens": {"embedding": table}}
    return net.clone(text=tower.clone(vocab_size=len(table))), {**params, "text": text}


def tokens_of(clip: Any, word: Word) -> tuple[np.ndarray, np.ndarray]:
    """Ids and mask [C L] of all captions with the word, whose tokens stand behind all others.

    Raises:
        ValueError: naming a caption that is longer than the text encoder reads.
    """
    known = clip.config.net.text.vocab_size
    own = {word.text: range(known, known + word.vectors)}
    prompts: list[Prompt] = [chunked(clip.tokenizer, caption, True, own) for caption in word.said]
    for caption, prompt in zip(word.said, prompts, strict=True):
        require(len(prompt.ids) == 1, f"word.captions has {caption!r}: longer than the {clip.tokenizer.context} tokens "
                "that the text encoder reads")  # fmt: skip
    return np.concatenate([prompt.ids for prompt in prompts]), np.concatenate([prompt.mask for prompt in prompts])


def make_read(config: WordConfig):
    """`read(vectors, frozen, chosen)`: what the net reads of the captions with these numbers [B], the word being of
    these vectors [K D]. Without text encoders it is good for shapes only."""
    if not config.clip:
        return lambda vectors, frozen, chosen: jax.tree.map(
            lambda spec: jnp.zeros((len(chosen), *spec.shape), spec.dtype), said_spec(config)
        )
    clips = text_encoders(config)
    widths, sizes = widths_of(config, clips), usual_sizes(config, config.data.image_size, config.data.image_size)
    told = [jax.tree.map(jnp.asarray, tokens_of(clip, config.word)) for clip in clips]
    waves = jnp.asarray(size_waves(sizes) if config.sizes else np.zeros(0, np.float32))

    def read(vectors: Float[Array, "K D"], frozen: Any, chosen: Array) -> Condition:
        found, parts = [], jnp.split(vectors, np.cumsum(widths)[:-1], axis=1)
        for clip, params, rows, (ids, mask) in zip(clips, frozen["clips"], parts, told, strict=True):
            net, known = with_rows(clip.config.net, params, rows)
            found.append(make_states(net, config.text)(known, {"ids": ids[chosen], "mask": mask[chosen]}))
        fields = {"tokens": jnp.concatenate([states for states, _ in found], axis=-1)}
        if config.text.masked:
            fields["token_mask"] = told[0][1][chosen]
        if config.net.vector_dim:
            said = [embedding for _, embedding in found]
            pooled = jnp.concatenate(said, axis=-1) if config.text.pooled == "all" else said[-1]
            rows = jnp.broadcast_to(waves, (len(chosen), waves.size))
            fields["vector"] = jnp.concatenate([pooled, rows], axis=-1)
        return fields

    return read


def make_loss(config: WordConfig, files: Files) -> Loss:
    """The loss of the net, whose weights are the state's frozen ones, with captions that have the word."""
    of_net, read, count = model.make_loss(config, files), make_read(config), len(config.word.captions)

    def loss(params, batch, keys, held=Held()):  # noqa: B008
        own, choosing = jax.vmap(lambda key: tuple(jax.random.split(key)))(keys)
        chosen = jax.vmap(lambda key: jax.random.randint(key, (), 0, count))(choosing)
        frozen = held.frozen
        fields = read(frozen[VECTORS] + params[VECTORS], frozen, chosen)
        return of_net(frozen["net"], {**batch, **fields}, own)

    return loss


def open_source(own: Family, config: WordConfig, files: Files) -> Source:
    """Latents of the pictures, with their labels where the net knows some."""
    return family.open_source(own, cast(Any, config), files, captioned=False)


def vectors_of(run: Any) -> list[Float[np.ndarray, "K D"]]:
    """The word's vectors for each text encoder, of a run's model."""
    begun = beginnings(run.config, text_encoders(run.config))
    moved = np.split(np.asarray(run.params[VECTORS]), np.cumsum([rows.shape[1] for rows in begun])[:-1], axis=1)
    return [rows + more for rows, more in zip(begun, moved, strict=True)]


def taught(run: Any) -> drawing.Parts:
    """What draws with the word.

    Raises:
        ValueError: if the net is not there, or not the one that the word was learned for.
    """
    parts = family.parts_of_run(family.base_of(run))
    return knowing(parts, run.config.word.text, vectors_of(run), "this run")


def preview(run: Any, key: PRNGKey) -> np.ndarray:
    """Pictures of the first captions with the word."""
    captions = run.config.word.said[: family.PREVIEWED]
    return drawing.preview(taught(run), captions, key, 2 * len(captions)).sheet()


WORD = Family(
    name="latent_word",
    config=WordConfig,
    type_name="LatentWord",
    init_params=init_params,
    init_held=init_held,
    batch_spec=batch_spec,
    make_loss=make_loss,
    check=family.FAMILY.check,
    open_source=open_source,
    prepare=family.prepare_beside,
    files=family.BESIDE_FILES,
    companions=family.BESIDE_COMPANIONS,
    free=family.BESIDE_FREE,
    preview=preview,
    requests={kind: family.alone(answer, taught) for kind, answer in family.ANSWERS.items()},
)
