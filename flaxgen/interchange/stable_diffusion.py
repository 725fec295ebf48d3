"""Stable Diffusion in diffusers' folders, of versions 1, 2 and XL, for drawing, refining and inpainting [Rombach22;
Podell23], and Stable unCLIP: read and written a part at a time."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from flaxgen.data import Data
from flaxgen.family.denoising import Objective
from flaxgen.family.process import Process
from flaxgen.family.sampling import Sampling
from flaxgen.interchange import stable_unclip
from flaxgen.interchange.autoencoders import config_for, parts_of
from flaxgen.interchange.clip_files import write_clip_tokenizer
from flaxgen.interchange.karlo.layout import INDEX, SCHEDULER, whole_directory, write_json
from flaxgen.interchange.schedulers import process_of, sampling_of, scheduler_config
from flaxgen.interchange.transformers import import_transformers
from flaxgen.nets.autoencoder import Autoencoder
from flaxgen.nets.unet import UNet
from flaxgen.train.config import require
from flaxgen.weights import store
from flaxgen.weights.autoencoder import export_autoencoder, import_autoencoder
from flaxgen.weights.clip import export_clip
from flaxgen.weights.unet_condition import export_unet_condition, import_unet_condition
from flaxgen.weights.unet_condition_config import PROJECTION, SIZED, unet_from_condition_config
from flaxgen.zoo.autoencoder import FAMILY as AUTOENCODER
from flaxgen.zoo.clip import FAMILY as CLIP
from flaxgen.zoo.latent import FAMILY, WHOLE, Config, Text
from flaxgen.zoo.latent.config import reads_text
from flaxgen.zoo.latent.control import NAMES as CONTROLNETS
from flaxgen.zoo.latent.statistics import SCALES

NAMES = ("StableDiffusion{}Pipeline", "StableDiffusion{}Img2ImgPipeline", "StableDiffusion{}InpaintPipeline")
PIPELINES = (*(name.format(kind) for kind in ("", "XL") for name in NAMES), *stable_unclip.PIPELINES)
ENCODERS = {"clip": "text_encoder", "clip_2": "text_encoder_2"}
"""The folders of text encoders, by the part that each becomes."""
UNREAD = ("safety_checker", "feature_extractor", "image_encoder")
"""Parts that draw nothing."""
STEPS, GUIDANCE, GUIDANCE_XL, GUIDANCE_DISTILLED = 50, 7.5, 5.0, 8.5
"""What the pipelines draw with where nothing is said."""
SIGMA_SAMPLERS = ("euler", "euler_ancestral", "heun")
"""Those that begin with the noise of their first time, unless their grid is leading."""


def is_pipeline(folder: Path) -> bool:
    """Whether the folder is one of PIPELINES, with its net."""
    index = store.read_json(folder / INDEX) if (folder / INDEX).is_file() else {}
    return index.get("_class_name") in PIPELINES and "unet" in index


def parts_listed(folder: Path, known: set[str]) -> set[str]:
    """The parts that a pipeline has; a line on stderr names those that draw nothing.

    Raises:
        ValueError: if it has one that is not `known`.
    """
    index = store.read_json(folder / INDEX)
    listed = {name for name, part in index.items() if isinstance(part, list) and part != [None, None]}
    left = [name for name in UNREAD if name in listed - known]
    extra = ", ".join(sorted(listed - known - set(left)))
    require(not extra, f"{folder / INDEX}: {extra} has no counterpart here")
    if left:
        print(f"{folder}: {', '.join(left)} draws nothing and is not taken", file=sys.stderr)
    return listed


def import_pipeline(folder: Path, directory: Path) -> None:
    """Writes the model directory of a pipeline's parts.

    Raises:
        ValueError: naming what is not known or does not belong together, or if the directory is not empty.
        FileNotFoundError: if a part's files are not there.
    """
    index = store.read_json(folder / INDEX)
    known = {"unet", "vae", "scheduler", *ENCODERS.values(), "tokenizer", "tokenizer_2"}
    listed = parts_listed(folder, known | stable_unclip.parts_of(index["_class_name"]))
    config = _config(folder, index, listed)
    write_parts(directory, _parts(folder, listed, config))


def write_parts(directory: Path, parts: Iterable[tuple]) -> None:
    """Writes the model directory of parts, each its name, family, config, parameters and files; where one cannot be
    read, nothing stays.

    Raises:
        ValueError: if the directory is not empty.
    """
    with whole_directory(directory):
        names = []
        for name, family, described, params, files in parts:
            family.write_model(directory / name, described, params, 0, files)
            names.append(name)
        WHOLE.write_index(directory, tuple(names))


def _parts(folder: Path, listed: set[str], config: Config) -> Iterator[tuple]:
    """Name, family, config, parameters and files of each part, one in memory at a time."""
    net, params, latents = import_autoencoder(folder / "vae", keep_dtype=True)
    yield "autoencoder", AUTOENCODER, config_for(net, params, latents), params, {}
    yield from read_encoders(folder, listed)
    net, params = import_unet_condition(folder / "unet", keep_dtype=True)
    net, how = net.clone(image_size=net.image_size or config.net.image_size), config.image_embedding
    yield (
        "denoiser",
        FAMILY,
        replace(config, net=net),
        params,
        stable_unclip.read_statistics(folder, how, net.vector_dim // 2),
    )
    if how is not None:
        yield "vision", CLIP, *stable_unclip.read_vision(folder), {}


def read_encoders(folder: Path, listed: set[str]) -> Iterator[tuple]:
    """Name, family, config, parameters and files of each text encoder."""
    for name, place in ENCODERS.items():
        if place in listed:
            described, params, files = import_transformers(folder / place)
            require(
                bool(files), f"{folder} has no {place.replace('text_encoder', 'tokenizer')}/: it cannot be drawn with"
            )
            described = replace(described, normalise=False)
            yield name, CLIP, described, params, files


def _config(folder: Path, index: Mapping[str, Any], listed: set[str]) -> Config:
    """What is known of the whole before any weights are read."""
    described = store.read_json(folder / "unet" / "config.json")
    net, is_xl = unet_from_condition_config(described), "text_encoder_2" in listed
    name, how = index["_class_name"], stable_unclip.read_image_embedding(folder, index["_class_name"])
    is_sized, is_projected = net.vector_dim > 0 and how is None, how is not None and how.place == "vector"
    kind = described.get("class_embed_type")
    require(
        (kind is not None) == is_projected, f"{folder}: class_embed_type={kind!r} of its unet does not go with a {name}"
    )
    encoder = ENCODERS["clip_2"] if is_xl else ENCODERS["clip"]
    is_alone = name == stable_unclip.SHOWN
    require(is_alone or encoder in listed, f"{folder / INDEX} lists no {encoder}: it cannot be drawn with")
    config = make_config(
        net,
        store.read_json(folder / "scheduler" / SCHEDULER),
        1 if is_alone else store.read_json(folder / encoder / "config.json").get("max_position_embeddings", 77),
        sizes=(5 if index.get("requires_aesthetics_score") else 6) if is_sized else 0,
        zero_empty=bool(index.get("force_zeros_for_empty_prompt", True)),
    )
    if how is None:
        return config
    usual = {"guidance": stable_unclip.GUIDANCE[name], "steps": stable_unclip.STEPS[name]}
    return replace(config, image_embedding=how, sampling=replace(config.sampling, **usual))


def make_config(
    net: UNet, scheduler: Mapping[str, Any], context: int, *, sizes: Literal[0, 5, 6], zero_empty: bool
) -> Config:
    """A config of an imported net; with `sizes` it is XL's. Fields about training are not known and hold defaults."""
    sampling = sampling_as_piped(scheduler, GUIDANCE_XL if sizes else GUIDANCE)
    if net.guidance_dim:
        sampling = replace(sampling, guidance=GUIDANCE_DISTILLED)
    return Config(
        seed=0,
        steps=1,
        batch_size=1,
        data=Data(source="folder"),
        net=net,
        context=context,
        text=Text(skip=1, normed=False, zero_empty=zero_empty) if sizes else Text(),
        sizes=sizes,
        process=process_of(scheduler),
        objective=Objective(condition_dropout=0.1),
        sampling=sampling,
    )


def sampling_as_piped(scheduler: Mapping[str, Any], guidance: float) -> Sampling:
    """How a pipeline of latent diffusion draws with its scheduler."""
    sampling = sampling_of(scheduler, False)
    follows = sampling.sampler in SIGMA_SAMPLERS and not sampling.grid.startswith("leading")
    few = _few_steps(sampling, process_of(scheduler))
    return replace(
        sampling,
        steps=few or STEPS,
        guidance=1.0 if few else guidance,
        begin="schedule" if follows else "unit",
        batch=Config.sampling.batch,
    )


def _few_steps(sampling: Sampling, process: Process) -> int:
    """Steps of a model that was distilled to few of them and draws without guidance, 0 of others: latent consistency
    models have a scheduler of their own, Turbo models one of Euler's that begins at the last time of a table which
    keeps a little signal [Sauer23]."""
    if sampling.sampler == "lcm":
        return 4
    begins_last = sampling.sampler in ("euler", "euler_ancestral") and sampling.grid == "trailing"
    return int(begins_last and process.prediction == "eps" and not process.zero_terminal_snr)


def exported_autoencoder(parts: Any) -> Autoencoder:
    """The autoencoder of a drawing's parts.

    Raises:
        ValueError: if diffusers' pipelines have no place for it, or for how its latents are scaled.
    """
    net = parts.autoencoder.config.net
    require(SCALES not in parts.denoiser.files, "diffusers' pipelines scale all latents by one number, and this net "
            "was trained with one for each channel: not exported")  # fmt: skip
    require(isinstance(net, Autoencoder), f"a {type(net).__name__} is not the autoencoder of such a pipeline")
    return net


def export_pipeline(model: Any, directory: Path) -> None:
    """Writes a folder that diffusers' pipeline of the same parts reads; steps and guidance have no place in it.

    Raises:
        ValueError: naming what diffusers has no counterpart of, or if the directory is not empty.
    """
    parts = model.whole
    config, net, how = parts.config, exported_autoencoder(parts), parts.config.image_embedding
    require(bool(parts.clips) or not reads_text(config), "diffusers' pipelines have a text encoder, and this model has "
            "none: not exported")  # fmt: skip
    known = [name for name in ENCODERS if name in model.parts]
    for name in (*CONTROLNETS, "refiner"):
        if name in model.parts:
            print(f"the {name} has no place in the pipeline's folder: export it by itself, from a model of its own",
                  file=sys.stderr)  # fmt: skip
    index: dict[str, Any] = {"_class_name": _pipeline_name(config, known)}
    scheduler = scheduler_config(config.process, config.sampling, False)
    with whole_directory(directory):
        vector = SIZED if how is None else PROJECTION
        export_unet_condition(config.net, parts.denoiser.params, directory / "unet", vector)
        latents = parts.autoencoder.config.latents
        export_autoencoder(net, parts_of(parts.autoencoder), latents, directory / "vae")
        for name in known:
            index |= write_encoder(model.parts[name], directory, ENCODERS[name])
        write_json(directory / "scheduler" / SCHEDULER, scheduler)
        index |= {"scheduler": ["diffusers", scheduler["_class_name"]], "vae": ["diffusers", "AutoencoderKL"]}
        index |= {"unet": ["diffusers", "UNet2DConditionModel"]}
        if "clip_2" in known:
            index |= {"force_zeros_for_empty_prompt": config.text.zero_empty}
            index |= {"requires_aesthetics_score": True} if config.sizes == 5 else {}
        elif index["_class_name"] != stable_unclip.NOISED:
            nothing = {name: [None, None] for name in ("safety_checker", "feature_extractor")}
            index |= {**nothing, "requires_safety_checker": False}
        if how is not None:
            index |= stable_unclip.write_beside(parts, how, directory)
        write_json(directory / INDEX, index)


def _pipeline_name(config: Config, encoders: Sequence[str]) -> str:
    is_xl = "clip_2" in encoders
    expected = Text(skip=1, normed=False, zero_empty=config.text.zero_empty) if is_xl else Text()
    require(config.text == expected, f"{config.text}: pipelines of such encoders read {expected}, not exported")
    if (how := config.image_embedding) is not None:
        return stable_unclip.SHOWN if how.place == "token" else stable_unclip.NOISED
    refines = is_xl and "clip" not in encoders
    fills_in = config.net.in_channels > config.net.out_channels
    return NAMES[2 if fills_in else 1 if refines else 0].format("XL" if is_xl else "")


def write_encoder(clip: Any, directory: Path, place: str) -> dict[str, list[str]]:
    """A text encoder and its tokenizer, and what the index says of them."""
    net, tokenizer = clip.config.net, clip.tokenizer
    require(net.vision is None, f"{place} has a vision tower, which such a pipeline has no place for: not exported")
    export_clip(net, clip.params, directory / place, tokenizer.end_id)
    beside = place.replace("text_encoder", "tokenizer")
    kind = write_clip_tokenizer(tokenizer, directory / beside)
    name = "CLIPTextModelWithProjection" if net.projected else "CLIPTextModel"
    return {place: ["transformers", name], beside: ["transformers", kind]}
