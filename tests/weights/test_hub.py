"""Folders, ids in the local cache, and one line where the Hub cannot be reached."""

from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.utils import filter_repo_objects

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


PIPELINE = (
    "README.md",
    "model_index.json",
    "pipeline.py",
    "v1-pruned.safetensors",
    "unet/config.json",
    "unet/m-00001-of-00002.safetensors",
    "unet/m-00002-of-00002.safetensors",
    "unet/m.bin",
    "unet/m.fp16-00001-of-00001.safetensors",
    "unet/m.safetensors.index.fp16.json",
    "unet/m.safetensors.index.json",
    "unet/other.safetensors",
    "vae/config.json",
    "vae/m.fp16.safetensors",
    "tokenizer/merges.txt",
    "tokenizer/vocab.json",
)
CONTENT = {
    "unet/m.safetensors.index.json": '{"weight_map": {"a": "m-00001-of-00002.safetensors"}}',
    "unet/m.safetensors.index.fp16.json": '{"weight_map": {"a": "m.fp16-00001-of-00001.safetensors"}}',
}
TAG = "v1"


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A Hub with owner/name, which writes down what was downloaded of it, in this order."""
    downloaded = []

    def snapshot_download(name, *, revision, allow_patterns=None, dry_run=False):
        assert (name, revision) in (("owner/name", TAG), ("owner/name", COMMIT))
        if dry_run:
            return [SimpleNamespace(filename=file, commit_hash=COMMIT) for file in PIPELINE]
        assert revision == COMMIT, "a branch may have moved on since the first answer"
        for file in filter_repo_objects(PIPELINE, allow_patterns=allow_patterns):
            path = tmp_path / COMMIT / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(CONTENT.get(file, "{}"))
            downloaded.append(file)
        return str(tmp_path / COMMIT)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return downloaded


def test_configs_come_first_and_alone(repository):
    found = hub.locate("owner/name", TAG)
    assert (found.folder.name, set(found.names)) == (COMMIT, set(PIPELINE))
    assert repository == [
        "model_index.json",
        "unet/config.json",
        "unet/m.safetensors.index.fp16.json",
        "unet/m.safetensors.index.json",
        "vae/config.json",
    ]


def test_only_what_is_read_is_downloaded(repository):
    found = hub.locate("owner/name", TAG)
    repository.clear()
    assert found.fetch_weights("unet", "m") == found.folder / "unet"
    assert repository == ["unet/m-00001-of-00002.safetensors"]
    found.fetch_weights("unet", "m", "fp16")
    found.fetch_weights("vae", "m", "fp16")
    assert repository[1:] == ["unet/m.fp16-00001-of-00001.safetensors", "vae/m.fp16.safetensors"]
    repository.clear()
    assert found.fetch("tokenizer/*") == found.folder
    assert repository == ["tokenizer/merges.txt", "tokenizer/vocab.json"]


def test_variants_are_named_before_anything_is_downloaded(repository):
    found = hub.locate("owner/name", TAG)
    repository.clear()
    with pytest.raises(FileNotFoundError, match=r"^owner/name/vae has no m\.safetensors; .* variant='fp16'$"):
        found.fetch_weights("vae", "m")
    with pytest.raises(FileNotFoundError, match=r"^owner/name has no m\.safetensors$"):
        found.fetch_weights("", "m")
    assert not repository


def test_a_variant_comes_alone(repository):
    """With the plain weights of the parts that have none of it, and without those that it stands for."""
    found = hub.locate("owner/name", TAG)
    repository.clear()
    found.fetch_variant("fp16", "unet/*", "vae/*", "tokenizer/*")
    assert "unet/m.fp16-00001-of-00001.safetensors" in repository
    assert "vae/m.fp16.safetensors" in repository
    assert not {"unet/m.safetensors", "vae/m.safetensors"} & set(repository)
    assert "tokenizer/vocab.json" in repository
    with pytest.raises(ValueError, match="owner/name has no weights of --variant bf16; the variants there are: fp16"):
        found.fetch_variant("bf16", "*")


def test_neither_pickles_nor_code_are_downloaded(repository):
    hub.locate("owner/name", TAG).fetch("*")
    assert {file.rpartition(".")[2] for file in repository} == {"safetensors", "json", "txt"}


def test_without_patterns_the_plain_files_come(repository):
    """Without variants where the plain weights are, and without the single file of all that the folders hold."""
    assert hub.resolve("owner/name", TAG).name == COMMIT
    left = {"README.md", "pipeline.py", "v1-pruned.safetensors", "unet/m.bin", "unet/m.fp16-00001-of-00001.safetensors"}
    assert set(repository) == set(PIPELINE) - left
    repository.clear()
    hub.resolve("owner/name", TAG, ["unet/other.safetensors"])
    assert [file for file in repository if file.endswith(".safetensors")] == ["unet/other.safetensors"]


def test_old_names_of_shards_are_variants_too():
    names = ["m-00001-of-00001.safetensors", "m-00001-of-00001.fp16.safetensors", "a.b.safetensors"]
    assert hub.plain_files(names) == ["a.b.safetensors", "m-00001-of-00001.safetensors"]


def test_msgpack_is_for_repositories_without_safetensors():
    alone = ["config.json", "flax_model.msgpack", "tokenizer.json", "unet/m.safetensors"]
    assert hub.plain_files(alone) == alone
    beside = [*alone, "m.safetensors", "unet/flax_model.msgpack"]
    assert not any(name.endswith(".msgpack") for name in hub.plain_files(beside))


def test_a_folder_has_all_its_files(tmp_path):
    found = hub.locate(tmp_path)
    assert (found.fetch("*"), found.fetch_weights("unet", "m")) == (tmp_path, tmp_path / "unet")
