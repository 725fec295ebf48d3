"""Models by folder or by Hugging Face Hub id; of a repository only the files that are asked for are downloaded."""

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path
from typing import NamedTuple

from flaxgen.weights import store
from flaxgen.weights.variants import of_variant, variants_in

CONFIGS = ("*config.json", "*model_index.json", "*.safetensors.index*.json")
"""What says what a repository holds."""
FILES = ("*.safetensors", "*.msgpack", "*.json", "*.model", "*vocab.txt", "*merges.txt")
"""Weights, configs and tokenizer files; never pickles, never code."""


class Source(NamedTuple):
    """The folder of a model. If it is of a Hub `repository`, at one commit, `names` are those of all files there, which
    come into the folder when they are asked for."""

    folder: Path
    repository: str | None = None
    names: tuple[str, ...] = ()

    def fetch(self, *patterns: str) -> Path:
        """The folder, with those of its files that match (`*` matches `/` too) and are none but FILES.

        Raises:
            OSError: if the Hub cannot be reached and the cache lacks them.
        """
        if self.repository is not None:
            data = _matching(_matching(self.names, FILES), patterns)
            _download(self.repository, self.folder.name, map(escape, data))
        return self.folder

    def fetch_plain(self, *patterns: str) -> Path:
        """The folder, with those of `plain_files` that match.

        Raises:
            OSError: as `fetch`.
        """
        return self.fetch(*map(escape, _matching(plain_files(self.names), patterns)))

    def fetch_variant(self, variant: str, *patterns: str) -> Path:
        """The folder, with `plain_files` that match, but the weights of a variant where there are such.

        Raises:
            ValueError: if there are none, naming the variants that there are.
            OSError: as `fetch`.
        """
        if self.repository is not None:
            chosen = of_variant(_matching(self.names, FILES), variant, self.repository).values()
            others = set(self.names) - set(plain_files(self.names))
            kept = [name for name in chosen if name not in others or variant in variants_in([name])]
            self.fetch(*map(escape, _matching(kept, patterns)))
        return self.folder

    def fetch_weights(self, part: str, stem: str, variant: str | None = None) -> Path:
        """The folder of a `part` such as "unet", "" for the whole, with the files that `store.open_folder` reads.

        Raises:
            FileNotFoundError: as `store.open_folder`, before anything is downloaded.
            OSError: as `fetch`.
        """
        folder, prefix = self.folder / part, f"{part}/" if part else ""
        if self.repository is not None:
            inside = [name.removeprefix(prefix) for name in self.names if name.rpartition("/")[0] == part]
            found = store.find_weights(inside, stem, variant, f"{self.repository}/{part}".rstrip("/"))
            shards = set(store.read_index(folder / found).values()) if found.endswith(".json") else {found}
            self.fetch(*(escape(prefix + name) for name in shards))
        return folder


def locate(source: str | Path, revision: str | None = None) -> Source:
    """The folder `source`, or the Hub repository of that id, of which only the configs are downloaded.

    `revision` is a branch, tag or commit. With HF_HUB_OFFLINE=1 only the cache is looked at.

    Raises:
        ValueError: if `source` is neither a folder nor a Hub id, or a revision is given for a folder.
        OSError: if the Hub, the repository or the revision cannot be reached.
    """
    folder, name = Path(source), str(source)
    if name and folder.is_dir():
        if revision is not None:
            raise ValueError(f"revision={revision!r} is for Hub ids, but {source} is a folder")
        return Source(folder)
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name) or "--" in name or ".." in name:
        raise ValueError(f"{name!r} is neither a folder nor a Hub id like owner/name")
    listed = _list(name, revision)
    if listed is not None:
        names, commit = listed
        return Source(_download(name, commit, map(escape, _matching(names, CONFIGS))), name, names)
    folder = _download(name, revision, CONFIGS)
    cached = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file())
    return Source(folder, name, tuple(cached))


def resolve(source: str | Path, revision: str | None = None, files: Iterable[str] | None = None) -> Path:
    """The folder `source`, or of the Hub repository of that id its files in the local cache, downloaded if need be.

    `files` are patterns of names; None is what a model is read from when nothing else is asked for: no variants of
    weights such as fp16 where there are plain ones, no weights beside the folders of a pipeline, no msgpack beside
    safetensors.

    Raises:
        ValueError, OSError: as `locate`.
    """
    found = locate(source, revision)
    return found.fetch(*(map(escape, plain_files(found.names)) if files is None else files))


def plain_files(names: Iterable[str]) -> list[str]:
    """Of the names of a repository's files, those that `resolve` downloads without patterns."""
    names = set(names)
    return sorted(
        name
        for name in _matching(names, FILES)
        if not _is_variant(name, names)
        and not ("model_index.json" in names and "/" not in name and name.endswith(".safetensors"))
        and not (name.endswith(".msgpack") and _beside(name, names, ".safetensors"))
    )


def _beside(name: str, names: set[str], ending: str) -> bool:
    """Whether a file of that ending is in the same folder."""
    folder = name.rpartition("/")[0]
    return any(other.endswith(ending) and other.rpartition("/")[0] == folder for other in names)


def _is_variant(name: str, names: set[str]) -> bool:
    """Whether there are plain weights beside these; shards of a variant are `m.fp16-00001-of-00002.safetensors` or
    `m-00001-of-00002.fp16.safetensors`."""
    match = re.fullmatch(r"(.+)\.\w+(-\d+-of-\d+)?\.safetensors", name)
    plain = () if match is None else (f"{match[1]}.safetensors", f"{match[1]}.safetensors.index.json")
    return any(other in names for other in plain)


def upload(folder: Path, name: str, *, card: str, private: bool = False) -> str:
    """Puts the files of a model directory, and a card, into the Hub repository `name` in one commit; it is made if it
    is not there, and its card stays if it has one. Returns its address.

    The token is the one of `hf auth login`, or HF_TOKEN.

    Raises:
        ValueError: if `name` is no Hub id.
        OSError: if the Hub cannot be reached, or refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi  # slow to import
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name):
        raise ValueError(f"{name!r} is no Hub id: expected user/name")
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    paths = [path for path in paths if any(fnmatchcase(path.name, pattern) for pattern in FILES)]
    added = [CommitOperationAdd(path.relative_to(folder).as_posix(), path) for path in paths]
    api = HfApi()
    try:
        address = api.create_repo(name, private=private, exist_ok=True)
        if not api.file_exists(name, "README.md"):
            added.append(CommitOperationAdd("README.md", card.encode()))
        api.create_commit(name, added, commit_message="Model written by flaxgen")
    except LocalTokenNotFoundError as error:
        raise OSError("the Hub asks for a token: log in by `hf auth login`, or set HF_TOKEN") from error
    except HfHubHTTPError as error:
        raise OSError(f"the Hub does not take {name}: {str(error).splitlines()[0]}") from error
    return str(address)


def _matching(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    patterns = tuple(patterns)
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def _list(name: str, revision: str | None) -> tuple[tuple[str, ...], str | None] | None:
    """All files of a repository, and the commit; None where the Hub does not say, and the cache has to do."""
    from huggingface_hub import snapshot_download  # slow to import
    from huggingface_hub.errors import DryRunError

    try:
        files = snapshot_download(name, revision=revision, dry_run=True)
    except (DryRunError, OSError):
        return None
    return tuple(sorted(file.filename for file in files)), files[0].commit_hash if files else revision


def _download(name: str, revision: str | None, patterns: Iterable[str]) -> Path:
    from huggingface_hub import snapshot_download  # slow to import
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    where = name if revision is None else f"{name} at {revision!r}"
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except LocalEntryNotFoundError as error:
        raise OSError(
            f"{where} is not a folder, not in the local Hub cache, and the Hub cannot be reached (offline?)"
        ) from error
    except HfHubHTTPError as error:
        raise OSError(f"the Hub does not give {where}: {str(error).splitlines()[0]}") from error
