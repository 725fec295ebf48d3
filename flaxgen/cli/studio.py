"""`flaxgen studio`: the server, which needs the extra `app`."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

TOKEN = "FLAXGEN_TOKEN"


def add_commands(commands) -> None:
    """Adds the command."""
    parser = commands.add_parser("studio", help="draw in a browser: a server at an address of this machine")
    parser.add_argument("model", nargs="*", help="models that come along, or directories (all that come along)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="the address; another than loopback needs a token (127.0.0.1)"
    )
    parser.add_argument("--port", type=int, default=7860, help="the port; 0 is any that is free (7860)")
    parser.add_argument("--token", default="", help=f"what others have to show (the variable {TOKEN}, or none)")
    parser.add_argument("--folder", type=Path, help="where jobs and pictures are kept (the user's data directory)")
    parser.add_argument("--name", nargs="+", default=[], help="names by which others call this machine")
    parser.add_argument("--memory", type=float, default=8.0, help="GiB of models to hold at a time (8)")
    parser.set_defaults(run=_serve)


def _serve(parsed) -> None:
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ImportError(f"the studio needs {error.name}: pip install 'flaxgen[app]'") from error
    from flaxgen.app.serve import serve

    folder = parsed.folder or default_folder()
    token = parsed.token or os.environ.get(TOKEN, "")
    address = {"host": parsed.host, "port": parsed.port, "token": token, "names": parsed.name}
    serve(parsed.model, folder, **address, memory=parsed.memory)


def default_folder(environ: Mapping[str, str] = os.environ, system: str = sys.platform) -> Path:
    """Where this system keeps what a user made."""
    home = Path.home()
    if system == "darwin":
        return home / "Library" / "Application Support" / "flaxgen" / "studio"
    named = Path(environ.get("XDG_DATA_HOME", ""))
    return (named if named.is_absolute() else home / ".local" / "share") / "flaxgen" / "studio"
