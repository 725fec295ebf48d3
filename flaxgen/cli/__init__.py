"""The command line: thin shells over `verbs` and requests. Wrong input is one line and exit code 2."""

import argparse
import difflib
import os
import re
import select
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import flaxgen
from flaxgen import cache
from flaxgen.cli import evaluate, memory, requests, runs, studio

DEBUG = "FLAXGEN_DEBUG"
GONE = re.compile(r"Gloo \S+ failed|ncclRemoteError|[Cc]oordination service|[Hh]eartbeat")
"""What JAX says when another process of a run has died."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code (141, as of SIGPIPE, if its output is not read to the end)."""
    parsed = make_parser().parse_args(arguments)
    cache.begin()
    try:
        code = parsed.run(parsed) or 0
        sys.stdout.flush()
        return code
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, BrokenPipeError) and _is_unread():
            return 141
        code, line = _verdict(error, parsed)
        if line is None or os.environ.get(DEBUG):
            _leave(parsed, code, error)
            raise
    print(f"flaxgen {parsed.command}: {line}", file=sys.stderr)
    _leave(parsed, code)
    return code


def _is_unread() -> bool:
    """Whether nobody reads standard output any more (`flaxgen info RUN | head`); then nothing more is written to it."""
    pipe = select.poll()
    pipe.register(sys.stdout.fileno(), 0)
    unread = bool(pipe.poll(0))
    if unread:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return unread


def _verdict(error: BaseException, parsed: argparse.Namespace) -> tuple[int, str | None]:
    """The exit code, and the line that says it all; None for what the user cannot mend."""
    text = " ".join(str(error).split())
    if isinstance(error, KeyboardInterrupt):
        return 130, "interrupted"
    if isinstance(error, ValueError | OSError | ImportError):
        return 2, f"error: {text}"
    if isinstance(error, FloatingPointError):
        return 1, f"error: {text}"
    if isinstance(error, RuntimeError) and GONE.search(text):
        reason = text.rpartition("] ")[2][:100]
        again = "start all of them again, and the run resumes at its newest checkpoint"
        return 1, f"error: another process of this run is gone ({reason}): {again}"
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" in text):
        first = str(error).strip().partition("\n")[0]
        is_whole = getattr(parsed, "in_parts", False) and not parsed.sequential
        ways = memory.ways_out(parsed.command, getattr(parsed, "asked", None), is_whole)
        return 1, f"error: out of memory{f' ({first})' if first else ''}: what needs less is {ways}"
    return 1, None


def _leave(parsed, code: int, error: BaseException | None = None) -> None:
    """Where there are other processes, which may wait for this one, ends it at once; says which error it was."""
    if parsed.command not in ("train", "eval"):
        return
    from flaxgen import parallel

    if error is not None and parallel.is_distributed():
        traceback.print_exception(error)
    parallel.leave(code)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, and name what was meant."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: error: {message}{self._meant(message)}", file=sys.stderr)
        raise SystemExit(2)

    def _meant(self, message: str) -> str:
        """The nearest command or flag to one that is not known."""
        found = re.search(r"invalid choice: '([^']*)'|unrecognized arguments: (--[^\s=]*)", message)
        if found is None:
            return ""
        wrong = found.group(1) or found.group(2)
        near = difflib.get_close_matches(wrong, self._known(), n=1)
        return f": did you mean {near[0]}?" if near else ""

    def _known(self) -> list[str]:
        names = [name for action in self._actions for name in action.option_strings]
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                names += action.choices
                chosen = [action.choices[word] for word in sys.argv[1:2] if word in action.choices]
                names += [
                    name for parser in chosen or action.choices.values() for name in parser._option_string_actions
                ]
        return names


def make_parser() -> Parser:
    """All commands; each is added by the file that runs it."""
    parser = Parser("flaxgen", description="The JAX/Flax zoo of image generation.")
    parser.add_argument("--version", action="version", version=f"flaxgen {flaxgen.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (requests, evaluate, runs, studio):
        module.add_commands(commands)
    completion = commands.add_parser("completion", help="print a script that completes commands and flags with Tab")
    completion.add_argument(
        "shell", choices=("bash", "zsh", "fish"), help='whose; for bash: eval "$(flaxgen completion bash)"'
    )
    completion.set_defaults(run=_complete)
    return parser


def _complete(parsed) -> int:
    import shtab

    print(shtab.complete(make_parser(), parsed.shell))
    return 0
