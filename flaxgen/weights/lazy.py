"""Arrays by name that are made one at a time, when each is asked for: a model larger than memory passes through."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

Tensors = Mapping[str, Any]
"""np.ndarrays by name. The annotation leaves their type out: to check it, one would have to be made."""


class Lazy(Mapping[str, Any]):
    """A read-only mapping over functions without arguments. Nothing is kept: asking twice makes an array twice."""

    def __init__(self, makers: Mapping[str, Callable[[], np.ndarray]]):
        self._makers = dict(makers)

    def __getitem__(self, name: str) -> np.ndarray:
        return self._makers[name]()

    def __contains__(self, name: object) -> bool:
        return name in self._makers

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)

    def without(self, names: Iterable[str]) -> "Lazy":
        """All arrays but those of the names."""
        dropped = frozenset(names)
        return Lazy({name: make for name, make in self._makers.items() if name not in dropped})

    def renamed(self, new_name: Callable[[str], str]) -> "Lazy":
        """The same arrays under other names.

        Raises:
            ValueError: if two get one name.
        """
        makers: dict[str, Callable[[], np.ndarray]] = {}
        for name, make in self._makers.items():
            if (new := new_name(name)) in makers:
                raise ValueError(f"tensor {name!r} and another one are both {new!r}: expected one of them")
            makers[new] = make
        return Lazy(makers)
