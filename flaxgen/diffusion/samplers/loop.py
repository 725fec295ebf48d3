"""The only sampling loop, whole or in stretches."""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from flaxgen.types import Denoiser, PRNGKey, Sampler

Times = Float[Array, " N"] | Float[np.ndarray, " N"]


class Grid(NamedTuple):
    """Times that may change, in number too, without compiling again: the first `steps` + 1 of `times` are walked."""

    times: Times
    steps: Int[Array, ""] | np.int32


def make_grid(times: Float[np.ndarray, " N"], room: int = 0) -> Grid:
    """The grid of these times, with room for so many steps, or for the power of two that they need: only another room
    compiles again.

    Raises:
        ValueError: if there are fewer than two times, or more than there is room for.
    """
    steps = len(times) - 1
    room = room or max(LEAST_ROOM, 1 << (steps - 1).bit_length())
    if not 1 <= steps <= room:
        raise ValueError(f"times={times}: expected 1 to {room} steps")
    return Grid(np.pad(np.asarray(times, np.float32), (0, room - steps)), np.int32(steps))


LEAST_ROOM = 64
"""What usual numbers of steps share."""


def sample(
    sampler: Sampler, denoise: Denoiser, x_T: Float[Array, "B ..."], times: Times | Grid, key: PRNGKey
) -> Float[Array, "B ..."]:
    """Runs along `times` (N + 1 of them for N steps) and returns x at the last; a `Grid` has no reverse-mode gradient.

    x_T is x at times[0]: where there is no signal left, sigma(times[0]) times unit noise.
    """
    if (stretch := _stretch.get()) is not None:
        return stretch.walk(sampler, denoise, x_T, times, key)
    if isinstance(times, Grid):
        return _walk(sampler, denoise, sampler.init(x_T), times.times, key, 0, times.steps).x
    return _run(sampler, denoise, x_T, times, key, lambda state: state.x, max(len(times) - 1, 1))[-1]


def _walk(sampler, denoise, state, times, key, first, last):
    """The state after the steps from `first` up to `last`."""
    along = jnp.asarray(times)

    def body(i, state):
        return sampler.step(denoise, state, along[i], along[i + 1], jax.random.fold_in(key, i))

    return jax.lax.fori_loop(first, last, body, state)


class _Stretch:
    """What the walk in a program does while it is traced by `in_stretches`: None for `start` is its beginning alone."""

    def __init__(self, start: Any, first: Any, last: Any):
        self.start, self.first, self.last = start, first, last
        self.end: Any = None

    def walk(self, sampler, denoise, x_T, times, key):
        if self.end is not None:
            raise ValueError("a program that walks twice has no stretches")
        steps = times.steps if isinstance(times, Grid) else len(times) - 1
        along, state = times.times if isinstance(times, Grid) else times, sampler.init(x_T)
        if self.start is not None:
            state = jax.tree.map(lambda new, old: jnp.where(self.first == 0, new, old), state, self.start)
            state = _walk(sampler, denoise, state, along, key, self.first, jnp.minimum(self.last, steps))
        self.end = state, jnp.asarray(steps, jnp.int32)
        return state.x


_stretch: ContextVar[_Stretch | None] = ContextVar("stretch", default=None)


def in_stretches(draw: Callable[[Any, Any], Any]) -> Callable[..., tuple[Any, Any, Int[Array, ""]]]:
    """Of a function with one walk in it, `draw(params, inputs)`, another that goes a stretch of that walk, of the same
    steps with the same keys: `part(params, inputs, state, first, last)` gives what `draw` makes of where it is then,
    the sampler's state there, and how many steps there are. At step 0 no state is read; without one, None, no step is
    taken.

    Raises:
        ValueError: by `part`, where there is no walk, or a second.
    """

    def part(params, inputs, state, first, last):
        stretch = _Stretch(state, first, last)
        token = _stretch.set(stretch)
        try:
            drawn = draw(params, inputs)
        finally:
            _stretch.reset(token)
        if stretch.end is None:
            raise ValueError("a program without a walk has no stretches")
        return drawn, *stretch.end

    return part


def trajectory(
    sampler: Sampler, denoise: Denoiser, x_T: Float[Array, "B ..."], times: Times, key: PRNGKey, every: int = 1
) -> Float[Array, "F B ..."]:
    """What `sample` took x0 to be in every `every`-th step and in the last, which at time 0 is the sample.

    Raises:
        ValueError: if every is less than 1.
    """
    if every < 1:
        raise ValueError(f"every={every} must be a number of steps, 1 or more")
    return _run(sampler, denoise, x_T, times, key, lambda state: state.x0, every)


def _run(sampler, denoise, x_T, times, key, read: Callable[[Any], Array], every: int):
    """`read(state)` after every `every`-th step and after the last. A frame is overwritten until its last step, so that
    memory holds the frames asked for and no more.

    Raises:
        ValueError: if there are fewer than two times.
    """
    times, steps = jnp.asarray(times), len(times) - 1
    if steps < 1:
        raise ValueError(f"times={times} must hold a start and an end at least")

    def body(carry, inputs):
        state, frames = carry
        i, t, s = inputs
        state = sampler.step(denoise, state, t, s, jax.random.fold_in(key, i))
        return (state, frames.at[i // every].set(read(state))), None

    frames = jnp.zeros((-(-steps // every), *x_T.shape), x_T.dtype)
    inputs = (jnp.arange(steps), times[:-1], times[1:])
    (_, frames), _ = jax.lax.scan(body, (sampler.init(x_T), frames), inputs)
    return frames
