"""Every command that README.md and docs/ show is one that the parsers take."""

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from flaxgen import cli, verbs
from flaxgen.cli import requests
from flaxgen.family.pictures import read_about
from flaxgen.family.request import to_json
from flaxgen.train import config as configs

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
FAMILIES = {
    "models/sd": "latent_diffusion", "models/sd_canny": "latent_diffusion", "models/xl": "latent_diffusion",
    "models/xl_refined": "latent_diffusion", "models/karlo": "unclip", "models/cifar10": "diffusion",
    "models/kl": "autoencoder", "models/ffhq": "gan", "scenes": "unclip", "dalle-scenes": "dalle1",
    "scene-codes": "autoencoder",
}  # fmt: skip
"""What the models that the pages speak of are."""


@pytest.fixture(scope="module")
def parser():
    return cli.make_parser()


def commands(page: str, inline: bool = False) -> list[list[str]]:
    """The arguments of `flaxgen` in blocks of commands, and in the rows of tables too; none that an ellipsis cuts."""
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```(?:bash|console)?\n(.*?)^```", text, flags=re.S | re.M)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    if inline:
        rows = "\n".join(line for line in text.splitlines() if line.startswith("|"))
        lines += re.findall(r"`(flaxgen [^`]+)`", rows)
    split = [shlex.split(line, comments=True) for line in lines if line.startswith("flaxgen ") and "..." not in line]
    return [words[1 : words.index("&") if "&" in words else None] for words in split]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_is_one(parser, page):
    for arguments in commands(page, inline=page == "docs/coming_from.md"):
        try:
            parser.parse_args(arguments)
        except SystemExit as error:
            raise AssertionError(f"{page}: flaxgen {shlex.join(arguments)}") from error


def test_a_flag_that_is_not_there_is_found(parser, capsys):
    with pytest.raises(SystemExit):
        parser.parse_args(["draw", "a cat", "--negative-prompt", "dogs"])
    assert "--negative-prompt" in capsys.readouterr().err


def request_of(parsed):
    """What a command asks of the model that it names; None of commands that ask models nothing, or of a run's."""
    family = FAMILIES.get(getattr(parsed, "model", "scenes")) if hasattr(parsed, "kinds") else None
    if family is None:
        return None
    fields = {name for one in parsed.kinds.values() for name in requests._flags({"": one})}
    given = {name: value for name, value in vars(parsed).items() if name in fields}
    return requests.read_request(parsed.kinds[family], given, family)


@pytest.mark.parametrize("page", ["docs/coming_from.md", "docs/gallery.md"])
def test_models_have_the_settings_that_they_are_asked_for(parser, page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = commands(page, inline=True)
    for name in {word for arguments in found for word in arguments if word.endswith(".png")}:
        Image.new("RGB", (64, 64), "white").save(name)
    asked = [request_of(parser.parse_args(arguments)) for arguments in found]
    assert len([request for request in asked if request is not None]) > 8


def wherever(request):
    """A request whose pictures are called by their names, as another clone is another folder."""
    if isinstance(request, list):
        return [wherever(each) for each in request]
    if not isinstance(request, dict):
        return request
    return {key: Path(value).name if key == "path" else wherever(value) for key, value in request.items()}


def test_pictures_of_the_gallery_are_those_of_their_commands(parser, monkeypatch):
    gallery = ROOT / "docs" / "gallery"
    monkeypatch.chdir(gallery)
    for arguments in commands("docs/gallery.md"):
        parsed = parser.parse_args(arguments)
        drawn, asked = read_about(gallery / parsed.out)["request"], to_json(request_of(parsed))
        assert wherever(drawn) == wherever(asked), parsed.out
    shown = re.findall(r"\]\(gallery/([\w.]+)\)", (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8"))
    assert {*shown} <= {path.name for path in gallery.iterdir()}
    assert sum(path.stat().st_size for path in gallery.iterdir()) < 1_000_000


def test_what_is_set_in_trainings_can_be_set(parser, monkeypatch):
    monkeypatch.chdir(ROOT)
    trained = 0
    for arguments in commands("docs/coming_from.md", inline=True):
        if arguments[0] == "train":
            parsed = parser.parse_args(arguments)
            configs.override(verbs.read_experiment(parsed.experiment), parsed.set)
            trained += 1
    assert trained > 8
