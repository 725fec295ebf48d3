"""Drawing a sequence of codes, each from its logits given the ones before."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from flaxgen.types import Keys, PRNGKey, Scalar

Choose: TypeAlias = Callable[[Float[Array, " N"], PRNGKey], Int[Array, "*E"]]
"""A code, from the logits of one example and its key; or all channels of a pixel from the parameters it has instead."""
Step: TypeAlias = Callable[[Int[Array, " B"], Int[Array, ""], Any], tuple[Float[Array, "B N"], Any]]
"""(code, its place, caches) to the logits of the next code and the caches with this one in them."""
Predict: TypeAlias = Callable[[Int[Array, "B L *E"]], Float[Array, "B L N"]]
"""All codes of a sequence to the logits of each."""


class Known(NamedTuple):
    """Codes that are given, where `mask` is True; what stands elsewhere is not read."""

    codes: Int[Array, "B L *E"]
    mask: Bool[Array, "B L"]


def known_rows(codes: Int[Array, "B h w *E"], rows: int) -> Known:
    """The upper `rows` rows of grids of codes, to be completed.

    Where the channels of a pixel are drawn one by one, the grid is that of h x (w C) values.

    Raises:
        ValueError: if the grids have not so many rows.
    """
    b, height, width = codes.shape[:3]
    if not 0 <= rows <= height:
        raise ValueError(f"{rows} rows of a grid of {height} are to be kept: expected 0 to {height}")
    mask = jnp.arange(height * width) < rows * width
    return Known(codes.reshape(b, height * width, *codes.shape[3:]), jnp.broadcast_to(mask[None], (b, mask.size)))


def keep_top_k(logits: Float[Array, " N"], k: int) -> Float[Array, " N"]:
    """-inf for all but the k largest logits and what is equal to the k-th; k=0 keeps all.

    Raises:
        ValueError: if k is negative.
    """
    if k < 0:
        raise ValueError(f"top_k={k}, expected 0 for no limit, or a number of codes")
    if k == 0 or k >= logits.shape[-1]:
        return logits
    return jnp.where(logits >= jax.lax.top_k(logits, k)[0][-1], logits, -jnp.inf)


def keep_top_p(logits: Float[Array, " N"], p: Scalar) -> Float[Array, " N"]:
    """-inf for all but the nucleus, the fewest codes that together have probability p, ties included [Holtzman20].

    The likeliest code always stays, also for p=0; p >= 1 keeps all.
    """
    ordered = jnp.sort(logits, descending=True)
    probability = jax.nn.softmax(ordered)
    inside = jnp.cumsum(probability) - probability < p
    least = jnp.min(jnp.where(inside.at[0].set(True), ordered, jnp.inf))
    # Rounding may bring the sum to 1 before the last code: p=1 has to be every code all the same.
    return jnp.where((logits >= least) | (p >= 1), logits, -jnp.inf)


def make_choice(temperature: Scalar = 1.0, *, top_k: int = 0, top_p: Scalar = 1.0) -> Choose:
    """Draws from softmax(logits / temperature) within the top k and then the nucleus; temperature 0 takes the largest.

    `temperature` and `top_p` may be traced, `top_k` may not: it is part of what is compiled. A `top_p` of 1 that is not
    traced spares the sorting of all logits.

    Raises:
        ValueError: if top_k is negative.
    """
    is_whole = isinstance(top_p, int | float) and top_p >= 1

    def choose(logits, key):
        best = jnp.argmax(logits)
        # With the largest at 0, no temperature can overflow.
        cooled = (logits - logits[best]) / jnp.where(temperature > 0, temperature, 1.0)
        kept = keep_top_k(cooled, top_k)
        drawn = jax.random.categorical(key, kept if is_whole else keep_top_p(kept, top_p))
        return jnp.where(temperature > 0, drawn, best)

    keep_top_k(jnp.zeros(1), top_k)
    return choose


def sample_codes(
    start: tuple[Float[Array, "B N"], Any],
    step: Step,
    length: int,
    keys: Keys,
    choose: Choose,
    known: Known | None = None,
) -> Int[Array, "B {length}"]:
    """`length` codes an example, from the logits and caches that a net's prefix gave, in one scan.

    Code k of an example is drawn with its key folded with k: it does not depend on the batch it is in. Known codes
    stay; what is drawn before them does not know them.

    Raises:
        ValueError: if length is less than 1.
    """
    _check_length(length)
    draw = _make_draw(keys, choose, known)

    def body(carry, place):
        logits, caches = carry
        code = draw(logits, place)
        return step(code, place, caches), code

    (logits, _), codes = jax.lax.scan(body, start, jnp.arange(length - 1))
    return jnp.concatenate((codes.T, draw(logits, length - 1)[:, None]), axis=1)


def sample_without_cache(
    predict: Predict, shape: tuple[int, ...], keys: Keys, choose: Choose, known: Known | None = None
) -> Int[Array, "B L *E"]:
    """Codes of `shape` (length, *what one choice is, as a pixel's channels) an example, from nets that keep no cache.

    The net reads all codes again for each of them: `length` times what one forward pass costs. The codes are those
    that `sample_codes` would draw.

    Raises:
        ValueError: if the length is less than 1.
    """
    _check_length(shape[0])
    draw = _make_draw(keys, choose, known)

    def body(place, codes):
        logits = jax.lax.dynamic_index_in_dim(predict(codes), place, axis=1, keepdims=False)
        return codes.at[:, place].set(draw(logits, place))

    return jax.lax.fori_loop(0, shape[0], body, jnp.zeros((keys.shape[0], *shape), jnp.int32))


def _check_length(length: int) -> None:
    if length < 1:
        raise ValueError(f"{length} codes were asked for, expected at least 1")


def _make_draw(keys: Keys, choose: Choose, known: Known | None):
    """(logits, place) to codes: those that are known, and elsewhere drawn."""

    def draw(logits, place):
        codes = jax.vmap(choose)(logits, jax.vmap(lambda key: jax.random.fold_in(key, place))(keys))
        if known is None:
            return codes
        given = known.mask[:, place].reshape(-1, *(1,) * (codes.ndim - 1))
        return jnp.where(given, known.codes[:, place], codes)

    return draw
