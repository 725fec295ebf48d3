"""CLIP: a picture's and a caption's embeddings, trained to meet [Radford21]; what unCLIP is built on."""

import functools
import hashlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Float, Int, UInt8

from flaxgen import parallel
from flaxgen.data import Data, DataError, open_source
from flaxgen.data.tokenize import Tokenizer, read_tokenizer, train_bpe
from flaxgen.diffusion.losses import unit_range
from flaxgen.nets.clip import CLIP, TextEncoding, TextTower, VisionTower, contrastive_loss, false_caption_loss
from flaxgen.train import optim, state
from flaxgen.train.config import require
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.train.run import Run
from flaxgen.types import Experiment, Loss, Params, PRNGKey, Source
from flaxgen.weights import store
from flaxgen.zoo import files
from flaxgen.zoo.diffusion.model import batch_for
from flaxgen.zoo.files import Files
from flaxgen.zoo.matching import open_matching

export.register_namedtuple_serialization(TextEncoding, serialized_name="flaxgen.TextEncoding")  # what programs give
TOKENIZER = "tokenizer.json"
FILE_NAMES = (TOKENIZER,)


@dataclass(frozen=True)
class Vocabulary:
    """How captions become tokens: by a BPE of at most `size` tokens trained on the first `captions` captions, those of
    the run or of the `split` that is named, or, with a `path`, by the tokenizer.json there (or in that folder)."""

    size: int = 512
    captions: int = 20_000
    path: str = ""
    split: str = ""

    def __post_init__(self):
        require(self.size > 259, f"size={self.size}: expected more than 259, the bytes and three marks")
        require(self.captions >= 1, f"captions={self.captions}: expected 1 or more")


@dataclass(frozen=True)
class Config(Run):
    """A CLIP run; a batch is what every caption is told apart in, so larger is better. `normalise` brings embeddings
    that other stages are given to length sqrt(D), that of a D-dimensional Gaussian; Karlo takes them as they come.
    Pictures are also told from `false_captions` captions each that are nearly true, of a source that has them (the
    scenes have six), in a term of weight `false_weight`.

    An imported net may lack its vision tower: it reads captions, and cannot be trained."""

    data: Data
    net: CLIP
    vocabulary: Vocabulary = Vocabulary()
    optimizer: Optimizer = Optimizer(name="adamw", learning_rate=5e-4, beta2=0.98, epsilon=1e-6, weight_decay=0.2)
    ema: Ema = Ema(decay=0.999)
    normalise: bool = True
    false_captions: int = 0
    false_weight: float = 1.0
    encode_batch: int = 256

    def __post_init__(self):
        super().__post_init__()
        require(not self.data.flip, "data.flip=True: captions may say left and right, set it false")
        require(self.false_captions >= 0, f"false_captions={self.false_captions}: expected 0 (none) or more")
        require(self.false_weight >= 0, f"false_weight={self.false_weight}: expected 0 or more")
        require(self.encode_batch >= 1, f"encode_batch={self.encode_batch}: expected 1 or more")


TYPES = {"Clip": Config} | {
    kind.__name__: kind for kind in (Data, CLIP, VisionTower, TextTower, Vocabulary, Optimizer, Ema)
}
"""All that may appear in such a config.json."""


class Tokenized:
    """A source whose captions are also there as `ids` int32 [L] and `mask` bool [L]; with K `false_captions` also so
    many false ones, as `false_ids` and `false_mask` [K L]."""

    def __init__(self, source: Source, tokenizer: Tokenizer, false_captions: int = 0):
        self._source, self._tokenizer, self._false_captions = source, tokenizer, false_captions
        self.broken = getattr(source, "broken", {})

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        example = self._source[index]
        if "text" not in example:
            raise DataError(f"element {index} has no caption: set data.caption_field, or leave it out of the data")
        tokens = self._tokenizer([example["text"]])
        tokenized = {**example, "ids": tokens.ids[0], "mask": tokens.mask[0]}
        if not self._false_captions:
            return tokenized
        wanted, known = self._false_captions, example.get("false_texts", ())
        if len(known) < wanted:
            raise DataError(
                f"false_captions={wanted} and element {index} has {len(known)}: set it to {len(known)} or less"
            )
        tokens = self._tokenizer(known[:wanted])
        return {**tokenized, "false_ids": tokens.ids, "false_mask": tokens.mask}


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
    """Shapes and dtypes of a batch as the loader gives it."""
    batch, context = config.batch_size, text_tower(config).context
    kinds = {"ids": jnp.int32, "mask": jnp.bool_}
    captions = {name: jax.ShapeDtypeStruct((batch, context), kind) for name, kind in kinds.items()}
    if config.false_captions:
        shape = (batch, config.false_captions, context)
        captions |= {f"false_{name}": jax.ShapeDtypeStruct(shape, kind) for name, kind in kinds.items()}
    return {"image": jax.ShapeDtypeStruct((batch, *image_shape(config)), jnp.uint8)} | captions


def init_params(config: Config, key: PRNGKey) -> Params:
    """Fresh parameters."""
    tokens = jnp.ones((1, text_tower(config).context), jnp.int32)
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


def make_training(config: Config):
    """`init(key)` and `make_step(axis_name)` of the run."""
    tx, ema_decay = optim.make_optimizer(config.optimizer, config.steps), optim.make_ema_decay(config.ema)

    def make_step(axis_name: str | None):
        loss = make_loss(config, axis_name)
        return state.make_train_step(loss, tx, ema_decay=ema_decay, axis_name=axis_name)

    return state.make_init(functools.partial(init_params, config), tx), make_step


def prepare(config: Config, found: Files) -> Files:
    """The tokenizer: the one found, the one that the config names, or one trained on the captions at hand.

    Raises:
        ValueError: if it cannot be read, the data has no captions, or it has more tokens than the net.
    """
    if TOKENIZER in found:
        return found
    chosen, context = config.vocabulary, text_tower(config).context
    if chosen.path:
        tokenizer = read_tokenizer(Path(chosen.path), context)
    else:
        source = open_source(replace(config.data, split=chosen.split) if chosen.split else config.data)
        examples = (source[i] for i in range(min(len(source), chosen.captions)))
        tokenizer = train_bpe((_caption(example, config.data) for example in examples), chosen.size, context)
    known = text_tower(config).vocab_size
    require(
        tokenizer.vocab_size <= known,
        f"the tokenizer has {tokenizer.vocab_size} tokens and the net knows {known}: set net.text.vocab_size",
    )
    return {TOKENIZER: tokenizer.to_json().encode()}


def _caption(example: Mapping[str, Any], data: Data) -> str:
    require("text" in example, f"data.source={data.source} has no captions: set data.caption_field")
    return example["text"]


def make_tokenizer(config: Config, found: Files) -> Tokenizer:
    """The tokenizer among a model's files."""
    require(TOKENIZER in found, f"this CLIP has no {TOKENIZER} beside its weights: it can embed pictures only")
    return Tokenizer(found[TOKENIZER].decode())


def build(config: Config, found: Files) -> Experiment:
    """The run.

    Raises:
        ValueError: if the data cannot be read, has no captions, or does not fit the net.
    """
    init, make_step = make_training(config)
    jax.eval_shape(init, jax.random.key(0))
    source = open_matching(config.data, {"image": image_shape(config), "text": ()}, 0)
    tokenized = Tokenized(source, make_tokenizer(config, found), config.false_captions)
    return Experiment(init, make_step, tokenized, tuple(batch_spec(config)))


@functools.lru_cache(maxsize=8)
def compiled_encoder(net: Hashable, method: str, plan: parallel.Plan):
    """`encode_image` or `encode_text` of the net, split over the devices."""

    def encode(params, inputs):
        return cast(CLIP, net).apply({"params": params}, *inputs, method=method)

    return plan.compile_map(encode, key=(net, method))


@dataclass(frozen=True)
class Model:
    """A trained CLIP and what can be done with it."""

    config: Config
    params: Params
    step: int
    plan: parallel.Plan
    found: Files

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """From captions to tokens."""
        return make_tokenizer(self.config, self.found)

    @functools.cached_property
    def fingerprint(self) -> str:
        """What tells this CLIP from others: a hash of its weights in half precision, in which it may be shipped."""
        digest = hashlib.sha256()
        with np.errstate(over="ignore"):
            for name, value in sorted(store.flatten(self.params).items()):
                digest.update(name.encode() + np.asarray(value, np.float16).tobytes())
        return digest.hexdigest()[:16]

    def encode_image(self, images: UInt8[np.ndarray, "N H W 3"]) -> Float[np.ndarray, "N D"]:
        """The embeddings of pictures; other sizes than the tower's are resized by antialiased bicubic
        interpolation, as a square."""
        shape = (len(images), *image_shape(self.config))
        pixels = unit_range(jnp.asarray(images))
        if pixels.shape != shape:
            pixels = jnp.clip(jax.image.resize(pixels, shape, "bicubic"), -1, 1)
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
        parts = [encode(self.params, tuple(x[row] for x in padded)) for row in rows]
        return jax.tree.map(lambda *leaves: np.concatenate([np.asarray(leaf) for leaf in leaves])[:count], *parts)

    def similarity(self, images: UInt8[np.ndarray, "N H W 3"], captions: Sequence[str]) -> Float[np.ndarray, "N M"]:
        """Cosines between pictures and captions."""
        image, text = self.encode_image(images), np.asarray(self.encode_text(captions).embedding)
        return _unit(image) @ _unit(text).T

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


def _unit(x: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def load(path: str | Path, plan: parallel.Plan | None = None) -> Model:
    """The CLIP in a run or model directory.

    Raises:
        ValueError: if there is none.
    """
    directory = Path(path)
    config, step = files.read_config(directory, TYPES, Config)
    params, step = files.read_weights(directory, functools.partial(init_params, config), step)
    found = files.read_files(directory, FILE_NAMES)
    return Model(config, params, step, plan or parallel.make_plan("jit"), found)
