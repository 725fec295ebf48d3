"""A studio at an address of this machine."""

import ipaddress
import math
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

import uvicorn

from flaxgen.app.application import make_app
from flaxgen.app.catalogue import Entry, find_models
from flaxgen.app.guard import ASGI
from flaxgen.app.limits import GIB, Limits
from flaxgen.app.studio import open_studio

MEMORY = Limits().model_memory / GIB
"""GiB of weights that are held, where nothing is said."""
SHORTEST_TOKEN = 16
"""Characters of a token for other machines."""


def serve(
    models: Sequence[str], folder: Path, *, host: str = "127.0.0.1", port: int = 7860, token: str = "",
    names: Sequence[str] = (), memory: float = MEMORY,
) -> None:  # fmt: skip
    """Serves models until it is interrupted; `names` are those that others call this machine by, and `memory` the GiB
    of weights that are held: those that were drawn with longest ago are dropped for others.

    Raises:
        ValueError: for another host than loopback without a token, or a model, folder or number that cannot be used.
        OSError: if the address cannot be used.
    """
    local = check_host(host, token)
    if not 0 < memory < math.inf:
        raise ValueError(f"--memory {memory:g}: expected GiB above 0")
    limits = Limits(model_memory=round(memory * GIB))
    entries = find_models(models)
    listening = listen(host, port)
    try:
        _serve(entries, folder, listening, host, token, names, local, limits)
    finally:
        listening.close()


def _serve(
    entries: Mapping[str, Entry], folder: Path, listening: socket.socket, host: str, token: str, names: Sequence[str],
    local: bool, limits: Limits,
) -> None:  # fmt: skip
    port = listening.getsockname()[1]
    known = frozenset() if local else names_of(host, names)
    studio = open_studio(entries, folder, limits, token=token, port=port, names=known, addresses=not local)
    shown = f"[{host}]" if ":" in host else host
    secret = f"#token={token}" if token else ""
    print(f"flaxgen studio with {', '.join(entries)} at http://{shown}:{port}/{secret} (Ctrl+C ends it)", flush=True)
    uvicorn.Server(configure(make_app(studio))).run(sockets=[listening])


def configure(app: ASGI) -> uvicorn.Config:
    """One worker, as one thread owns the devices; strict HTTP, no header that says what runs here."""
    return uvicorn.Config(
        app, http="h11", ws="none", loop="asyncio", workers=1, log_level="warning", access_log=False,
        proxy_headers=False, server_header=False, limit_concurrency=512, timeout_keep_alive=30,
        timeout_graceful_shutdown=3, h11_max_incomplete_event_size=2**14, lifespan="on",
    )  # fmt: skip


def check_host(host: str, token: str) -> bool:
    """Whether the host is this machine alone.

    Raises:
        ValueError: if it is not, and there is no token, or one that can be guessed.
    """
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local and len(token) < SHORTEST_TOKEN:
        raise ValueError(
            f"--host {host} can be reached from other machines: give --token with {SHORTEST_TOKEN} characters or more, "
            "or leave --host and use a tunnel (docs/studio.md)"
        )
    return local


def names_of(host: str, names: Sequence[str]) -> frozenset[str]:
    """The names by which others call this machine, whose address is `host`."""
    return frozenset({host, socket.gethostname().lower(), *map(str.lower, names)})


def listen(host: str, port: int) -> socket.socket:
    """A socket at that address; port 0 is one that is free.

    Raises:
        OSError: if it is taken, or not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen()  # from now on who comes waits, instead of being turned away
    except OSError as error:
        listening.close()
        raise OSError(f"--host {host} --port {port} cannot be used: {error.strerror or error}") from error
    return listening
