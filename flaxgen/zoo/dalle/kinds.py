"""What tells apart the nets that write a picture's codes from its caption: KINDS has a row for each of them."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from flaxgen.nets.dalle import Dalle, own_padding
from flaxgen.nets.dalle_mini import DalleMini
from flaxgen.tokens.losses import joint_loss, nats_per_token
from flaxgen.train.config import require
from flaxgen.types import Metrics

Run = Callable[..., Any]
"""`net.init` with its key, or `net.apply` with its parameters."""


class Example(NamedTuple):
    """Captions as tokens, the codes of their pictures, and whether the captions are hidden."""

    text: Int[Array, "B L"]
    mask: Bool[Array, "B L"]
    codes: Int[Array, "B h w"]
    is_hidden: Bool[Array, ""] | bool = False


class Kind(NamedTuple):
    """One kind of net.

    `sides(net)` are the rows and columns of its map. `call(run, example)` runs it on whole maps, and `cost(net, logits,
    example, text_weight)` is what it minimises of the logits that this gives, with metrics. `start(run, text, mask,
    known)` gives the logits of the first code that is not `known` [B N] (None: of the first one) and the caches that
    the net's `step` goes on from. With `spare` it may know more codes than the autoencoder has; they are never drawn.
    """

    sides: Callable[[Any], tuple[int, int]]
    call: Callable[[Run, Example], Any]
    cost: Callable[[Any, Any, Example, float], tuple[Float[Array, ""], Metrics]]
    start: Callable[[Run, Array, Array, Array | None], tuple[Array, Any]]
    spare: bool = False


def _cost_of_text_and_codes(net: Dalle, logits, example: Example, text_weight: float):
    """Text and codes, each in nats a token of its kind [Ramesh21, sec. 2.2]; text that is hidden is not counted."""
    text_logits, code_logits = logits
    targets = own_padding(example.text, example.mask, net.text_tokens)[:, 1:]
    text = jnp.where(example.is_hidden, 0.0, nats_per_token(text_logits, targets))
    codes = nats_per_token(code_logits, example.codes)
    value = joint_loss(text, codes, text_weight)
    return value, {"loss": value, "text_nats": text, "code_nats": codes, "accuracy": _right(code_logits, example.codes)}


def _cost_of_codes(net: DalleMini, logits, example: Example, text_weight: float):
    """Nats a code [Dayma21]: this net reads text and predicts none."""
    codes = _flat(example.codes)
    value = nats_per_token(logits, codes)
    return value, {"loss": value, "code_nats": value, "accuracy": _right(logits, codes)}


def _right(logits: Float[Array, "B *N K"], codes: Int[Array, " B *N"]) -> Float[Array, ""]:
    """The share of the codes that are the likeliest one."""
    return jnp.mean(jnp.argmax(logits, -1) == codes)


def _flat(codes: Int[Array, "B h w"]) -> Int[Array, "B N"]:
    return codes.reshape(codes.shape[0], -1)


def _square(net: DalleMini) -> tuple[int, int]:
    side = math.isqrt(max(net.length, 0))
    require(side > 0 and side**2 == net.length, f"net.length={net.length}: expected a square, as pictures are squares")
    return side, side


def _start_with_encoder(run: Run, text: Array, mask: Array, known: Array | None) -> tuple[Array, Any]:
    return run(run(text, mask, method="encode"), mask, known, method="start")


KINDS = {
    Dalle: Kind(
        sides=lambda net: (net.rows, net.columns),
        call=lambda run, example: run(example.text, example.mask, example.codes),
        cost=_cost_of_text_and_codes,
        start=lambda run, text, mask, known: run(text, mask, known, method="start"),
    ),
    DalleMini: Kind(
        sides=_square,
        call=lambda run, example: run(example.text, example.mask, _flat(example.codes)),
        cost=_cost_of_codes,
        start=_start_with_encoder,
        spare=True,
    ),
}


def kind_of(net: Dalle | DalleMini) -> Kind:
    """The kind of a net."""
    return KINDS[type(net)]


def sides_of(net: Dalle | DalleMini) -> tuple[int, int]:
    """Rows and columns of the map of codes that a net draws.

    Raises:
        ValueError: if a net without sides has a length that is no square.
    """
    return kind_of(net).sides(net)
