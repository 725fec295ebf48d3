"""Stable Diffusion 3 and 3.5 in diffusers' folders [Esser24]: a net of patches, two CLIPs, and a T5 where there is one;
read and written a part at a time."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from flaxgen.data import Data
from flaxgen.family.denoising import Objective
from flaxgen.family.sampling import Sampling
from flaxgen.interchange.autoencoders import config_for, parts_of
from flaxgen.interchange.karlo.layout import INDEX, SCHEDULER, whole_directory, write_json
from flaxgen.interchange.stable_diffusion import (
    ENCODERS,
    exported_autoencoder,
    parts_listed,
    read_encoders,
    write_encoder,
    write_parts,
)
from flaxgen.nets.mmdit import MMDiT
from flaxgen.train.config import require
from flaxgen.weights import store
from flaxgen.weights.autoencoder import export_autoencoder, import_autoencoder
from flaxgen.weights.mmdit import export_mmdit, import_mmdit, mmdit_from_config
from flaxgen.weights.scheduler_config import FLOW_EULER
from flaxgen.weights.t5 import export_t5, import_t5
from flaxgen.zoo.autoencoder import FAMILY as AUTOENCODER
from flaxgen.zoo.latent import FAMILY, Config, Text
from flaxgen.zoo.latent.config import FLOW, FLOW_SOLVERS
from flaxgen.zoo.t5 import END, PAD, TOKENIZER, read_pieces
from flaxgen.zoo.t5 import FAMILY as T5
from flaxgen.zoo.t5 import Config as T5Config

PIPELINES = tuple(f"StableDiffusion3{kind}Pipeline" for kind in ("", "Img2Img", "Inpaint"))
THIRD, THIRD_TOKENIZER = "text_encoder_3", "tokenizer_3"
TEXT = Text(skip=1, normed=False, pooled="all", t5_places=256)
STEPS, GUIDANCE = 28, 7.0
"""What the pipelines draw with where nothing is said."""
CONTEXT = 77


def is_pipeline(folder: Path) -> bool:
    """Whether the folder is one of PIPELINES."""
    index = store.read_json(folder / INDEX) if (folder / INDEX).is_file() else {}
    return index.get("_class_name") in PIPELINES


def import_pipeline(folder: Path, directory: Path) -> None:
    """Writes the model directory of a pipeline's parts. Without a T5 zeros stand where its states would.

    Raises:
        ValueError: naming what is not known or does not belong together, or if the directory is not empty.
        FileNotFoundError: if a part's files are not there.
    """
    beside = {name.replace("text_encoder", "tokenizer") for name in (*ENCODERS.values(), THIRD)}
    listed = parts_listed(folder, {"transformer", "vae", "scheduler", *ENCODERS.values(), THIRD, *beside})
    missing = {"transformer", "vae", *ENCODERS.values()} - listed
    require(not missing, f"{folder / INDEX} lists no {', '.join(sorted(missing))}: it cannot be drawn with")
    if THIRD in listed and not (folder / THIRD / "config.json").is_file():
        print(f"{folder} has no {THIRD}/: zeros stand for the states of its T5", file=sys.stderr)
        listed = listed - {THIRD}
    tower = store.read_json(folder / ENCODERS["clip"] / "config.json")
    config = make_config(
        mmdit_from_config(store.read_json(folder / "transformer" / "config.json")),
        shift_of(folder / "scheduler" / SCHEDULER),
        tower.get("max_position_embeddings", CONTEXT),
    )
    write_parts(directory, _parts(folder, listed, config))


def shift_of(path: Path) -> float:
    """The shift of times that a scheduler_config.json says.

    Raises:
        ValueError: naming what has no counterpart.
    """
    described = store.read_json(path)
    return FLOW_EULER.read(described, SCHEDULER)["shift"]


def _parts(folder: Path, listed: set[str], config: Config) -> Iterator[tuple]:
    """Name, family, config, parameters and files of each part, one in memory at a time."""
    net, params, latents = import_autoencoder(folder / "vae", keep_dtype=True)
    yield "autoencoder", AUTOENCODER, config_for(net, params, latents), params, {}
    yield from read_encoders(folder, listed)
    if THIRD in listed:
        yield "t5", T5, *_read_t5(folder)
    net, params = import_mmdit(folder / "transformer", keep_dtype=True)
    yield "denoiser", FAMILY, replace(config, net=net), params, {}


def _read_t5(folder: Path) -> tuple[T5Config, dict[str, Any], dict[str, bytes]]:
    path = folder / THIRD_TOKENIZER / TOKENIZER
    require(
        path.is_file(),
        f"{folder} has a {THIRD} and no {THIRD_TOKENIZER}/{TOKENIZER}, without which it reads no captions: make it "
        f"with transformers' T5TokenizerFast, or delete {THIRD}/ to draw without it",
    )
    text = path.read_text("utf-8")
    read_pieces(text)
    net, params = import_t5(folder / THIRD, keep_dtype=True)
    described = T5Config(seed=0, steps=1, batch_size=1, data=Data(source="folder"), net=net)
    return described, params, {TOKENIZER: text.encode()}


def make_config(net: MMDiT, shift: float, context: int) -> Config:
    """A config of an imported net; training goes on with the times that the authors say. Other fields about training
    are not known and hold defaults."""
    sampling = Sampling(**FLOW_SOLVERS["euler"], steps=STEPS, guidance=GUIDANCE, threshold="none", shift=shift, batch=8)
    return Config(
        seed=0,
        steps=1,
        batch_size=1,
        data=Data(source="folder"),
        net=net,
        context=context,
        text=TEXT,
        process=FLOW,
        objective=Objective(times="logit_normal", shift=shift, condition_dropout=0.1),
        sampling=sampling,
    )


def export_pipeline(model: Any, directory: Path) -> None:
    """Writes a folder that diffusers' pipeline of the same parts reads; steps and guidance have no place in it.

    Raises:
        ValueError: naming what diffusers has no counterpart of, or if the directory is not empty.
    """
    parts = model.whole
    config, net = parts.config, exported_autoencoder(parts)
    require(parts.encoders == tuple(ENCODERS), f"{PIPELINES[0]} has the two text encoders {' and '.join(ENCODERS)}, "
            f"and this model {' and '.join(parts.encoders) or 'none'}: not exported")  # fmt: skip
    require(config.text == TEXT, f"{config.text}: {PIPELINES[0]} reads {TEXT}, not exported")
    require(config.process == FLOW, f"{config.process}: {PIPELINES[0]} has {FLOW}, not exported")
    sampling = config.sampling
    for field, value in FLOW_SOLVERS["euler"].items():
        require(getattr(sampling, field) == value, f"sampling.{field}={getattr(sampling, field)}: a {FLOW_EULER.name} "
                f"has {value}, not exported")  # fmt: skip
    index: dict[str, Any] = {"_class_name": PIPELINES[0], "transformer": ["diffusers", "SD3Transformer2DModel"]}
    index |= {"scheduler": ["diffusers", FLOW_EULER.name], "vae": ["diffusers", "AutoencoderKL"]}
    with whole_directory(directory):
        export_mmdit(config.net, parts.denoiser.params, directory / "transformer")
        export_autoencoder(net, parts_of(parts.autoencoder), parts.autoencoder.config.latents, directory / "vae")
        for name, place in ENCODERS.items():
            index |= write_encoder(model.parts[name], directory, place)
        index |= _write_t5(parts.t5, directory)
        write_json(directory / "scheduler" / SCHEDULER, FLOW_EULER.write({"shift": sampling.shift}))
        write_json(directory / INDEX, index)


def _write_t5(model: Any, directory: Path) -> dict[str, list[str | None]]:
    """The T5 and its tokenizer, where there is one, and what the index says of them."""
    if model is None:
        return {THIRD: [None, None], THIRD_TOKENIZER: [None, None]}
    export_t5(model.config.net, model.params, directory / THIRD)
    place = directory / THIRD_TOKENIZER
    place.mkdir()
    (place / TOKENIZER).write_bytes(model.files[TOKENIZER])
    kind = "PreTrainedTokenizerFast"
    stated = {"tokenizer_class": kind, "eos_token": END, "pad_token": PAD, "model_max_length": TEXT.t5_places}
    store.write_json(place / "tokenizer_config.json", stated)
    return {THIRD: ["transformers", "T5EncoderModel"], THIRD_TOKENIZER: ["transformers", kind]}
