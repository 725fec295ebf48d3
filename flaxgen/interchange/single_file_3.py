"""Stable Diffusion 3 and 3.5 as one .safetensors file under the names of its authors' code, read and written; text
encoders that are not in the file are taken from model directories."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flaxgen.data import Data
from flaxgen.interchange.autoencoders import config_for, parts_of
from flaxgen.interchange.karlo.layout import whole_directory
from flaxgen.interchange.single_file import SINGLE, clip_tokenizer
from flaxgen.interchange.stable_diffusion_3 import TEXT, THIRD_TOKENIZER, make_config
from flaxgen.train.config import require
from flaxgen.weights import sd3_single, store
from flaxgen.weights.autoencoder import Imported
from flaxgen.weights.sd3_single import Single
from flaxgen.zoo.autoencoder import FAMILY as AUTOENCODER
from flaxgen.zoo.clip import FAMILY as CLIP
from flaxgen.zoo.clip import TOKENIZER
from flaxgen.zoo.clip import Config as ClipConfig
from flaxgen.zoo.latent import FAMILY, WHOLE
from flaxgen.zoo.latent.config import FLOW
from flaxgen.zoo.t5 import FAMILY as T5
from flaxgen.zoo.t5 import Config as T5Config
from flaxgen.zoo.t5 import read_pieces

ASKED = ("tokenizer", THIRD_TOKENIZER, "clip", "clip_2", "t5")
"""What may be said of a file that is not in it: folders of tokenizers, and model directories of text encoders."""
SHIFT = 3.0
"""Of the times that all published files are drawn with; `--set shift=` draws with others."""
PADS: Mapping[str, int | None] = {"clip": None, "clip_2": 0}
"""What text encoders pad with; None is the end token."""
UNKNOWN: dict[str, Any] = {"seed": 0, "steps": 1, "batch_size": 1, "data": Data(source="folder")}


def matches(place: Path) -> bool:
    """Whether this is such a file."""
    return sd3_single.is_single(store.read_header(place))


def import_single(path: Path, directory: Path, said: Mapping[str, str]) -> None:
    """Writes the model directory of a single file's parts, and of those that are `said` to lie elsewhere. Without a T5
    zeros stand where its states would.

    Raises:
        ValueError: if the file is of no kind that is known, a text encoder or a tokenizer is not there, or the
            directory is not empty.
    """
    for name in said:
        require(name in ASKED, f"--set {name}: such a file can be told {', '.join(ASKED)} alone")
    single = sd3_single.read_single(path, keep_dtype=True)
    first_stage = single.autoencoder
    with whole_directory(directory):
        described = config_for(first_stage.net, first_stage.params, first_stage.latents)
        AUTOENCODER.write_model(directory / "autoencoder", described, first_stage.params, 0)
        contexts = [_write_clip(name, single, path, directory, said) for name in PADS]
        names = ["autoencoder", *PADS, *(["t5"] if _write_t5(single, path, directory, said) else [])]
        FAMILY.write_model(directory / "denoiser", make_config(single.net, SHIFT, contexts[0]), single.params, 0)
        WHOLE.write_index(directory, (*names, "denoiser"))


def _write_clip(name: str, single: Single, path: Path, directory: Path, said: Mapping[str, str]) -> int:
    """A text encoder of the file, or that which lies elsewhere; how many tokens it reads."""
    if name in single.texts:
        net, params = single.texts[name]
        place = Path(said["tokenizer"]) if "tokenizer" in said else path.with_name("tokenizer")
        read = clip_tokenizer(place, net, path, PADS[name])
        described = ClipConfig(**UNKNOWN, net=net, normalise=False)
        CLIP.write_model(directory / name, described, params, 0, {TOKENIZER: read.to_json().encode()})
        return read.context
    require(name in said, f"{path} has no {sd3_single.TEXTS[name]}: say --set {name}=DIR, the part {name}/ of another "
            "model of Stable Diffusion 3 or XL, or take a file with its text encoders")  # fmt: skip
    found = CLIP.as_stored(CLIP.load(said[name]))
    CLIP.write_model(directory / name, found.config, found.params, 0, found.files)
    return found.tokenizer.context


def _write_t5(single: Single, path: Path, directory: Path, said: Mapping[str, str]) -> bool:
    """The T5 of the file, or that which lies elsewhere; whether there is one."""
    if single.t5 is not None:
        net, params = single.t5
        place = Path(said.get(THIRD_TOKENIZER, str(path.with_name(THIRD_TOKENIZER)))) / TOKENIZER
        require(place.is_file(), f"{path} has no tokenizer of its T5: say --set {THIRD_TOKENIZER}=DIR, the folder "
                f"of that name of any pipeline of version 3 ({place} is not there)")  # fmt: skip
        text = place.read_text("utf-8")
        read_pieces(text)
        T5.write_model(directory / "t5", T5Config(**UNKNOWN, net=net), params, 0, {TOKENIZER: text.encode()})
        return True
    if "t5" in said:
        found = T5.as_stored(T5.load(said["t5"]))
        T5.write_model(directory / "t5", found.config, found.params, 0, found.files)
        return True
    print(f"{path} has no T5 in it: zeros stand for its states (--set t5=DIR names one)", file=sys.stderr)
    return False


def export_single(model: Any, directory: Path) -> None:
    """Writes the single file of a model, with all its text encoders, and their tokenizers beside it.

    Raises:
        ValueError: naming what no file of this layout has, or if the directory is not empty.
    """
    parts = model.whole
    config, first_stage = parts.config, parts.autoencoder
    require(config.text == TEXT, f"{config.text}: such files are read with {TEXT}, not exported")
    require(config.process == FLOW, f"{config.process}: such files have {FLOW}, not exported")
    texts = dict(zip(parts.encoders, parts.clips, strict=True))
    third = parts.t5
    with whole_directory(directory):
        single = Single(
            config.net,
            dict(parts.denoiser.params),
            Imported(first_stage.config.net, dict(parts_of(first_stage)), first_stage.config.latents),
            {name: (clip.config.net, dict(clip.params)) for name, clip in texts.items()},
            None if third is None else (third.config.net, dict(third.params)),
        )
        sd3_single.write_single(directory / SINGLE, single)
        (directory / "tokenizer").mkdir()
        described = json.loads(parts.clips[0].tokenizer.to_json())
        (directory / "tokenizer" / TOKENIZER).write_text(json.dumps(described), "utf-8")
        if third is not None:
            (directory / THIRD_TOKENIZER).mkdir()
            (directory / THIRD_TOKENIZER / TOKENIZER).write_bytes(third.files[TOKENIZER])
