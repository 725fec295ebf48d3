"""From the stages of an unCLIP to the folder of a pipeline that diffusers reads."""

from pathlib import Path
from typing import Any

from flaxgen.family.composite import Parts
from flaxgen.interchange.clip_files import pixels_of, write_clip_tokenizer
from flaxgen.interchange.karlo.layout import (
    INDEX,
    PIPELINES,
    SCHEDULER,
    TRANSFORMERS,
    Pipeline,
    whole_directory,
    write_json,
)
from flaxgen.interchange.karlo.schedulers import scheduler_config
from flaxgen.nets.prior import DiffusionPrior
from flaxgen.train.config import require
from flaxgen.weights.clip import export_clip, export_towers
from flaxgen.weights.clip_config import PREPROCESSOR
from flaxgen.weights.decoder import export_decoder
from flaxgen.weights.prior import export_prior
from flaxgen.weights.upsampler import export_upsampler
from flaxgen.zoo import clip, upsampler
from flaxgen.zoo.prior.config import read_statistics


def export_pipeline(parts: Parts, directory: Path) -> None:
    """Writes an UnCLIPPipeline, without a prior an UnCLIPImageVariationPipeline, without decoder a Kandinsky prior. A
    vision tower that the pipeline has no part for is written beside. Steps and guidance have no place in such a folder.

    Raises:
        ValueError: naming what diffusers has no counterpart of, or if the directory is not empty.
    """
    name = _pipeline_name(parts)
    layout = PIPELINES[name]
    model: Any = parts["clip"]
    require(
        not model.config.normalise,
        "clip.normalise=True: diffusers takes embeddings as they come, and would draw something else: not exported",
    )
    with whole_directory(directory):
        tokenizer_class = _write_clip(model, directory, layout)
        _write_prior(parts, directory, layout)
        if "decoder" in layout.parts:
            _write_drawing(parts, directory)
        listed = {part: list(kind) for part, kind in layout.parts.items()}
        listed["tokenizer"] = [TRANSFORMERS, tokenizer_class]
        write_json(directory / INDEX, {"_class_name": name, **listed})


def _pipeline_name(parts: Parts) -> str:
    """The pipeline that has a part for every stage."""
    require("clip" in parts, "diffusers' pipelines have a CLIP, and this model lacks the part 'clip'")
    require("ar_prior" not in parts, "the part 'ar_prior' has no counterpart in diffusers: not exported")
    require("upsampler_2" not in parts, "the part 'upsampler_2' has no counterpart in diffusers: not exported")
    sees = parts["clip"].config.net.vision is not None
    if "decoder" not in parts:
        require(
            "prior" in parts and sees and "upsampler_1" not in parts,
            "without the part 'decoder' diffusers has a pipeline of a prior and a CLIP of two towers alone",
        )
        return "KandinskyV22PriorPipeline"
    require("upsampler_1" in parts, "diffusers' unCLIP has an upsampler, and this model no 'upsampler_1'")
    require("prior" in parts or sees, "diffusers' unCLIP needs a prior or a CLIP with a vision tower")
    return "UnCLIPPipeline" if "prior" in parts else "UnCLIPImageVariationPipeline"


def _write_clip(model: clip.Model, directory: Path, layout: Pipeline) -> str:
    """The towers and the tokenizer; returns the tokenizer's class."""
    net, tokenizer, pixels = model.config.net, model.tokenizer, pixels_of(model.config.preprocess)
    if net.vision is None:
        export_clip(net, model.params, directory / "text_encoder", tokenizer.end_id)
    else:
        folders = (directory / "text_encoder", directory / "image_encoder")
        export_towers(net, model.params, *folders, tokenizer.end_id, pixels)
        (directory / layout.pixels).mkdir()
        (folders[1] / PREPROCESSOR).rename(directory / layout.pixels / PREPROCESSOR)
    return write_clip_tokenizer(tokenizer, directory / "tokenizer")


def _write_prior(parts: Parts, directory: Path, layout: Pipeline) -> None:
    if (model := parts.get("prior")) is None:
        return
    config, fitted = model.config, read_statistics(model.files)
    if not isinstance(config.net, DiffusionPrior):
        raise ValueError(f"a prior with a {type(config.net).__name__} is not a PriorTransformer: not exported")
    statistics = {name: fitted[name] for name in ("mean", "std")}
    export_prior(config.net, {"net": model.params, "statistics": statistics}, directory / "prior")
    scheduler = scheduler_config("prior", config.process, config.sampling, False)
    write_json(directory / layout.prior_scheduler / SCHEDULER, scheduler)


def _write_drawing(parts: Parts, directory: Path) -> None:
    config = parts["decoder"].config
    model: Any = parts["upsampler_1"]
    export_decoder(config.net, parts["decoder"].params, directory / "decoder", directory / "text_proj")
    learned = config.net.unet.learned_variance
    scheduler = scheduler_config("decoder", config.process, config.sampling, learned)
    write_json(directory / "decoder_scheduler" / SCHEDULER, scheduler)
    _write_upsampler(model, config.net.unet.image_size, directory)


def _write_upsampler(model: upsampler.Model, small: int, directory: Path) -> None:
    """Two nets; where the last step has none of its own, the same one twice."""
    config, size = model.config, small * model.config.factor
    require(
        config.net.image_size == size,
        f"upsampler_1: net.image_size={config.net.image_size} is what diffusers would draw, and {small} px become "
        f"{size}: not exported",
    )
    nets = (model.params["net"], model.params["last"]) if config.last_step else (model.params, model.params)
    for name, params in zip(("first", "last"), nets, strict=True):
        export_upsampler(config.net, params, directory / f"super_res_{name}")
    scheduler = scheduler_config("upsampler_1", config.process, config.sampling, config.net.learned_variance)
    write_json(directory / "super_res_scheduler" / SCHEDULER, scheduler)
