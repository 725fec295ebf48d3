"""Model directories for tests to read."""

from pathlib import Path
from typing import Any

from flaxgen import verbs


def write_model(directory: Path, config: Any, *rest: Any) -> None:
    """Writes the model directory of a config: its parameters, step and small files follow."""
    verbs.family_of(config).write_model(directory, config, *rest)
