"""Several answers at once: each is worked out as if it were alone, and where some wait for one program, they go through
it together.

A program is compiled for a batch of one size, and what another makes of an example differs in the last bits, which a
rounded pixel can show. So the examples of several answers fill batches of the size that each has alone, and these
batches are drawn side by side: every picture keeps its bytes, whoever it is drawn with.
"""

import contextvars
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from flaxgen.family.drawing import Wanted, draw_wanted, met, watched, with_keys_anew

SMALL = 2**16
"""Elements of arrays that are compared by value; larger ones are alike if they are one."""
SIDE_BY_SIDE = min(4, os.cpu_count() or 1)
"""Batches that are drawn at the same time, at most."""
_drawn: weakref.WeakSet[Callable] = weakref.WeakSet()
"""Programs that are compiled: only these are called by several threads at once, so that none is compiled twice."""


def together(tasks: Sequence[Callable[[], Any]]) -> list[Any]:
    """What each of the tasks returns, or the exception that it raises. Tasks run by turns, one at a time, each from one
    call of `drawing.draw_many` to its next; what those that wait there want is drawn at once where it is alike."""
    members = [_Member(task) for task in tasks]
    for member in members:
        member.go_on()
    while waiting := [member for member in members if member.wanted is not None]:
        least = min(waiting, key=lambda member: member.calls)
        alike = [member for member in waiting if member is least or _are_alike(least.wanted, member.wanted)]
        for member, outcome in zip(alike, draw_together([member.wanted for member in alike]), strict=True):
            member.outcome = outcome
        for member in alike:
            member.go_on()
    return [member.outcome for member in members]


class _Member:
    """A task in a thread of its own, which runs only while `go_on` waits for it."""

    def __init__(self, task: Callable[[], Any]):
        self.wanted: Any = None
        self.outcome: Any = None
        self.calls = 0
        self._turn, self._waits = threading.Semaphore(0), threading.Semaphore(0)
        threading.Thread(target=contextvars.copy_context().run, args=(self._run, task), daemon=True).start()

    def go_on(self) -> None:
        """Lets the task run until it wants something drawn, `wanted`, or is over, with None."""
        self._turn.release()
        self._waits.acquire()

    def _run(self, task: Callable[[], Any]) -> None:
        self._turn.acquire()
        try:
            with met(self._meet):
                self.outcome = task()
        except BaseException as error:
            self.outcome = error
        self.wanted = None
        self._waits.release()

    def _meet(self, wanted: Wanted) -> Any:
        self.wanted, self.calls = wanted, self.calls + 1
        self._waits.release()
        self._turn.acquire()
        self.wanted = None
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


def _are_alike(one: Wanted, other: Wanted) -> bool:
    """Whether one call can draw both."""
    return (
        one.compiled is other.compiled
        and one.batch == other.batch
        and (one.watch is None) == (other.watch is None)
        and _kinds(one.rows) == _kinds(other.rows)
        and _are_equal(one.params, other.params)
    )


def _kinds(rows: PyTree) -> Any:
    return jax.tree.structure(rows), [(leaf.shape[1:], leaf.dtype) for leaf in jax.tree.leaves(rows)]


def _are_equal(one: PyTree, other: PyTree) -> bool:
    if jax.tree.structure(one) != jax.tree.structure(other):
        return False
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(a is b or (np.size(a) <= SMALL and np.array_equal(a, b)) for a, b in pairs)


class _Share(NamedTuple):
    """Of a batch, the `rows` that are of what is wanted at that number."""

    number: int
    rows: slice


def draw_together(wanted: Sequence[Wanted]) -> list[Any]:
    """Of each what is drawn, or the exception by which who watches it has ended it. What fails together is drawn alone,
    so that one does not take the others along."""
    if len(wanted) == 1:
        return [_drawn_alone(wanted[0])]
    ended: dict[int, BaseException] = {}
    try:
        parts = _draw_batches(wanted, ended)
    except Exception:  # whosever fault it is shows alone
        again = [one._replace(rows=with_keys_anew(one.rows)) for one in wanted]
        return [ended.get(i) or _drawn_alone(one) for i, one in enumerate(again)]
    return [ended.get(i) or jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts[i]) for i in range(len(wanted))]


def _drawn_alone(wanted: Wanted) -> Any:
    try:
        with watched(wanted.watch):
            return draw_wanted(wanted)
    except Exception as error:
        return error


def _draw_batches(wanted: Sequence[Wanted], ended: dict[int, BaseException]) -> list[list[PyTree]]:
    """What is drawn of each, in the parts that its batches had of it; who does not want it any more is put in
    `ended`."""
    compiled, params, batch = wanted[0].compiled, wanted[0].params, wanted[0].batch
    rows, lock = _rows_of_all(wanted), threading.Lock()

    def draw(start: int) -> tuple[list[_Share], Any]:
        shares = _shares(wanted, start)
        watch = None if wanted[0].watch is None else _watch_of(wanted, shares, ended, lock)
        try:
            with watched(watch):
                drawn = compiled(params, jax.tree.map(lambda x: x[start : start + batch], rows))
                return shares, jax.tree.map(np.asarray, drawn)
        except _Nobody:
            return shares, None

    starts = range(0, sum(one.num for one in wanted), batch)
    alone = starts[: 0 if compiled in _drawn else 1]
    done = [draw(start) for start in alone]
    _drawn.add(compiled)
    with ThreadPoolExecutor(min(len(starts), SIDE_BY_SIDE)) as pool:
        done += pool.map(draw, starts[len(alone) :])
    parts: list[list[PyTree]] = [[] for _ in wanted]
    for shares, drawn in done:
        for number, own in shares if drawn is not None else ():
            parts[number].append(jax.tree.map(lambda x, own=own: x[own], drawn))
    return parts


def _rows_of_all(wanted: Sequence[Wanted]) -> PyTree:
    """The rows of all, and then as many of those that filled up their own batches as fill up the last."""
    count = -(-sum(one.num for one in wanted) // wanted[0].batch) * wanted[0].batch

    def joined(*leaves):
        ordered = [leaf[: one.num] for one, leaf in zip(wanted, leaves, strict=True)]
        ordered += [leaf[one.num :] for one, leaf in zip(wanted, leaves, strict=True)]
        return (jnp if isinstance(leaves[0], jax.Array) else np).concatenate(ordered)[:count]

    return jax.tree.map(joined, *(one.rows for one in wanted))


def _shares(wanted: Sequence[Wanted], start: int) -> list[_Share]:
    """Whose the rows of the batch at `start` are; nobody's are those that fill it up."""
    ends = np.cumsum([one.num for one in wanted])
    found = []
    for number, (one, end) in enumerate(zip(wanted, ends.tolist(), strict=True)):
        first, last = max(end - one.num, start), min(end, start + one.batch)
        if first < last:
            found.append(_Share(number, slice(first - start, last - start)))
    return found


class _Nobody(Exception):
    """Nobody wants a batch any more."""


def _watch_of(wanted: Sequence[Wanted], shares: Sequence[_Share], ended: dict[int, BaseException], lock: Any):
    """Shows each its own share of a batch, until nobody looks."""

    def watch(step: int, steps: int, x0: Any) -> None:
        shown = np.asarray(x0)
        with lock:
            for number, rows in shares:
                if number not in ended:
                    try:
                        wanted[number].watch(step, steps, shown[rows])  # pyright: ignore[reportOptionalCall]
                    except Exception as error:
                        ended[number] = error
            if all(number in ended for number, _ in shares):
                raise _Nobody

    return watch
