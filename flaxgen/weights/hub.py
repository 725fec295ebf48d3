"""Model folders by path or by Hugging Face Hub id."""

import re
from pathlib import Path

FILES = ("*.safetensors", "*.json", "*.model", "*vocab.txt", "*merges.txt")
"""Weights, configs and tokenizer files; never pickles, never code."""


def resolve(source: str | Path, revision: str | None = None) -> Path:
    """The folder `source`, or of the Hub repository of that id its files in the local cache, downloaded if need be.

    `revision` is a branch, tag or commit. With HF_HUB_OFFLINE=1 only the cache is looked at.

    Raises:
        ValueError: if `source` is neither a folder nor a Hub id, or a revision is given for a folder.
        OSError: if the Hub, the repository or the revision cannot be reached.
    """
    folder, name = Path(source), str(source)
    if name and folder.is_dir():
        if revision is not None:
            raise ValueError(f"revision={revision!r} is for Hub ids, but {source} is a folder")
        return folder
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name) or "--" in name or ".." in name:
        raise ValueError(f"{name!r} is neither a folder nor a Hub id like owner/name")
    return _download(name, revision)


def _download(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download  # slow to import
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    where = name if revision is None else f"{name} at {revision!r}"
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(FILES)))
    except LocalEntryNotFoundError as error:
        raise OSError(
            f"{where} is not a folder, not in the local Hub cache, and the Hub cannot be reached (offline?)"
        ) from error
    except HfHubHTTPError as error:
        raise OSError(f"the Hub does not give {where}: {str(error).splitlines()[0]}") from error
