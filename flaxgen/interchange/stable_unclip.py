"""What pipelines of Stable unCLIP and of image variations have beside Stable Diffusion's parts: a CLIP's vision tower,
and how its embeddings get noise [Stability23; Pinkney22]."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from flaxgen.family.sampling import Sampling
from flaxgen.family.trained import Files
from flaxgen.interchange.clip_files import pixels_of
from flaxgen.interchange.karlo.layout import SCHEDULER, write_json
from flaxgen.interchange.schedulers import process_of, scheduler_config
from flaxgen.interchange.transformers import import_transformers
from flaxgen.train.config import require
from flaxgen.weights import store
from flaxgen.weights.clip import export_clip
from flaxgen.weights.clip_config import PREPROCESSOR
from flaxgen.weights.convert import write_folder
from flaxgen.zoo.clip import Config as ClipConfig
from flaxgen.zoo.latent.config import ImageEmbedding
from flaxgen.zoo.latent.statistics import stored_statistics, write_statistics

NOISED, SHOWN = "StableUnCLIPImg2ImgPipeline", "StableDiffusionImageVariationPipeline"
PIPELINES = (NOISED, SHOWN)
VISION, PIXELS = "image_encoder", "feature_extractor"
NORMALIZER, NOISING = "image_normalizer", "image_noising_scheduler"
STEM = "diffusion_pytorch_model"
"""The file of the embeddings' mean and deviation, each [1 D]."""
GUIDANCE, STEPS = {NOISED: 10.0, SHOWN: 7.5}, {NOISED: 20, SHOWN: 50}
"""What the pipelines draw with where nothing is said."""


def parts_of(name: str) -> set[str]:
    """The parts that such a pipeline has beside others."""
    return {NOISED: {VISION, PIXELS, NORMALIZER, NOISING}, SHOWN: {VISION, PIXELS}}.get(name, set())


def read_image_embedding(folder: Path, name: str) -> ImageEmbedding | None:
    """How the net of the pipeline called `name` reads embeddings of pictures, None where it does not.

    Raises:
        ValueError: naming what of the noise is not known.
        FileNotFoundError: if a file is not there.
    """
    if name not in PIPELINES:
        return None
    if name == SHOWN:
        return ImageEmbedding("token")
    return ImageEmbedding("vector", process_of(store.read_json(folder / NOISING / SCHEDULER)))


def read_vision(folder: Path) -> tuple[ClipConfig, Any]:
    """The vision tower's config and parameters.

    Raises:
        ValueError: if it is not one, or embeds in no common space.
        FileNotFoundError: if a file is not there.
    """
    described, params, _ = import_transformers(folder / VISION)
    net = described.net
    require(net.vision is not None and net.text is None and net.projected, f"{folder / VISION} is no vision tower with "
            "projection: expected a CLIPVisionModelWithProjection")  # fmt: skip
    return replace(described, normalise=False), params


def read_statistics(folder: Path, how: ImageEmbedding | None, width: int) -> Files:
    """The small file of the mean and deviation of embeddings that are so wide.

    Raises:
        ValueError: naming a tensor that is missing or extra, or if they are not rows of that width above 0.
        FileNotFoundError: if the file is not there.
    """
    if how is None or how.place == "token":
        return {}
    tensors = store.read_folder(folder / NORMALIZER, STEM)
    store.check_names(tensors, ("mean", "std"), str(folder / NORMALIZER))
    mean, std = (tensors[name] for name in ("mean", "std"))
    rows = mean.shape == std.shape == (1, width)
    require(
        rows, f"{folder / NORMALIZER}: mean {mean.shape} and std {std.shape}, expected (1, {width}), as the unet reads"
    )
    require(bool((std > 0).all()), f"{folder / NORMALIZER}: std has a number that is not above 0")
    return write_statistics(mean[0], std[0])


def write_beside(parts: Any, how: ImageEmbedding, directory: Path) -> Mapping[str, Any]:
    """Writes the folders of these parts; returns what the index says of them.

    Raises:
        ValueError: naming what diffusers has no counterpart of.
    """
    clip = parts.vision
    net = clip.config.net.clone(text=None)
    params = {name: clip.params[name] for name in ("vision", "image_projection")}
    export_clip(net, params, directory / VISION, pixels=pixels_of(clip.config.preprocess))
    (directory / PIXELS).mkdir()
    (directory / VISION / PREPROCESSOR).rename(directory / PIXELS / PREPROCESSOR)
    index = {VISION: ["transformers", "CLIPVisionModelWithProjection"], PIXELS: ["transformers", "CLIPImageProcessor"]}
    if how.place == "token":
        return index
    width = net.embedding_dim
    found = {name: value[None] for name, value in stored_statistics(parts.denoiser.files, width).items()}
    config = {"_class_name": "StableUnCLIPImageNormalizer", "embedding_dim": width}
    write_folder(directory / NORMALIZER, STEM, config, found)
    noising = scheduler_config(how.noise, Sampling(sampler="ddpm", threshold="none"), False)
    write_json(directory / NOISING / SCHEDULER, noising)
    return {
        **index,
        NORMALIZER: ["stable_diffusion", config["_class_name"]],
        NOISING: ["diffusers", noising["_class_name"]],
    }
