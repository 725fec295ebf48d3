"""`flaxgen push`, to a Hub that is a list of what it was given."""

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import LocalTokenNotFoundError

import flaxgen
from flaxgen import verbs
from flaxgen.cli import main


class Hub:
    """Repositories by name: a dict of the files of each."""

    def __init__(self):
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.commits = 0

    def create_repo(self, name, *, private, exist_ok):
        assert exist_ok
        if name not in self.repositories and private:
            self.private.add(name)
        self.repositories.setdefault(name, {})
        return f"https://hub/{name}"

    def file_exists(self, name, path):
        return path in self.repositories[name]

    def create_commit(self, name, operations, *, commit_message):
        assert commit_message
        self.commits += 1
        for operation in operations:
            with operation.as_file() as file:
                self.repositories[name][operation.path_in_repo] = file.read()


@pytest.fixture
def hub(monkeypatch):
    made = Hub()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: made)
    return made


def test_a_composite_goes_with_its_parts_and_a_card(hub, capsys):
    source = verbs.shipped()["dalle-scenes"]
    assert main(["push", str(source), "me/scenes", "--private"]) == 0
    assert capsys.readouterr().out == "pushed to https://hub/me/scenes\n"
    files = hub.repositories["me/scenes"]
    expected = {path.relative_to(source).as_posix(): path for path in source.rglob("*") if path.is_file()}
    assert set(files) == {*expected, "README.md"}
    assert all(files[name] == path.read_bytes() for name, path in expected.items())
    assert (hub.private, hub.commits) == ({"me/scenes"}, 1)
    card = files["README.md"].decode()
    assert card.startswith("---\nlibrary_name: flaxgen\ntags:\n- flaxgen\n")
    assert 'flaxgen.load("me/scenes")' in card
    assert 'model.draw("a caption"' in card
    assert str(source) not in card


def put_in_cache(files, snapshot):
    """The files of a repository, as the Hub's cache has them after a download."""
    for name, content in files.items():
        place = snapshot / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text(snapshot.name)


@pytest.mark.parametrize("name", ["dalle-scenes", "scene-codes"])
def test_what_was_pushed_is_loaded_by_its_id(name, hub, tmp_path, monkeypatch):
    verbs.push(name, "me/model")
    put_in_cache(hub.repositories["me/model"], tmp_path / "models--me--model" / "snapshots" / ("a" * 40))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    there, here = flaxgen.load("me/model"), flaxgen.load(name)
    assert (type(there), there.fingerprint) == (type(here), here.fingerprint)


def test_a_card_that_is_there_stays_and_what_is_no_model_file_does_not_go(hub, tmp_path):
    source = tmp_path / "model"
    source.mkdir()
    for path in verbs.shipped()["scene-codes"].iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    (source / "secrets.txt").write_text("no")
    hub.repositories["me/codes"] = {"README.md": b"mine"}
    assert main(["push", str(source), "me/codes"]) == 0
    assert hub.repositories["me/codes"]["README.md"] == b"mine"
    assert "secrets.txt" not in hub.repositories["me/codes"]
    assert {"config.json", "model.safetensors"} <= set(hub.repositories["me/codes"])


def test_bad_input_is_one_line(hub, tmp_path, monkeypatch, capsys):
    def refuse(*_, **__):
        raise LocalTokenNotFoundError("long story")

    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_bytes((verbs.shipped()["scene-codes"] / "config.json").read_bytes())
    monkeypatch.setattr(hub, "create_repo", refuse)
    for arguments, said in (
        ([str(tmp_path / "none"), "me/a"], "no run or model directory"),
        ([str(run), "me/a"], "is a run: write a model of it with `flaxgen export`"),
        (["scene-codes", "scenes"], "'scenes' is no Hub id: expected user/name"),
        (["scene-codes", "me/a"], "the Hub asks for a token: log in by `hf auth login`, or set HF_TOKEN"),
    ):
        assert main(["push", *arguments]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1
        assert said in lines[0]
    assert hub.commits == 0
