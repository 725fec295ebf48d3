"""Drawing many examples by one compiled program: keys by number, equal batches, labels, what is said of compiling, and
the program in stretches for who watches it."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Int32, PyTree

from flaxgen import parallel
from flaxgen.diffusion.samplers import in_stretches
from flaxgen.family.unread import in_memory
from flaxgen.train.config import require
from flaxgen.types import PRNGKey


class Wanted(NamedTuple):
    """A call of `draw_many`: `rows` are what `num` examples are drawn from, filled up to whole batches; who watches."""

    compiled: Callable
    params: PyTree
    rows: PyTree
    num: int
    batch: int
    watch: "Watch | None"


def draw_many(
    compiled: Callable, params: PyTree, key: PRNGKey, inputs: PyTree, *, num: int, batch: int, first: int = 0
) -> Any:
    """`compiled(params, {"key": ..., **inputs})` for `num` examples in equal batches, the last one filled up; leaves of
    `inputs` and of the result have a leading axis of `num`. Their keys are those of the numbers from `first` on.
    Parameters that are unread are in memory for as long as it takes."""
    count = -(-num // batch) * batch
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, np.arange(first, first + count, dtype=np.int32))
    filled = jax.tree.map(lambda x: np.concatenate([x, np.repeat(np.asarray(x)[-1:], count - num, 0)]), dict(inputs))
    wanted = Wanted(compiled, in_memory(params), {"key": keys, **filled}, num, batch, _watch.get())
    return (_meet.get() or draw_wanted)(wanted)


def draw_wanted(wanted: Wanted) -> Any:
    """What is wanted, batch after batch."""
    starts = range(0, -(-wanted.num // wanted.batch) * wanted.batch, wanted.batch)
    batches = [jax.tree.map(lambda x: x[start : start + wanted.batch], wanted.rows) for start in starts]  # noqa: B023
    parts = [wanted.compiled(wanted.params, rows) for rows in batches]
    return jax.tree.map(lambda *leaves: np.concatenate([np.asarray(leaf) for leaf in leaves])[: wanted.num], *parts)


Meet = Callable[[Wanted], Any]
"""Draws what is wanted, with what others want."""
_meet: ContextVar[Meet | None] = ContextVar("meet", default=None)


@contextlib.contextmanager
def met(meet: Meet) -> Iterator[None]:
    """Inside, `draw_many` has `meet` draw; see `together.py`."""
    token = _meet.set(meet)
    try:
        yield
    finally:
        _meet.reset(token)


def numbered(num: int | range) -> range:
    """The numbers of the pictures to draw, the first `num` or those given.

    Raises:
        ValueError: if there are none, or they do not follow one after the other.
    """
    numbers = range(num) if isinstance(num, int) else num
    require(len(numbers) >= 1 and numbers.step == 1, f"num={len(numbers)}: expected 1 or more, one after the other")
    return numbers


def batch_for(num: int, largest: int, devices: int) -> int:
    """How many to draw at once: a power of two, so that few programs are compiled, and a multiple of the devices."""
    size = min(2 ** (num - 1).bit_length(), largest)
    return -(-size // devices) * devices


def choose_labels(classes: int, label: int | None, numbers: range) -> dict[str, Int32[np.ndarray, " N"]]:
    """The label for each of the pictures of these numbers, or all classes in turn; nothing where there are no classes.

    Raises:
        ValueError: if the label is not one of the classes.
    """
    require(label is None or classes > 0, f"label={label}: this model knows no classes")
    if not classes:
        return {}
    require(label is None or 0 <= label < classes, f"label={label}: expected a class from 0 to {classes - 1}")
    return {
        "label": np.arange(numbers.start, numbers.stop, dtype=np.int32) % classes
        if label is None
        else np.full(len(numbers), label, np.int32)
    }


def finished(drawn: np.ndarray, pictures: bool) -> np.ndarray:
    """What was drawn; pictures are clipped to [-1, 1].

    Raises:
        FloatingPointError: if it is not finite.
    """
    if not np.isfinite(drawn).all():
        raise FloatingPointError("the samples are not finite: the model is broken, or is not what its config says")
    return np.clip(drawn, -1, 1) if pictures else drawn


def nearest(nearness: Float[np.ndarray, " N"], candidates: int) -> Int[np.ndarray, " M"]:
    """Of every `candidates` pictures, one group after the other, the one that is nearest to what was wanted [Ramesh21,
    sec. 2.6]."""
    groups = nearness.reshape(-1, candidates)
    return np.arange(len(groups)) * candidates + groups.argmax(1)


Watch = Callable[[int, int, Any], None]
"""Called with how many steps are walked, of how many, and what the last took x0 to be: [N 1 ...] on the device. What it
raises ends the drawing."""
STRETCHES = 12
"""In how many stretches a walk is watched."""
_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)


@contextlib.contextmanager
def watched(watch: Watch | None) -> Iterator[None]:
    """Inside, what `compile_draw` compiled is walked in stretches, and `watch` is called after each."""
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)


def show(step: int, steps: int, x0: Any) -> None:
    """Shows who watches, if anybody does, how far a walk is."""
    if (watch := _watch.get()) is not None:
        watch(step, steps, x0)


def compile_draw(plan: parallel.Plan, draw: Callable[[Any, Any], Any], key: Any) -> Callable[[Any, Any], Any]:
    """One program for `draw(params, inputs)` of one example with one walk in it, mapped over the inputs; see
    `parallel.Plan.compile_map`. Who watches has it walk in stretches: the same steps with the same keys."""
    whole = plan.compile_map(jax.vmap(draw, (None, 0)), key=key)
    part = in_stretches(draw)

    def begin(params, inputs):
        _, state, steps = part(params, inputs, None, 0, 0)
        return jax.tree.leaves(state), steps

    def go_on(given, rows):  # states go in and out as leaves: `programs.kept` keeps no program with types of our own
        (params, first, last), (inputs, leaves) = given, rows
        blank = jax.eval_shape(lambda: part(params, inputs, None, 0, 0)[1])
        state = jax.tree.unflatten(jax.tree.structure(blank), leaves)
        drawn, state, _ = part(params, inputs, state, first, last)
        return drawn, jax.tree.leaves(state), state.x0

    stretch = plan.compile_map(jax.vmap(go_on, (None, 0)), key=("stretch", *key))
    start = plan.compile_map(jax.vmap(begin, (None, 0)), key=("start", *key))

    def run(params, inputs):
        if _watch.get() is None:
            return whole(params, inputs)
        state, counts = start(params, with_keys_anew(inputs))
        steps, first, drawn = int(counts[0]), 0, None
        while first < steps:
            last = min(first + max(1, steps // STRETCHES), steps)
            drawn, state, x0 = stretch((params, np.int32(first), np.int32(last)), (with_keys_anew(inputs), state))
            first = last
            show(first, steps, x0)
        return drawn

    return run


def with_keys_anew(inputs: PyTree) -> PyTree:
    """The same keys for what JAX's check is to take for no second use: a stretch with other steps, or another try."""

    def anew(leaf):
        is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return jax.random.clone(leaf) if is_key else leaf

    return jax.tree.map(anew, inputs)


class Steps(NamedTuple):
    """Frames on the way from one stop to the next: `weight` of the way from number `left` to number `right`."""

    left: Int[np.ndarray, " N"]
    right: Int[np.ndarray, " N"]
    weight: Float[np.ndarray, " N"]


def walk_steps(stops: int, frames: int, loop: bool) -> Steps:
    """`frames` on the way from the first stop through all others, at as many from each to the next. A `loop` goes back
    to the first and ends one frame before it; else the last frame is the last stop.

    Raises:
        ValueError: if there are too few frames or stops.
    """
    require(stops >= 2, f"a way through {stops} picture(s): expected 2 or more")
    legs = stops if loop else stops - 1
    require(frames > legs, f"frames={frames} through {stops} pictures: expected {legs + 1} or more")
    place = np.arange(frames) * (legs / (frames if loop else frames - 1))
    left = np.minimum(np.floor(place + 1e-9).astype(int), legs - 1)  # a whole number may have lost its last bit
    return Steps(left, (left + 1) % stops, np.clip(place - left, 0, 1).astype(np.float32))


def title(plan: parallel.Plan, batch: int, shape: tuple[int, ...], what: str = "") -> str:
    """What is compiled, in words."""
    size = " x ".join(map(str, (batch, *shape)))
    return ", ".join(filter(None, (what, size, f"on {plan.devices} {jax.default_backend()} device(s)")))


def announced(draw: Callable, title: str) -> Callable:
    """Says what the first call compiles for, and how long it took."""
    calls = iter([True])

    def run(*arguments):
        if not next(calls, False):
            return draw(*arguments)
        print(f"compiling {title} ...", file=sys.stderr, flush=True)
        start = time.perf_counter()
        result = jax.block_until_ready(draw(*arguments))
        print(f"compiled and drew the first batch in {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)
        return result

    return run
