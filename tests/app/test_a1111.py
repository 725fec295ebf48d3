"""A1111's API over real HTTP: the bodies that its clients and Open WebUI send, and whose progress is whose."""

import base64
import io
import json
import threading
import time
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi")

import httpx
from studio_toy import Brush, Fake, entry_of, served

from flaxgen.app import a1111_bodies, uploads
from flaxgen.family.request import option
from flaxgen.family.requests import Draw, Inpaint, Vary
from flaxgen.family.trained import Handler
from flaxgen.zoo.latent.config import SOLVERS

TOKEN = "t" * 16


@dataclass(frozen=True, kw_only=True)
class DrawAny(Draw):
    """What a latent model can be asked."""

    steps: int | None = option(None, "steps", least=1)
    guidance: float | None = option(None, "guidance", least=0)
    sampler: str | None = option(None, "sampler")
    negative: str | None = option(None, "negative")
    width: int | None = option(None, "width", least=8)
    height: int | None = option(None, "height", least=8)


@dataclass(frozen=True, kw_only=True)
class VaryAny(Vary):
    """What a latent model can be asked."""

    caption: str = option("", "caption")
    strength: float | None = option(None, "strength", above=0, most=1, default_text="0.75")


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


PICTURE = png(np.full((12, 16, 3), 9))
LEFT = np.zeros((12, 16)) + 255 * (np.arange(16) < 8)
"""A mask: white in its left half."""


@pytest.fixture
def studio(tmp_path):
    """A studio of a model that knows captions alone, and one that knows all that A1111 does."""
    brush = Brush()
    plain = Handler(brush.paint, stages=lambda request: 2)
    filled = plain._replace(settings=lambda model, request: {"strength": request.strength or 0.75})
    requests = {DrawAny: plain, VaryAny: filled, Inpaint: plain}
    rich = Fake(brush, "rich", requests=requests)
    entries = {
        "plain": entry_of(brush, "plain"),
        "rich": entry_of(brush, "rich", lambda: rich)._replace(requests=requests, blank=rich),
    }
    with served(tmp_path / "s", entries=entries) as running:
        running.brush = brush
        yield running


@pytest.fixture
def client(studio):
    """A program that knows nothing of flaxgen's headers."""
    with httpx.Client(base_url=studio.url, timeout=20) as client:
        yield client


def info_of(reply):
    assert reply.status_code == 200, reply.text
    return json.loads(reply.json()["info"])


def test_what_open_webui_does(studio, client):
    """Its image engine in order: options, models, the options again with another model, a prompt."""
    client.headers["Authorization"] = ""
    options = client.get("/sdapi/v1/options").json()
    assert options["sd_model_checkpoint"] == "plain"
    models = client.get("/sdapi/v1/sd-models").json()
    assert [(model["title"], model["model_name"]) for model in models] == [("plain", "plain"), ("rich", "rich")]
    assert client.post("/sdapi/v1/options", json={**options, "sd_model_checkpoint": "rich"}).status_code == 200
    assert client.get("/sdapi/v1/options").json()["sd_model_checkpoint"] == "rich"
    body = {"prompt": "a ring", "batch_size": 2, "width": 512, "height": 512, "steps": 50, "negative_prompt": ""}
    reply = client.post("/sdapi/v1/txt2img", json=body)
    images = [Image.open(io.BytesIO(base64.b64decode(image))) for image in reply.json()["images"]]
    assert [image.size for image in images] == [(512, 512)] * 2
    info = info_of(reply)
    (request,) = studio.brush.done
    assert (request.captions, request.steps, request.num, request.width) == (("a ring",), 50, 2, 512)
    assert info["all_seeds"] == [request.seed] * 2
    assert (info["sd_model_name"], info["ignored"]) == ("rich", [])
    assert reply.json()["parameters"]["steps"] == 50


def test_every_field_has_its_own_name_here(studio, client):
    body = {
        "prompt": "a ring", "negative_prompt": "a dot", "seed": 4, "steps": 20, "cfg_scale": 7,
        "sampler_name": "DPM++ 2M Karras", "n_iter": 3, "width": 768, "height": 512, "enable_hr": False,
        "restore_faces": True, "override_settings": {"sd_model_checkpoint": "rich [abc123]", "CLIP_stop": 2},
    }  # fmt: skip
    reply = client.post("/sdapi/v1/txt2img", json=body)
    info = info_of(reply)
    (request,) = studio.brush.done
    assert (request.negative, request.seed, request.steps, request.guidance) == ("a dot", 4, 20, 7.0)
    assert (request.sampler, request.num, request.width, request.height) == ("dpmpp_2m_karras", 3, 768, 512)
    assert sorted(info["ignored"]) == ["CLIP_stop", "restore_faces"]
    first = "Steps: 20, Sampler: dpmpp_2m_karras, CFG scale: 7.0, Seed: 4, Size: 768x512, Model: rich, Verb: draw"
    assert info["infotexts"][0] == f"a ring\nNegative prompt: a dot\n{first}"
    again = client.post("/sdapi/v1/png-info", json={"image": "data:image/png;base64," + reply.json()["images"][0]})
    assert again.json()["parameters"]["Negative prompt"] == "a dot"
    assert json.loads(again.json()["items"]["flaxgen"])["request"]["seed"] == 4
    assert client.post("/sdapi/v1/png-info", json={"image": PICTURE}).json()["info"] == ""


def test_what_a_model_does_not_know_is_named_in_the_reply(studio, client):
    body = {"prompt": "x", "cfg_scale": 7, "sampler_name": "Euler a", "seed": -1, "alwayson_scripts": {}}
    info = info_of(client.post("/sdapi/v1/txt2img", json=body))
    assert sorted(info["ignored"]) == ["cfg_scale", "sampler_name"]
    assert info["seed"] == studio.brush.done[0].seed >= 0


def refuse(*_):
    raise uploads.Refused("too large")


def test_a_picture_with_a_mask_is_inpainted_and_without_one_varied(studio, client, monkeypatch):
    hole = np.dstack([np.zeros((12, 16, 3)), LEFT])
    bodies = [
        {"mask": png(LEFT)},
        {"mask": png(255 - LEFT), "inpainting_mask_invert": 1},
        {"mask": png(hole)},
        {"mask": png(np.repeat(np.repeat(LEFT, 2, 0), 2, 1)), "mask_blur": 4},
    ]
    for more in bodies:
        info_of(client.post("/sdapi/v1/img2img", json={"prompt": "a dot", "init_images": [PICTURE], **more}))
    for request in studio.brush.done:
        assert (request.mask.pixels[..., 0] == LEFT).all()
        assert request.caption == "a dot"
    assert [request.feather for request in studio.brush.done] == [2, 2, 2, 4]
    body = {"prompt": "a dot", "init_images": [PICTURE], "denoising_strength": 0.4}
    body["override_settings"] = {"sd_model_checkpoint": "rich"}
    info_of(client.post("/sdapi/v1/img2img", json=body))
    varied = studio.brush.done[-1]
    assert (varied.verb, varied.caption, varied.strength) == ("vary", "a dot", 0.4)
    plain = {name: value for name, value in body.items() if name != "denoising_strength"}
    usual = info_of(client.post("/sdapi/v1/img2img", json=plain))
    assert usual["denoising_strength"] == 0.75, "what a model of latent diffusion takes by itself"
    assert "Denoising strength: 0.75" in usual["infotexts"][0]
    with monkeypatch.context() as patch:  # a picture that is larger than what may be sent is answered all the same
        patch.setattr(uploads, "read_text", refuse)
        assert info_of(client.post("/sdapi/v1/img2img", json=plain))["denoising_strength"] is None
    info = info_of(client.post("/sdapi/v1/img2img", json={**body, "override_settings": {}}))
    assert sorted(info["ignored"]) == ["denoising_strength", "prompt"]


WRONG = [
    ("img2img", {"prompt": "x", "init_images": ["https://example.org/a.png"]}, 400, "init_images"),
    ("img2img", {"prompt": "x", "init_images": ["/etc/passwd"]}, 400, "init_images"),
    ("img2img", {"prompt": "x", "init_images": [base64.b64encode(b"<svg/>").decode()]}, 400, "image"),
    ("img2img", {"prompt": "x", "init_images": []}, 400, "init_images"),
    ("img2img", {"prompt": "x", "init_images": [PICTURE], "mask": "AAAA"}, 400, "mask"),
    ("txt2img", {"prompt": "x", "override_settings": {"sd_model_checkpoint": "../rich"}}, 404, "sd_model_checkpoint"),
    ("txt2img", {"prompt": "x", "width": 100, "height": 100}, 400, "width"),
    ("txt2img", {"prompt": "x", "batch_size": 65}, 400, "batch_size"),
    ("txt2img", {"prompt": "x", "batch_size": 64, "n_iter": 64}, 400, "num"),
    ("txt2img", {"prompt": "x", "steps": 1000}, 400, "steps"),
    ("options", {"sd_model_checkpoint": "gone"}, 404, "sd_model_checkpoint"),
    ("options", {"sd_model_checkpoint": 7}, 404, "sd_model_checkpoint"),
    ("options", {"outdir_samples": "/tmp"}, 400, "outdir_samples"),
    ("png-info", {"image": "file:///etc/passwd"}, 400, "image"),
]


def test_what_cannot_be_is_refused_in_one_line(client):
    for path, body, status, param in WRONG:
        refused = client.post(f"/sdapi/v1/{path}", json=body)
        error = refused.json()["error"]
        assert (refused.status_code, error["param"]) == (status, param), (path, body, error)
        assert "\n" not in error["message"]
        assert "/" not in error["message"]
    assert client.get("/api/gallery").json()["pictures"] == []


def test_progress_and_interrupt_are_of_the_callers_own_jobs(studio, client):
    ann, bob = {"X-Flaxgen-User": "ann"}, {"X-Flaxgen-User": "bob"}
    studio.brush.go.clear()
    replies = {}

    def ask(name, headers):
        with httpx.Client(base_url=studio.url, timeout=20, headers=headers) as own:
            replies[name] = own.post("/sdapi/v1/txt2img", json={"prompt": name})

    asking = [threading.Thread(target=ask, args=pair) for pair in (("ann", ann), ("bob", bob))]
    asking[0].start()
    assert studio.brush.begun.wait(10)
    asking[1].start()
    while not client.get("/sdapi/v1/progress", headers=bob).json()["state"]["job_count"]:
        time.sleep(0.01)
    (job,) = client.get("/api/jobs", headers=ann).json()["jobs"]
    studio.studio.events.tell("program:ann", "preview", {"job": job["id"], "step": 1, "steps": 2, "png": "PREVIEW"})
    while client.get("/sdapi/v1/progress", headers=ann).json()["current_image"] is None:
        time.sleep(0.01)
    seen = client.get("/sdapi/v1/progress", headers=ann).json()
    assert (seen["state"]["job"], seen["current_image"]) == (job["id"], "PREVIEW")
    assert seen["textinfo"] == "running with plain"
    skipped = client.get("/sdapi/v1/progress?skip_current_image=true", headers=ann).json()
    assert skipped["current_image"] is None
    assert client.get("/sdapi/v1/progress", headers=bob).json()["current_image"] is None
    assert client.get("/sdapi/v1/progress").json()["state"]["job_count"] == 0  # a third one sees nothing
    assert client.post("/sdapi/v1/interrupt").json() == {}
    assert client.post("/sdapi/v1/skip", headers=bob).json() == {}  # bob's waits, and goes before it began
    asking[1].join(10)
    assert client.get(f"/api/jobs/{job['id']}", headers=ann).json()["state"] == "running"
    studio.brush.go.set()
    asking[0].join(10)
    assert (replies["ann"].status_code, replies["bob"].status_code) == (200, 400)
    assert replies["bob"].json()["error"]["type"] == "cancelled"


def test_lists_that_clients_ask_for(client):
    samplers = client.get("/sdapi/v1/samplers").json()
    assert samplers[0]["name"] == "default"
    assert [sampler["aliases"] for sampler in samplers[1:]] == [[name] for name in SOLVERS]
    assert set(a1111_bodies.TITLES) == set(SOLVERS)
    assert client.get("/sdapi/v1/upscalers").json()[0]["name"] == "None"
    assert not any("/" in str(model) for model in client.get("/sdapi/v1/sd-models").json())


def test_http_basic_shows_the_token_and_names_the_user(tmp_path):
    with served(tmp_path / "s", token=TOKEN) as here, httpx.Client(base_url=here.url, timeout=20) as client:
        for auth in (None, ("ann", "another"), (TOKEN, "")):
            assert client.post("/sdapi/v1/txt2img", json={"prompt": "x"}, auth=auth).status_code == 401
        assert client.post("/sdapi/v1/txt2img", json={"prompt": "x"}, auth=("ann", TOKEN)).status_code == 200
        assert client.get("/sdapi/v1/options", auth=("", TOKEN)).status_code == 200
        assert client.get("/sdapi/v1/options", auth=("Ann!", TOKEN)).status_code == 400
        assert client.get("/api/jobs", auth=("ann", TOKEN)).status_code == 401
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        counts = [
            len(client.get("/api/jobs", headers={**bearer, "X-Flaxgen-User": user}).json()["jobs"])
            for user in ("ann", "api")
        ]
        assert counts == [1, 0]
        for header in ("Basic", "Basic !!", "Basic " + base64.b64encode(b"\xff\xfe").decode()):
            assert client.get("/sdapi/v1/options", headers={"Authorization": header}).status_code == 401


def test_an_interrupt_without_a_body_is_a_programs_and_no_pages(client):
    assert client.post("/sdapi/v1/interrupt").status_code == 200
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
                    {"Sec-Fetch-Site": "same-origin"}):  # fmt: skip
        assert client.post("/sdapi/v1/interrupt", headers=headers).status_code == 403
