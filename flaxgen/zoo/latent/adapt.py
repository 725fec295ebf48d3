"""What is added to a model of latent diffusion for one request: LoRAs, and words of one's own [Hu22; Gal22]."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flaxgen.family.unread import changed
from flaxgen.train.config import require
from flaxgen.weights import store
from flaxgen.weights.lora import merge, read_lora
from flaxgen.zoo.latent.drawing import Parts

UNET = "unet"
"""What the net over latents is called in LoRA files."""
WORDS = ("clip_l", "clip_g")
"""What files of XL call the vectors of its two text encoders."""
merged_params = jax.jit(merge)
"""One program for LoRAs of the same shapes, whatever their strengths."""


def adapted(parts: Parts, loras: Sequence[str], words: Sequence[str]) -> Parts:
    """The parts with LoRAs, each "FILE" or "FILE:STRENGTH", and with words whose vectors are in files.

    Raises:
        ValueError, OSError: naming a file that cannot be read, or is of another model.
    """
    for file in words:
        parts = with_word(parts, Path(file))
    return with_loras(parts, [strength_of(said) for said in loras]) if loras else parts


def strength_of(said: str) -> tuple[Path, float]:
    """The file and the strength of "FILE:STRENGTH"; without a strength it is 1.

    Raises:
        ValueError: if the strength is no number.
    """
    path, colon, strength = said.rpartition(":")
    if not colon or "/" in strength or "\\" in strength or strength.endswith(".safetensors"):
        return Path(said), 1.0
    try:
        value = float(strength)
    except ValueError:
        value = math.nan
    require(math.isfinite(value), f"lora={said!r}: expected FILE or FILE:STRENGTH, such as cats.safetensors:0.8")
    return Path(path), value


def with_loras(parts: Parts, loras: Sequence[tuple[Path, float]]) -> Parts:
    """The parts with the LoRAs in their parameters. The sum is one compiled program for LoRAs of the same shapes,
    whatever their strengths, and what draws is compiled for parameters as they are: nothing of it compiles again."""
    models: dict[str, Any] = {UNET: parts.denoiser, **dict(zip(parts.encoders, parts.clips, strict=True))}
    targets = {name: model.config.net for name, model in models.items()}
    read = [(read_lora(path, targets), strength) for path, strength in loras]
    for name, model in models.items():
        factors = [(lora[name], np.float32(strength)) for lora, strength in read if name in lora]
        if factors:
            merge_in = functools.partial(merged_params, loras=factors)
            models[name] = dataclasses.replace(model, params=changed(model.params, merge_in))
    denoiser, *clips = models.values()
    return parts._replace(denoiser=denoiser, clips=tuple(clips))


def with_word(parts: Parts, path: Path) -> Parts:
    """The parts whose text encoders know one word more: that of a textual inversion, one vector or several in a row.

    Raises:
        ValueError: if the file is no textual inversion, or of another model.
    """
    word, vectors = read_word(path)
    return knowing(parts, word, vectors, str(path))


def knowing(parts: Parts, word: str, vectors: Sequence[np.ndarray], source: str) -> Parts:
    """The parts whose text encoders know one word more, of these vectors [k D] for each of them.

    Raises:
        ValueError: naming the `source` if they are of another model.
    """
    require(len(vectors) == len(parts.clips), f"{source} has vectors for {len(vectors)} text encoders, this model has "
            f"{len(parts.clips)}: it is of another model")  # fmt: skip
    known = [_knowing(clip, rows, source) for clip, rows in zip(parts.clips, vectors, strict=True)]
    clips, ids = zip(*known, strict=True)
    return parts._replace(clips=clips, words={**parts.words, word: ids})


def read_word(path: Path) -> tuple[str, list[np.ndarray]]:
    """The word of a file, and its vectors [k D] for each text encoder: diffusers' {word: vectors}, A1111's
    {"emb_params": vectors}, whose word is the file's name, and XL's {"clip_l": ..., "clip_g": ...}.

    Raises:
        ValueError: if it is none of them.
    """
    require(path.suffix == ".safetensors", f"{path}: expected a .safetensors file, as pickles are never read")
    tensors = {name: np.atleast_2d(value.astype(np.float32)) for name, value in store.read_file(path).items()}
    if tensors.keys() == set(WORDS):
        return path.stem, [tensors[name] for name in WORDS]
    require(
        len(tensors) == 1,
        f"{path} has the tensors {', '.join(sorted(tensors)[:4])}: expected one, or clip_l and clip_g, of a textual "
        "inversion",
    )
    [(name, value)] = tensors.items()
    return path.stem if name == "emb_params" else name, [value]


def _knowing(clip: Any, rows: np.ndarray, source: str) -> tuple[Any, range]:
    """The text encoder with these rows behind those of its tokens, and their ids."""
    tower = clip.config.net.text
    require(
        rows.shape[1] == tower.width,
        f"{source} has vectors {rows.shape[1]} wide, this model's text encoder has {tower.width}: it is of another "
        "model",
    )

    def longer(params):
        table = np.asarray(params["text"]["tokens"]["embedding"])
        return {**params, "text": {**params["text"], "tokens": {"embedding": np.concatenate([table, rows])}}}

    ids = range(tower.vocab_size, tower.vocab_size + len(rows))
    net = clip.config.net.clone(text=tower.clone(vocab_size=ids.stop))
    known = dataclasses.replace(clip.config, net=net)
    return dataclasses.replace(clip, config=known, params=changed(clip.params, longer)), ids
