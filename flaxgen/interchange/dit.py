"""DiT in diffusers' folders [Peebles23]: a net of patches that draws classes, and an autoencoder; read and written a
part at a time."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flaxgen import bounded_json
from flaxgen.data import Data
from flaxgen.family.denoising import Objective
from flaxgen.interchange.autoencoders import config_for, parts_of
from flaxgen.interchange.karlo.layout import INDEX, SCHEDULER, whole_directory, write_json
from flaxgen.interchange.schedulers import process_of, scheduler_config
from flaxgen.interchange.stable_diffusion import exported_autoencoder, parts_listed, sampling_as_piped, write_parts
from flaxgen.train.config import require
from flaxgen.weights import store
from flaxgen.weights.autoencoder import export_autoencoder, import_autoencoder
from flaxgen.weights.dit import export_dit, import_dit
from flaxgen.zoo.autoencoder import FAMILY as AUTOENCODER
from flaxgen.zoo.latent import FAMILY, Config
from flaxgen.zoo.latent.statistics import LABELS

PIPELINES = ("DiTPipeline",)
NAMES = "id2label"
"""Where an index says what classes are called, by their numbers."""
GUIDANCE = 4.0
"""What the pipeline draws with where nothing is said."""


def is_pipeline(folder: Path) -> bool:
    """Whether the folder is one of PIPELINES."""
    index = store.read_json(folder / INDEX) if (folder / INDEX).is_file() else {}
    return index.get("_class_name") in PIPELINES


def import_pipeline(folder: Path, directory: Path) -> None:
    """Writes the model directory of a pipeline's parts.

    Raises:
        ValueError: naming what is not known, or if the directory is not empty.
        FileNotFoundError: if a part's files are not there.
    """
    index = store.read_json(folder / INDEX)
    missing = {"transformer", "vae", "scheduler"} - parts_listed(folder, {"transformer", "vae", "scheduler"})
    require(not missing, f"{folder / INDEX} lists no {', '.join(sorted(missing))}: it cannot be drawn with")
    write_parts(directory, _parts(folder, index.get(NAMES)))


def _parts(folder: Path, names: Any) -> Iterator[tuple]:
    """Name, family, config, parameters and files of each part, one in memory at a time."""
    net, params, latents = import_autoencoder(folder / "vae", keep_dtype=True)
    yield "autoencoder", AUTOENCODER, config_for(net, params, latents), params, {}
    net, params = import_dit(folder / "transformer", keep_dtype=True)
    scheduler = store.read_json(folder / "scheduler" / SCHEDULER)
    loss = "hybrid" if net.learned_variance else "mse"
    config = Config(
        seed=0,
        steps=1,
        batch_size=1,
        data=Data(source="folder"),
        net=net,
        process=process_of(scheduler),
        objective=Objective(loss=loss, condition_dropout=0.1),
        sampling=sampling_as_piped(scheduler, GUIDANCE),
    )
    yield "denoiser", FAMILY, config, params, {LABELS: json.dumps(names).encode()} if names else {}


def export_pipeline(model: Any, directory: Path) -> None:
    """Writes a folder that diffusers' pipeline of the same parts reads; steps and guidance have no place in it.

    Raises:
        ValueError: naming what diffusers has no counterpart of, or if the directory is not empty.
    """
    parts = model.whole
    config, net = parts.config, exported_autoencoder(parts)
    require(not parts.clips, f"a {PIPELINES[0]} has no text encoder: not exported")
    files = parts.denoiser.files
    names = {NAMES: bounded_json.loads(files[LABELS])} if LABELS in files else {}
    scheduler = scheduler_config(config.process, config.sampling, False)
    kinds = {"transformer": "DiTTransformer2DModel", "vae": "AutoencoderKL", "scheduler": scheduler["_class_name"]}
    with whole_directory(directory):
        export_dit(config.net, parts.denoiser.params, directory / "transformer")
        export_autoencoder(net, parts_of(parts.autoencoder), parts.autoencoder.config.latents, directory / "vae")
        write_json(directory / "scheduler" / SCHEDULER, scheduler)
        listed = {name: ["diffusers", kind] for name, kind in kinds.items()}
        write_json(directory / INDEX, {"_class_name": PIPELINES[0], **listed, **names})
