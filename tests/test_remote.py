"""`flaxgen.connect`: a model of a studio elsewhere does what the same model does here."""

import inspect
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi")

from studio_toy import Brush, entry_of, served

import flaxgen
from flaxgen import remote as remotes

TOKEN = "t" * 16


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    """A studio of two models behind a token."""
    brush = Brush()
    entries = {name: entry_of(brush, name) for name in ("fake", "other")}
    with served(tmp_path_factory.mktemp("studio") / "s", entries=entries, token=TOKEN) as running:
        running.brush = brush
        yield running


@pytest.fixture
def remote(studio):
    """Its first model, asked by ann."""
    studio.brush.error = None
    studio.brush.done.clear()
    return flaxgen.connect(studio.url, TOKEN, "ann")


@pytest.fixture
def local(studio):
    """The same model here."""
    return studio.studio.entries["fake"].load()


def test_pictures_are_those_of_the_model_itself_to_the_byte(remote, local, tmp_path):
    there = remote.draw("a ring", num=3, seed=np.int64(5))
    here = local.draw("a ring", num=3, seed=5)
    np.testing.assert_array_equal(there.images, here.images)
    assert (there.captions, there.about) == (("a ring",), here.about)
    for name, pictures in (("there", there), ("here", here)):
        pictures.save(tmp_path / name)
    for number in range(3):
        saved = [(tmp_path / name / f"{number:03d}.png").read_bytes() for name in ("there", "here")]
        assert saved[0] == saved[1]


def test_methods_are_those_of_the_model_itself(remote, local):
    assert set(remote.verbs) == set(local.verbs)
    for verb in remote.verbs:
        there, here = inspect.signature(getattr(remote, verb)), inspect.signature(getattr(local, verb))
        offered = [name for name in here.parameters if name != "data"]
        assert list(there.parameters) == offered
        for name in offered:
            theirs, ours = there.parameters[name], here.parameters[name]
            assert (theirs.kind, theirs.default) == (ours.kind, ours.default), (verb, name)
    assert "draw" in dir(remote)
    assert "candidates: how many of each" in remote.draw.__doc__
    assert repr(remote).startswith("fake at http://127.0.0.1")


def test_the_code_in_the_docs_runs(studio, tmp_path, monkeypatch):
    text = (Path(__file__).parents[1] / "docs" / "studio_api.md").read_text()
    first = re.findall(r"```python\n(.*?)```", text, flags=re.S)[0]
    code = first.replace("http://localhost:7860", studio.url).replace("token=None", f"token={TOKEN!r}")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(code, "studio_api.md", "exec"), names)
    assert (tmp_path / "out.png").is_file()
    assert [len(names[name]) for name in ("pictures", "varied", "painted")] == [2, 3, 1]
    assert (studio.brush.done[-1].mask.pixels[:6] == 255).all()
    assert (studio.brush.done[-1].mask.pixels[6:] == 0).all()


@pytest.mark.parametrize("kind", ["file", "array", "float", "image"])
def test_pictures_of_every_kind_are_sent(studio, remote, tmp_path, kind):
    pixels = np.arange(12 * 16 * 3, dtype=np.uint8).reshape(12, 16, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    mask = np.zeros((12, 16), bool)
    mask[:, :8] = True
    given = {
        "file": tmp_path / "a.png", "array": pixels, "float": pixels.astype(np.float32) / 127.5 - 1,
        "image": Image.fromarray(pixels),
    }[kind]  # fmt: skip
    drawn = remote.inpaint(given, mask, "a dot", num=1)
    (request,) = studio.brush.done
    np.testing.assert_array_equal(request.image.pixels, pixels)
    np.testing.assert_array_equal(request.mask.pixels[..., 0] == 255, mask)
    assert (request.caption, len(drawn)) == ("a dot", 1)


def test_errors_are_those_of_the_studio_in_one_line(studio, remote):
    with pytest.raises(ValueError, match=r"^num=0: expected 1 or more$"):
        remote.draw("a ring", num=0)
    with pytest.raises(TypeError, match="nonsense"):
        remote.draw("a ring", nonsense=1)
    with pytest.raises(AttributeError, match="this model has no 'blend': it has draw, vary, inpaint"):
        _ = remote.blend
    studio.brush.error = ValueError("the paint is dry")
    with pytest.raises(ValueError, match=r"^draw: the paint is dry$"):
        remote.draw("a ring")


def test_other_models_and_users(studio, remote):
    other = remote.model("other")
    assert (other.name, list(other.models)) == ("other", ["fake", "other"])
    assert flaxgen.connect(f"{studio.url}/#token={TOKEN}", model="other").name == "other"
    for ask in (remote.model, lambda name: flaxgen.connect(studio.url, TOKEN, model=name)):
        with pytest.raises(ValueError, match="no model 'gone': expected fake, other"):
            ask("gone")
    jobs = studio.studio.store.jobs
    count = len(jobs("program:ann", None, None, 200))
    other.draw("a ring", num=1)
    assert len(jobs("program:ann", None, None, 200)) == count + 1


def test_who_stops_waiting_cancels_the_job(studio, remote, monkeypatch):
    studio.brush.go.clear()

    def stop(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(remotes.time, "sleep", stop)
    with pytest.raises(KeyboardInterrupt):
        remote.draw("a ring")
    monkeypatch.undo()
    (job,) = studio.studio.store.jobs("program:ann", None, None, 1)
    with studio.client(Authorization=f"Bearer {TOKEN}", **{"X-Flaxgen-User": "ann"}) as client:
        assert studio.finish(client, job.id)["state"] == "cancelled"
    studio.brush.go.set()


def test_where_there_is_no_studio_it_is_said(studio):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ValueError, match=f"^no studio answers at http://127.0.0.1:{port}: .*refused"):
        flaxgen.connect(f"127.0.0.1:{port}")
    with pytest.raises(ValueError, match="needs a token"):
        flaxgen.connect(studio.url)
    with pytest.raises(ValueError, match="the token is another one"):
        flaxgen.connect(studio.url, "another")
    for address in ("file:///etc/passwd", "ftp://a.example", ""):
        with pytest.raises(ValueError, match="is no address of a studio"):
            flaxgen.connect(address)


def answering(reply):
    """The port of a server that says this to one request."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve():
        with listening, listening.accept()[0] as connection:
            connection.recv(2**16)
            connection.sendall(reply)

    threading.Thread(target=serve, daemon=True).start()
    return listening.getsockname()[1]


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: http://evil.example/\r\nContent-Length: 0\r\n\r\n", "status 302"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "is no studio"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "is no studio with models"),
        (b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"models":[{}]}', "is no studio with models"),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\n{}", "status 500"),
    ],
)
def test_another_server_is_no_studio_and_sees_no_token_elsewhere(reply, said):
    with pytest.raises(ValueError, match=said):
        flaxgen.connect(f"http://127.0.0.1:{answering(reply)}", TOKEN)


def test_a_client_needs_none_of_the_server():
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['fastapi', 'uvicorn', 'httpx', 'starlette', 'pydantic']))\n"
        "from flaxgen import remote"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
