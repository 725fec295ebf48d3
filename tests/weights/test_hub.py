"""Folders, ids in the local cache, and one line where the Hub cannot be reached."""

import huggingface_hub
import pytest
from huggingface_hub import constants

from flaxgen.weights import hub

COMMIT = "a" * 40


@pytest.fixture
def offline_cache(tmp_path, monkeypatch):
    """A Hub cache that holds owner/name at one commit, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repo = tmp_path / "models--owner--name"
    snapshot = repo / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    return snapshot


def test_a_folder_is_itself(tmp_path):
    assert hub.resolve(tmp_path) == tmp_path
    with pytest.raises(ValueError, match="revision='main' is for Hub ids"):
        hub.resolve(tmp_path, "main")


@pytest.mark.usefixtures("offline_cache")
@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_the_cache_serves_offline(revision, offline_cache):
    assert hub.resolve("owner/name", revision) == offline_cache


@pytest.mark.usefixtures("offline_cache")
@pytest.mark.parametrize(("name", "revision"), [("owner/other", None), ("owner/name", "v2")])
def test_unreachable_is_one_line(name, revision):
    with pytest.raises(OSError, match=f"^{name}.*cannot be reached") as caught:
        hub.resolve(name, revision)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "source", ["no/such/folder", "../x", "", "a b/c", "https://huggingface.co/a/b", "-x/y", "a--b/c..d"]
)
def test_what_is_no_id_is_named(source):
    with pytest.raises(ValueError, match="neither a folder nor a Hub id"):
        hub.resolve(source)


def test_only_data_is_asked_for(monkeypatch, tmp_path):
    """No pickles and no code."""
    asked = {}

    def record(name, *, revision, allow_patterns):
        asked.update(name=name, revision=revision, patterns=allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", record)
    assert hub.resolve("owner/name", "v1") == tmp_path
    assert (asked["name"], asked["revision"]) == ("owner/name", "v1")
    assert not {p for p in asked["patterns"] if p.endswith((".bin", ".pt", ".pth", ".ckpt", ".pkl", ".py", "*"))}
