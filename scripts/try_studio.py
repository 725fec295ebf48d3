"""Starts a `flaxgen studio` where it was installed, draws through it and by the command, and says how long each took.

python scripts/try_studio.py .venv-app/bin/flaxgen out.png
"""

import io
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from PIL import Image

CAPTION = "a red circle above a blue square"
PATIENCE = 1200
"""Seconds until it has to answer, or to have drawn."""


def ask(url: str, body: dict | None = None) -> bytes:
    """One request; with a body a POST."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"X-Flaxgen": "1", "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=60) as answer:
        return answer.read()


def draw_by_studio(url: str) -> bytes:
    """A picture, as PNG."""
    job = json.loads(ask(f"{url}/api/models/scenes/draw", {"captions": [CAPTION], "num": 1, "seed": 0}))["id"]
    while (state := json.loads(ask(f"{url}/api/jobs/{job}")))["state"] in ("queued", "running"):
        time.sleep(0.2)
    if state["state"] != "done":
        raise RuntimeError(f"the job is {state['state']}: {state.get('error')}")
    return ask(f"{url}/api/pictures/{state['pictures'][0]}")


def pixels(content: bytes) -> tuple[tuple[int, int], bytes]:
    """The size of a picture, and its pixels."""
    with Image.open(io.BytesIO(content)) as image:
        return image.size, image.convert("RGB").tobytes()


def main(flaxgen: str, out: str) -> int:
    """Prints seconds, and whether the studio and the command drew the same pixels; 1 if they did not.

    The files may differ, as each says where its model was.
    """
    command, path = str(Path(flaxgen).resolve()), Path(out).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        environ = {**os.environ, "FLAXGEN_CACHE": f"{folder}/cache"}
        began = time.monotonic()
        studio = subprocess.Popen(
            [command, "studio", "scenes", "--port", "0", "--folder", f"{folder}/studio"],
            cwd=folder, env=environ, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            url = next(word for line in studio.stdout or () for word in line.split() if word.startswith("http"))
            url = url.rstrip("/")
            page = ask(url)
            print(f"the studio answers after {time.monotonic() - began:.0f} s: a page of {len(page)} bytes", flush=True)
            for which in ("first", "second"):
                began = time.monotonic()
                drawn = draw_by_studio(url)
                print(f"its {which} picture took {time.monotonic() - began:.1f} s", flush=True)
        finally:
            studio.terminate()
            studio.wait(60)
        began = time.monotonic()
        command_line = [command, "draw", CAPTION, "--num", "1", "--out", str(path), "--force"]
        subprocess.run(command_line, cwd=folder, env=environ, check=True)
        print(f"flaxgen draw took {time.monotonic() - began:.0f} s")
    same = pixels(path.read_bytes()) == pixels(drawn)
    print(f"the studio and the command drew {'the same' if same else 'other'} pixels")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
