"""CLIP: a picture's and a caption's embeddings, trained to meet [Radford21]; what unCLIP is built on."""

import functools
import hashlib
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Array, Float, Int, UInt8

from flaxgen import parallel
from flaxgen.data import Data, unit_range
from flaxgen.data.tokenize import Tokenized, Tokenizer
from flaxgen.family.captions import TOKENIZER, WORDS, Vocabulary, make_tokenizer, prepare_tokenizer, unseen_words
from flaxgen.family.companions import Cached, Encoder, open_cache
from flaxgen.family.drawing import batch_for
from flaxgen.family.extractor import Extractor, Preprocess, fit_square, rgb
from flaxgen.family.family import Family
from flaxgen.family.matching import open_matching
from flaxgen.family.trained import Files, Trained
from flaxgen.nets.clip import CLIP, TextEncoding, TextTower, contrastive_loss, false_caption_loss
from flaxgen.train import optim, state
from flaxgen.train.config import require
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.train.run import Run
from flaxgen.types import Held, Loss, Params, PRNGKey, Source
from flaxgen.weights import store

export.register_namedtuple_serialization(TextEncoding, serialized_name="flaxgen.TextEncoding")  # what programs give
MISSING = "this CLIP has no tokenizer.json beside its weights: it can embed pictures only"
TEXT = ("text_embedding", "text_hidden", "text_mask", "text_ids")
FIELDS = ("image_embedding", *TEXT)
"""What other models read of an example: float32 [D], float32 [D], float16 [L W] (float32 outside a cache), bool [L] and
int32 [L]."""


@dataclass(frozen=True, kw_only=True)
class Config(Run):
    """A CLIP run; a batch is what every caption is told apart in, so larger is better. `normalise` brings embeddings
    that other stages are given to length sqrt(D), that of a D-dimensional Gaussian; Karlo takes them as they come.
    Pictures are also told from `false_captions` captions each that are nearly true, of a source that has them (the
    scenes have six), in a term of weight `false_weight`. Pictures of another size than the tower's are brought to it as
    `preprocess` says.

    An imported net may lack a tower: it reads captions or pictures alone, and cannot be trained."""

    data: Data
    net: CLIP
    vocabulary: Vocabulary = Vocabulary()
    optimizer: Optimizer = Optimizer(name="adamw", learning_rate=5e-4, beta2=0.98, epsilon=1e-6, weight_decay=0.2)
    ema: Ema = Ema(decay=0.999)
    normalise: bool = True
    false_captions: int = 0
    false_weight: float = 1.0
    preprocess: Preprocess = Preprocess()
    encode_batch: int = 256

    def __post_init__(self):
        super().__post_init__()
        require(not self.data.flip, "data.flip=True: captions may say left and right, set it false")
        require(self.false_captions >= 0, f"false_captions={self.false_captions}: expected 0 (none) or more")
        require(self.false_weight >= 0, f"false_weight={self.false_weight}: expected 0 or more")
        require(self.encode_batch >= 1, f"encode_batch={self.encode_batch}: expected 1 or more")


def image_shape(config: Config) -> tuple[int, int, int]:
    """[H W C] of what the image tower sees.

    Raises:
        ValueError: if there is none.
    """
    if config.net.vision is None:
        raise ValueError("this CLIP has no vision tower: it reads captions, and no pictures")
    return (config.net.vision.image_size, config.net.vision.image_size, 3)


def text_tower(config: Config) -> TextTower:
    """What reads captions.

    Raises:
        ValueError: if there is none.
    """
    if config.net.text is None:
        raise ValueError("this CLIP has no text tower: it reads pictures, and no captions")
    return config.net.text


def batch_spec(config: Config) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of a batch as the loader gives it, of what the towers read that are there."""
    net, batch, fields = config.net, config.batch_size, {}
    if net.vision is not None:
        fields["image"] = jax.ShapeDtypeStruct((batch, *image_shape(config)), jnp.uint8)
    if net.text is not None:
        shapes: dict[str, tuple[int, ...]] = {"": (batch, net.text.context)}
        if config.false_captions:
            shapes["false_"] = (batch, config.false_captions, net.text.context)
        kinds = {"ids": jnp.int32, "mask": jnp.bool_}
        fields |= {a + b: jax.ShapeDtypeStruct(shapes[a], kinds[b]) for a in shapes for b in kinds}
    return fields


def init_params(config: Config, key: PRNGKey) -> Params:
    """Fresh parameters."""
    if config.net.text is None:
        return config.net.init(key, jnp.zeros((1, *image_shape(config))), method="encode_image")["params"]
    tokens = jnp.ones((1, config.net.text.context), jnp.int32)
    if config.net.vision is None:
        return config.net.init(key, tokens, tokens > 0, method="encode_text")["params"]
    return config.net.init(key, jnp.zeros((1, *image_shape(config))), tokens, tokens > 0)["params"]


def make_loss(config: Config, axis_name: str | None) -> Loss:
    """The contrastive loss over the global batch, and that of the false captions."""

    def loss(params, batch, keys):
        captions, size = (batch["ids"], batch["mask"]), len(batch["ids"])
        if config.false_captions:
            false = (batch[name].reshape(-1, captions[0].shape[1]) for name in ("false_ids", "false_mask"))
            captions = tuple(jnp.concatenate(parts) for parts in zip(captions, false, strict=True))
        outputs = config.net.apply({"params": params}, unit_range(batch["image"]), *captions)
        image, text, scale = cast(tuple, outputs)
        loss, metrics = contrastive_loss(image, text[:size], scale, axis_name)
        if not config.false_captions:
            return loss, metrics
        false_loss, more = false_caption_loss(image, text[:size], text[size:].reshape(size, -1, text.shape[1]), scale)
        total = loss + config.false_weight * false_loss
        return total, {**metrics, **more, "loss": total}

    return loss


def make_training(config: Config, files: Files):
    """`init(key)` and `make_step(axis_name)` of a run, whose loss is that of the whole batch."""
    tx, ema_decay = optim.make_optimizer(config.optimizer, config.steps), optim.make_ema_decay(config.ema)

    def make_step(axis_name: str | None):
        loss = make_loss(config, axis_name)
        bounded = functools.partial(bound_logit_scale, config)
        return state.make_train_step(loss, tx, ema_decay=ema_decay, axis_name=axis_name, after_update=bounded)

    return state.make_init(functools.partial(init_params, config), tx), make_step


def bound_logit_scale(config: Config, params: Params, held: Held = Held()) -> Params:  # noqa: B008
    """The parameters with a logit scale of at most `max_logit_scale` [Radford21, sec. 2.5]: clamped here and not in the
    loss, it can come back."""
    return {**params, "logit_scale": jnp.minimum(params["logit_scale"], math.log(config.net.max_logit_scale))}


def prepare(config: Config, found: Files) -> Files:
    """The tokenizer: the one found, the one that the config names, or one trained on the captions at hand, whose words
    are kept beside it.

    Raises:
        ValueError: if it cannot be read, the data has no captions, or it has more tokens than the net.
    """
    tower = text_tower(config)
    return prepare_tokenizer(
        config.vocabulary, config.data, tower.context, (tower.vocab_size, "net.text.vocab_size"), found
    )


def open_tokenized(family: Family, config: Config, files: Files) -> Source:
    """The pictures of the data with their captions as tokens.

    Raises:
        ValueError: if the data cannot be read, have no captions, or do not fit the net.
    """
    source = open_matching(config.data, {"image": image_shape(config), "text": ()}, 0)
    return Tokenized(source, make_tokenizer(files, MISSING), config.false_captions)


@functools.lru_cache(maxsize=8)
def compiled_encoder(net: Hashable, method: str, plan: parallel.Plan):
    """`encode_image` or `encode_text` of the net, split over the devices."""

    def encode(params, inputs):
        return cast(CLIP, net).apply({"params": params}, *inputs, method=method)

    return plan.compile_map(encode, key=(net, method))


class Model(Trained):
    """A trained CLIP."""

    config: Config

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """From captions to tokens."""
        return make_tokenizer(self.files, MISSING)

    @functools.cached_property
    def fingerprint(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What tells this CLIP from others: a hash of its weights in half precision, in which it may be shipped."""
        digest = hashlib.sha256()
        with np.errstate(over="ignore"):
            for name, value in sorted(store.flatten(self.weights).items()):
                digest.update(name.encode() + np.asarray(value, np.float16).tobytes())
        return digest.hexdigest()[:16]

    def encode_image(self, images: UInt8[np.ndarray, "N H W 3"]) -> Float[np.ndarray, "N D"]:
        """The embeddings of pictures, brought to the tower's size as `config.preprocess` says."""
        pixels = fit_square(unit_range(jnp.asarray(images)), self.image_shape[0], self.config.preprocess)
        return self._scaled(self._encode("encode_image", (pixels,)))

    def encode_text(self, captions: Sequence[str]) -> TextEncoding:
        """The embeddings [N D] of captions and their hidden states [N L W]."""
        tokens = self.tokenizer(captions)
        encoded: TextEncoding = self._encode("encode_text", (tokens.ids, tokens.mask))
        return encoded._replace(embedding=self._scaled(np.asarray(encoded.embedding)))

    def _scaled(self, embedding: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
        return _unit(embedding) * embedding.shape[-1] ** 0.5 if self.config.normalise else embedding

    def _encode(self, method: str, inputs: tuple) -> Any:
        encode, count = compiled_encoder(cast(Hashable, self.config.net), method, self.plan), len(inputs[0])
        size = batch_for(count, self.config.encode_batch, self.plan.devices)
        padded = [np.concatenate([x, np.repeat(np.asarray(x[-1:]), -count % size, 0)]) for x in map(np.asarray, inputs)]
        rows = [slice(start, start + size) for start in range(0, len(padded[0]), size)]
        weights = self.weights
        parts = [encode(weights, tuple(x[row] for x in padded)) for row in rows]
        return jax.tree.map(lambda *leaves: np.concatenate([np.asarray(leaf) for leaf in leaves])[:count], *parts)

    def similarity(self, images: UInt8[np.ndarray, "N H W 3"], captions: Sequence[str]) -> Float[np.ndarray, "N M"]:
        """Cosines between pictures and captions."""
        image, text = self.encode_image(images), np.asarray(self.encode_text(captions).embedding)
        return _unit(image) @ _unit(text).T

    def cosines(
        self, images: UInt8[np.ndarray, "N H W 3"], embeddings: Float[np.ndarray, "#N D"]
    ) -> Float[np.ndarray, " N"]:
        """That of each picture and its embedding, or the one that is given."""
        return (_unit(self.encode_image(images)) * _unit(embeddings)).sum(-1)

    def classify(self, images: UInt8[np.ndarray, "N H W 3"], captions: Sequence[str]) -> Int[np.ndarray, " N"]:
        """Zero-shot: which of the captions, one a class, fits each picture best [Radford21, sec. 3.1]."""
        return self.similarity(images, captions).argmax(1)

    def retrieval(self, images: UInt8[np.ndarray, "N H W 3"], captions: Sequence[str], k: int = 1) -> float:
        """recall@k: the share of pictures whose own caption is among the k nearest; captions that stand several times
        count as one."""
        cosines = self.similarity(images, captions)
        own = np.diag(cosines)[:, None]
        names = np.unique(np.asarray(captions), return_inverse=True)[1]
        better = [len(np.unique(names[row > limit])) for row, limit in zip(cosines, own, strict=True)]
        return float(np.mean(np.asarray(better) < k))

    def unseen_words_in(self, captions: Iterable[str]) -> tuple[str, ...]:
        """The words of captions that this CLIP has never seen in training, where that is known."""
        return unseen_words(self.files, captions)

    # What other families are given of pictures and captions

    @property
    def extractor(self) -> Extractor:
        """The image embedding, as the net gives it; pictures of another size are fitted as `encode_image` does."""
        net, size, how = self.config.net, self.image_shape[0], self.config.preprocess

        def apply(params, inputs):
            pixels = fit_square(unit_range(rgb(inputs["image"])), size, how)
            outputs = {"features": cast(Array, net.apply({"params": params}, pixels, method="encode_image"))}
            if "ids" in inputs:
                encoded = cast(Any, net.apply({"params": params}, inputs["ids"], inputs["mask"], method="encode_text"))
                outputs["text"] = encoded.embedding
            return outputs

        def tokenize(captions):
            tokens = self.tokenizer(captions)
            return {"ids": np.asarray(tokens.ids), "mask": np.asarray(tokens.mask)}

        return Extractor(f"clip:{self.fingerprint}", self.weights, apply, tokenize=tokenize)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """[H W C] of what the image tower sees."""
        return image_shape(self.config)

    def text_fields(self, captions: Sequence[str]) -> dict[str, np.ndarray]:
        """What other models are given of captions, [N ...]: the fields TEXT."""
        captions = list(captions)
        tokens, encoded = self.tokenizer(captions), self.encode_text(captions)
        return {
            "text_embedding": np.asarray(encoded.embedding, np.float32),
            "text_hidden": np.asarray(encoded.hidden, np.float32),
            "text_mask": tokens.mask,
            "text_ids": tokens.ids,
        }

    def empty_text(self) -> dict[str, np.ndarray]:
        """The text fields of the empty caption, each without a batch axis."""
        return {name: value[0] for name, value in self.text_fields([""]).items()}

    @property
    def encoder(self) -> Encoder:
        """This CLIP as a companion: what priors and decoders are trained on."""
        size, how = self.image_shape[0], self.config.preprocess

        def see(data: Data) -> Data:
            require(not how.squash, "preprocess.squash=True: data are cropped and not squashed, set it false")
            return replace(data, image_size=size, channels=3, resize=how.short_side, random_crop=False, flip=False)

        def encode(examples: Sequence[Mapping[str, Any]]) -> Mapping[str, np.ndarray]:
            image = self.encode_image(np.stack([example["image"] for example in examples]))
            text = self.text_fields([example["text"] for example in examples])
            half = {"text_hidden": text["text_hidden"].astype(np.float16)}
            return {"image_embedding": image.astype(np.float32), **text, **half}

        needs = {"text": "has no captions: set data.caption_field"}
        return Encoder("CLIP", self.fingerprint, FIELDS, encode, see, self.empty_text, needs)

    def cached(self, data: Data, cache: str) -> "Embeddings":
        """The embeddings of all examples of `data`, in a folder below `cache` ("": below this CLIP's own directory).

        Raises:
            ValueError: if the data cannot be read, or have no captions.
        """
        return Embeddings(*open_cache(self.encoder, data, Path(cache or Path(self.name) / "embeddings")))


def _unit(x: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


class Embeddings(Cached):
    """Cached embeddings, as a source of FIELDS."""

    def check_widths(self, net: Any, context: int) -> None:
        """Raises ValueError unless a stage's net, for captions of `context` tokens, fits these embeddings. A net with a
        text tower of its own reads tokens, and its hidden states may be of any width."""
        dim, (length, width) = self.first("image_embedding", 1).shape[1], self.empty["text_hidden"].shape
        own = getattr(net, "text", None) is not None
        for field, ours, theirs in (
            ("net.embedding_dim", net.embedding_dim, dim),
            ("net.text_dim", net.text_dim, net.text_dim if own else width),
            ("context", context, length),
        ):
            require(ours == theirs, f"{field}={ours} does not fit this CLIP, expected {theirs}")


FAMILY = Family(
    name="clip",
    config=Config,
    init_params=init_params,
    batch_spec=batch_spec,
    make_training=make_training,
    open_source=open_tokenized,
    prepare=prepare,
    files=(TOKENIZER, WORDS),
    model=Model,
    extract=lambda model: model.extractor,
    is_trainable=lambda config: config.net.vision is not None and config.net.text is not None,
    instead="embeds pictures and captions and draws nothing: draw with the unCLIP that `flaxgen compose` makes of it "
    "and the other stages",
)
