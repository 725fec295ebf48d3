"""What a net over latents reads of captions: states of one text encoder or two, an embedding, and sizes."""

import functools
import hashlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from flaxgen import parallel
from flaxgen.diffusion.losses import Inputs
from flaxgen.family.companions import Encoder
from flaxgen.family.drawing import batch_for, draw_many
from flaxgen.nets import layers
from flaxgen.nets.clip import CLIP
from flaxgen.nets.transformer import Block
from flaxgen.train.config import require
from flaxgen.types import Params
from flaxgen.zoo.latent.config import SIZES, WAVES, Config, Text

Fields = dict[str, np.ndarray]
BLOCKS = "intermediates"
"""What Flax calls the outputs of modules that are kept."""


GOOD, POOR = 6.0, 2.5
"""The aesthetic scores that a refiner is told of what it is to draw, and of what guidance leads away from."""


class States(NamedTuple):
    """What encoders say of captions: states of every token, where a caption has tokens, the embedding of the last
    encoder or of all, and states of a T5's places, which are of no width where there is no T5."""

    tokens: Float[np.ndarray, "N L W"]
    token_mask: Bool[np.ndarray, "N L"]
    embedding: Float[np.ndarray, "N D"]
    t5: Float[np.ndarray, "N M E"]


def make_states(net: CLIP, text: Text) -> Callable[[Params, Mapping[str, Array]], tuple[Array, Array]]:
    """(parameters, ids and mask of captions) -> the states [N L W] that `text` says, and the embeddings [N D]."""
    tower = net.text
    assert tower is not None
    require(text.skip < tower.depth, f"skip={text.skip}: the text encoder has {tower.depth} blocks")

    def states(params, inputs):
        outputs, kept = net.apply(
            {"params": params},
            inputs["ids"],
            inputs["mask"],
            method="encode_text",
            capture_intermediates=lambda module, _: isinstance(module, Block),
            mutable=[BLOCKS],
        )
        encoded = cast(Any, outputs)
        if text.skip == 0 and text.normed:
            return encoded.hidden, encoded.embedding
        block = kept[BLOCKS]["text"]["transformer"][f"block_{tower.depth - 1 - text.skip}"]
        hidden: Any = block["__call__"][0][0]
        if text.normed:
            norm = nn.LayerNorm(tower.norm_eps)
            hidden = cast(Array, norm.apply({"params": params["text"]["norm_out"]}, hidden))
        return hidden.astype(jnp.float32), encoded.embedding

    return states


@functools.lru_cache(maxsize=8)
def compiled_states(net: Hashable, text: Text, plan: parallel.Plan):
    """`make_states`, split over the devices."""
    return plan.compile_map(make_states(cast(CLIP, net), text), key=("states", net, text))


def read_tokens(clips: Sequence[Any], text: Text, tokens: Sequence[Any]) -> States:
    """The states of captions that are tokens already, those of each encoder's own tokenizer."""
    found = []
    for clip, own in zip(clips, tokens, strict=True):
        inputs = {"ids": own.ids, "mask": own.mask}
        program = compiled_states(clip.config.net, text, clip.plan)
        batch = batch_for(len(own.ids), clip.config.encode_batch, clip.plan.devices)
        found.append(draw_many(program, clip.params, jax.random.key(0), inputs, num=len(own.ids), batch=batch))
    states = np.concatenate([hidden for hidden, _ in found], axis=-1)
    pooled = pool(text, [embedding for _, embedding in found])
    return States(states, np.asarray(tokens[0].mask), pooled, read_t5(None, text, range(len(states))))


def pool(text: Text, embeddings: Sequence[np.ndarray]) -> Float[np.ndarray, "N D"]:
    """Of the embeddings by each encoder, what the net reads."""
    return np.concatenate(embeddings, axis=-1) if text.pooled == "all" else embeddings[-1]


def read_t5(t5: Any, text: Text, captions: Sequence[Any]) -> Float[np.ndarray, "N M E"]:
    """The states of a T5 of captions, of no width where there is none."""
    if t5 is None or not text.t5_places:
        return np.zeros((len(captions), text.t5_places, 0), np.float32)
    return t5.encode_text(captions, text.t5_places)


def check_lengths(clips: Sequence[Any]) -> None:
    """Raises ValueError unless all text encoders read as many tokens."""
    lengths = [clip.tokenizer.context for clip in clips]
    require(len(set(lengths)) == 1, f"the text encoders read {lengths[0]} and {lengths[-1]} tokens: expected as many")


def read_captions(clips: Sequence[Any], text: Text, captions: Sequence[str], t5: Any = None) -> States:
    """The states of captions.

    Raises:
        ValueError: if two encoders do not read as many tokens, or one has fewer blocks than are skipped.
    """
    check_lengths(clips)
    states = read_tokens(clips, text, [clip.tokenizer(captions) for clip in clips])
    return states._replace(t5=read_t5(t5, text, captions))


def size_waves(sizes: Sequence[float]) -> Float[np.ndarray, " V"]:
    """Numbers about a picture's size as the net reads them, WAVES channels each [Podell23, sec. 2.2]."""
    waves = layers.sinusoidal(jnp.asarray(sizes, jnp.float32), WAVES, "cos_sin", 0)
    return np.asarray(waves).reshape(-1)


def usual_sizes(config: Config, height: int, width: int, score: float = GOOD) -> tuple[float, ...]:
    """The numbers of a whole picture of this size: its original size, where it was cut (nowhere), and its size; a
    refiner is told the aesthetic score instead of the last [Podell23, app. B]."""
    size = (float(height), float(width))
    return (*size, 0.0, 0.0, *(size if config.sizes == 6 else (score,)))


def telling_sizes(inputs: Inputs) -> Inputs:
    """What a net reads of a batch, with the sizes of each picture in place of those that its captions were kept with. A
    hidden caption hides no sizes, as in drawing."""

    def told(batch, key):
        x0, given = inputs(batch, key)
        vector: jax.Array = given["vector"]
        waves = layers.sinusoidal(batch[SIZES].reshape(-1), WAVES, "cos_sin", 0).reshape(len(vector), -1)
        return x0, {**given, "vector": jnp.concatenate([vector[:, : -waves.shape[1]], waves], axis=-1)}

    return told


def condition_of(config: Config, states: States, sizes: Sequence[float] = ()) -> Fields:
    """The net's condition of captions' states and of as many numbers as it reads.

    Raises:
        ValueError: if the encoders' widths are not those that the net reads.
    """
    net, fields = config.net, {}
    if net.token_dim:
        fields["tokens"] = _joined(config, states).astype(np.float32)
        if config.text.masked:
            fields["token_mask"] = states.token_mask
    if net.vector_dim and config.image_embedding is None:
        waves = size_waves(sizes) if config.sizes else np.zeros(0, np.float32)
        rows = np.broadcast_to(waves, (len(states.embedding), waves.size))
        fields["vector"] = np.concatenate([states.embedding, rows], axis=-1, dtype=np.float32)
        width = fields["vector"].shape[1]
        require(net.vector_dim == width, f"net.vector_dim={net.vector_dim}: embedding and sizes are {width} wide")
    return fields


def _joined(config: Config, states: States) -> Float[np.ndarray, "N L E"]:
    """The states of all places as the net reads them, a T5's last [Esser24, sec. 4]."""
    net, width, more = config.net, states.tokens.shape[-1], states.t5.shape[-1]
    if not config.text.t5_places:
        require(net.token_dim == width, f"net.token_dim={net.token_dim}: the text encoders' states are {width} wide")
        return states.tokens
    require(
        width <= net.token_dim, f"net.token_dim={net.token_dim}: the text encoders' states are wider, {width} together"
    )
    require(more in (0, net.token_dim), f"net.token_dim={net.token_dim}: the T5's states are {more} wide")
    filled = [np.pad(x, ((0, 0), (0, 0), (0, net.token_dim - x.shape[-1]))) for x in (states.tokens, states.t5)]
    return np.concatenate(filled, axis=1)


def make_encoder(config: Config, clips: Sequence[Any], size: int, t5: Any = None) -> Encoder:
    """What the text encoders say of captions, as a companion that is kept; pictures are `size` pixels a side."""

    def encode(captions: Sequence[str]) -> Fields:
        fields = condition_of(config, read_captions(clips, config.text, captions, t5), usual_sizes(config, size, size))
        return fields | ({"tokens": fields["tokens"].astype(np.float16)} if "tokens" in fields else {})

    readers = (*clips, t5) if t5 else clips
    named = "".join(reader.fingerprint for reader in readers) + repr((config.text, config.sizes, size))
    names = tuple(name for name in ("tokens", "token_mask", "vector") if name in _read(config))
    return Encoder(
        "text",
        hashlib.sha256(named.encode()).hexdigest()[:16],
        names,
        lambda examples: encode([example["text"] for example in examples]),
        empty=lambda: {name: value[0] for name, value in encode([""]).items()},
        needs={"text": "has no captions: set data.caption_field"},
    )


def _read(config: Config) -> tuple[str, ...]:
    asked = {"tokens": config.net.token_dim, "token_mask": config.net.token_dim and config.text.masked}
    return tuple(name for name, is_read in (asked | {"vector": config.net.vector_dim}).items() if is_read)
