"""OpenAI's own client, unchanged, against a studio: every call of its images API.

The one that is installed, and each in a folder of FLAXGEN_OPENAI_SDKS, as `pip install --target sdk/3.57.0
openai==3.57.0` makes them:

    FLAXGEN_OPENAI_SDKS=sdk/1.109.1:sdk/2.54.0:sdk/3.57.0 pytest tests/app/test_openai_sdk.py
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi")

from studio_toy import served

FOLDERS = [folder for folder in os.environ.get("FLAXGEN_OPENAI_SDKS", "").split(os.pathsep) if folder]
INSTALLED = [""] if importlib.util.find_spec("openai") else []
TOKEN = "t" * 16
PROGRAM = """
import base64, json, sys, warnings
import openai

warnings.simplefilter("ignore", DeprecationWarning)
url, token, opaque, holed, documented = sys.argv[1:]
client = openai.OpenAI(base_url=url + "/v1", api_key=token, max_retries=0)
said = {"version": openai.__version__, "models": [model.id for model in client.models.list()]}
said["model"] = client.models.retrieve("fake").id

drawn = client.images.generate(
    prompt="a ring", model="fake", n=2, size="256x256", response_format="b64_json", user="me",
    extra_body={"seed": 5, "steps": 3},
)
said["drawn"] = [[picture.seed, base64.b64decode(picture.b64_json)[:4].hex()] for picture in drawn.data]
with open(opaque, "rb") as image, open(holed, "rb") as mask:
    edited = client.images.edit(image=image, mask=mask, prompt="a dot", n=1, size="512x512", extra_body={"seed": 6})
said["edited"] = [[picture.seed, picture.url] for picture in edited.data]
with open(holed, "rb") as image:
    said["own mask"] = len(client.images.edit(image=[image], prompt="a dot", n=2).data)
with open(opaque, "rb") as image:
    varied = client.images.create_variation(image=image, n=2, response_format="b64_json", extra_body={"seed": 7})
said["varied"] = [picture.seed for picture in varied.data]

stream = client.images.generate(prompt="a ring", stream=True, partial_images=1, extra_body={"seed": 8})
said["streamed"] = [[type(event).__name__, event.size, event.seed] for event in stream]
with open(holed, "rb") as image:
    stream = client.images.edit(image=image, prompt="a dot", stream=True, extra_body={"seed": 9})
    said["edit streamed"] = [[type(event).__name__, event.size, event.seed] for event in stream]

refused = said["refused"] = []
for wrong in ({"model": "dall-e-3"}, {"n": 11}, {"size": "1x1"}, {"extra_body": {"nonsense": 1}}):
    try:
        client.images.generate(**{"prompt": "x", **wrong})
    except openai.APIStatusError as error:
        refused.append([type(error).__name__, error.param])
try:
    openai.OpenAI(base_url=url + "/v1", api_key="another", max_retries=0).models.list()
except openai.APIStatusError as error:
    refused.append([type(error).__name__, error.param])
print(json.dumps(said))
exec(open(documented).read(), {"print": lambda *words: None})
"""


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    """A studio behind a token."""
    with served(tmp_path_factory.mktemp("studio") / "s", token=TOKEN) as running:
        yield running


@pytest.mark.parametrize("folder", FOLDERS + INSTALLED)  # none of either is a skip
def test_every_call_works_unchanged(studio, tmp_path, folder):
    pixels = np.full((12, 16, 4), 255, np.uint8)
    Image.fromarray(pixels[..., :3]).save(tmp_path / "opaque.png")
    pixels[:, :8, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "holed.png")
    text = (Path(__file__).parents[2] / "docs" / "studio_api.md").read_text()
    (code,) = re.findall(r"```python\n# openai\n(.*?)```", text, flags=re.S)
    (tmp_path / "docs.py").write_text(code.replace("http://localhost:7860", studio.url).replace("unused", TOKEN))
    names = ("opaque.png", "holed.png", "docs.py")
    arguments = [studio.url, TOKEN, *(str(tmp_path / name) for name in names)]
    environ = {**os.environ, "NO_PROXY": "127.0.0.1"} | ({"PYTHONPATH": os.path.abspath(folder)} if folder else {})
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], env=environ, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    version, (edited,) = said.pop("version"), said.pop("edited")
    assert os.path.basename(folder) in (version, "")
    assert edited[0] == 6
    assert edited[1].startswith(f"{studio.url}/v1/images/files/")
    assert said == {
        "models": ["fake"], "model": "fake", "drawn": [[5, "89504e47"]] * 2, "own mask": 2, "varied": [7, 7],
        "streamed": [["ImageGenCompletedEvent", "16x12", 8]],
        "edit streamed": [["ImageEditCompletedEvent", "16x12", 9]],
        "refused": [["NotFoundError", "model"], ["BadRequestError", "n"], ["BadRequestError", "size"],
                    ["BadRequestError", "nonsense"], ["AuthenticationError", None]],
    }  # fmt: skip
