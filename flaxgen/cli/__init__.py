"""The command line: thin shells over `train` and `zoo`. Wrong input is one line and exit code 2."""

import argparse
import os
import sys
import traceback
from collections.abc import Sequence

from flaxgen import cache
from flaxgen.cli import draw, evaluate, gan, runs

DEBUG = "FLAXGEN_DEBUG"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    parsed = make_parser().parse_args(arguments)
    cache.begin()
    try:
        return parsed.run(parsed) or 0
    except (Exception, KeyboardInterrupt) as error:
        code, line = _verdict(error)
        if line is None or os.environ.get(DEBUG):
            _leave(parsed, code, error)
            raise
    print(f"flaxgen {parsed.command}: {line}", file=sys.stderr)
    _leave(parsed, code)
    return code


def _verdict(error: BaseException) -> tuple[int, str | None]:
    """The exit code, and the line that says it all; None for what the user cannot mend."""
    text = " ".join(str(error).split())
    if isinstance(error, KeyboardInterrupt):
        return 130, "interrupted"
    if isinstance(error, ValueError | OSError | ImportError):
        return 2, f"error: {text}"
    if isinstance(error, FloatingPointError):
        return 1, f"error: {text}"
    if isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" in text:
        first = str(error).strip().partition("\n")[0]
        smaller = "train --set batch_size, sample --set batch, eval --batch"
        return 1, f"error: out of memory ({first}): make the batch smaller ({smaller})"
    return 1, None


def _leave(parsed, code: int, error: BaseException | None = None) -> None:
    """Where there are other processes, which may wait for this one, ends it at once; says which error it was."""
    if parsed.command not in ("train", "eval"):
        return
    from flaxgen import parallel

    if error is not None and parallel.is_distributed():
        traceback.print_exception(error)
    parallel.leave(code)


def make_parser() -> argparse.ArgumentParser:
    """All commands; each is added by the file that runs it."""
    parser = argparse.ArgumentParser("flaxgen", description="The JAX/Flax zoo of image generation.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (draw, evaluate, gan, runs):
        module.add_commands(commands)
    return parser
