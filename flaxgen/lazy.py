"""Modules that take long to import and are needed by few commands."""

import importlib
from typing import Any


class Lazy:
    """The module of that name, imported when something of it is first asked for."""

    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)
