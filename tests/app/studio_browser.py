"""A studio and a browser for the tests of the page."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

CHROMIUM = "/usr/bin/chromium"
STARTS_WITHIN = 90.0  # s


def free_port() -> int:
    """A port of loopback that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextmanager
def studio(folder: Path, port: int):
    """A studio of the scenes model whose jobs and pictures are in that folder; gives its process and address."""
    command = [sys.executable, "-m", "flaxgen", "studio", "scenes", "--port", str(port), "--folder", str(folder)]
    log = folder.with_suffix(".log").open("ab")
    process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "JAX_PLATFORMS": "cpu"})
    url = f"http://127.0.0.1:{port}/"
    try:
        _wait(url, process)
        yield process, url
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()


def _wait(url: str, process: subprocess.Popen) -> None:
    late = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < late:
        assert process.poll() is None, "the studio ended"
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise AssertionError(f"no studio within {STARTS_WITHIN:.0f} s")


def open_page(browser, url: str, width: int = 1280, height: int = 860, **settings):
    """A fresh user's page, ready to draw; what goes wrong in it is kept in `page.problems`."""
    page = browser.new_context(viewport={"width": width, "height": height}, **settings).new_page()
    page.set_default_timeout(120_000)
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("console", lambda said: page.problems.append(said.text) if "Content Security Policy" in said.text else None)
    page.goto(url)
    page.wait_for_selector("[role=tab][aria-selected=true]")
    return page


def set_steps(page, steps: int = 2, num: int | None = 1) -> None:
    """Few steps and pictures, so that drawing takes seconds."""
    if page.locator("details.more:not([open]) > summary").count():
        page.click("details.more > summary")
    page.fill("#field-steps", str(steps))
    if num is not None:
        page.fill("#field-num", str(num))


def draw(page, caption: str = "a red circle", steps: int = 2, num: int = 1) -> None:
    """Draws that caption and waits for the pictures."""
    page.click("#tab-draw")
    page.fill("#field-captions", caption)
    set_steps(page, steps, num)
    page.click("button.primary[type=submit]")
    page.wait_for_selector(f"article[aria-label='Draw: {caption}'] .results .tile-open img")


def use(page, verb: str, which: int = 0) -> None:
    """Opens the newest picture of the gallery and sends it to a verb."""
    page.click(".gallery .tile-open >> nth=0")
    page.click(f".uses button:has-text('{verb}') >> nth={which}")
    page.wait_for_selector("dialog", state="detached")
