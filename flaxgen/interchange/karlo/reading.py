"""From the folder of an unCLIP pipeline to a model directory of stages, one at a time: two are never in memory."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy

from flaxgen.data import Data
from flaxgen.family.companions import check_companion
from flaxgen.family.denoising import Objective
from flaxgen.family.process import Process
from flaxgen.family.sampling import Sampling
from flaxgen.family.trained import Files
from flaxgen.interchange.clip_files import preprocess_of, read_clip_tokenizer
from flaxgen.interchange.karlo.layout import SCHEDULER, Pipeline, read_layout, whole_directory
from flaxgen.interchange.karlo.schedulers import check_variance, read_scheduler
from flaxgen.nets.prior import DiffusionPrior
from flaxgen.train.config import require
from flaxgen.types import Params
from flaxgen.weights.clip import import_clip, import_towers
from flaxgen.weights.clip_config import Pixels, read_pixels
from flaxgen.weights.decoder import import_decoder
from flaxgen.weights.prior import import_prior
from flaxgen.weights.upsampler import import_upsampler
from flaxgen.zoo import clip, decoder, prior, upsampler
from flaxgen.zoo.prior.config import STATISTICS, TEXT
from flaxgen.zoo.unclip import FAMILY as UNCLIP

PRIOR_STEPS, PRIOR_GUIDANCE = 25, 4.0
DECODER_STEPS, DECODER_GUIDANCE = 25, 8.0
UPSAMPLER_STEPS = 7
"""What the pipelines do by default."""


class Stage(NamedTuple):
    """What a model directory is made of."""

    config: Any
    params: Params
    files: Files


class Walk(NamedTuple):
    """Where a scheduler's file is, and what it says."""

    path: Path
    process: Process
    sampling: Sampling


def import_pipeline(folder: Path, directory: Path) -> None:
    """Writes the model directory of a pipeline's stages; if that fails, nothing.

    Raises:
        ValueError: naming what is missing or not supported, or if the directory is not empty.
        FileNotFoundError: if a part's files are not there.
    """
    layout = read_layout(folder)
    walks = _read_walks(folder, layout)
    with whole_directory(directory):
        names = []
        for name, stage in _stages(folder, layout, walks):
            family = UNCLIP.parts[name].family
            family.write_model(directory / name, stage.config, stage.params, 0, stage.files)
            names.append(name)
        UNCLIP.write_index(directory, tuple(names))


def import_prior_alone(folder: Path) -> Stage:
    """The prior in a PriorTransformer's folder, with Karlo's process. Without its text encoder it has no empty caption,
    and cannot be drawn from.

    Raises:
        ValueError: as `import_prior`.
        FileNotFoundError: if its files are not there.
    """
    net, params = import_prior(folder)
    config = _prior_config(net, prior.Config.process, prior.Config.sampling)
    return Stage(config, params["net"], _prior_files(params["statistics"], {}))


def _prior_config(net: DiffusionPrior, process: Process, sampling: Sampling) -> prior.Config:
    return prior.Config(
        seed=0,
        steps=1,
        batch_size=1,
        data=Data(source="folder"),
        net=net,
        process=process,
        objective=Objective(condition_dropout=0.2),
        sampling=sampling,
        candidates=1,
    )


def _read_walks(folder: Path, layout: Pipeline) -> dict[str, Walk]:
    """What every scheduler of the pipeline says, read before any weights are."""
    schedulers = {
        layout.prior_scheduler: ("prior", PRIOR_STEPS, PRIOR_GUIDANCE),
        "decoder_scheduler": ("decoder", DECODER_STEPS, DECODER_GUIDANCE),
        "super_res_scheduler": ("upsampler_1", UPSAMPLER_STEPS, 1.0),
    }
    walks = {}
    for part, (stage, steps, guidance) in schedulers.items():
        if part in layout.parts:
            path = folder / part / SCHEDULER
            walks[stage] = Walk(path, *read_scheduler(path, steps, guidance))
    return walks


def _stages(folder: Path, layout: Pipeline, walks: dict[str, Walk]) -> Iterator[tuple[str, Stage]]:
    model = _clip(folder, layout)
    yield "clip", Stage(model.config, model.params, model.files)
    named = check_companion({}, "CLIP", model.fingerprint)
    if "prior" in layout.parts:
        yield "prior", _prior(folder, walks["prior"], model, named)
    if "decoder" in layout.parts:
        stage = _decoder(folder, walks["decoder"], model, named)
        image_size = stage.config.net.unet.image_size
        yield "decoder", stage
        del stage
        yield "upsampler_1", _upsampler(folder, walks["upsampler_1"], image_size)


def _clip(folder: Path, layout: Pipeline) -> clip.Model:
    """The text tower, with the vision tower if there is one; a text pipeline may have a folder of it beside."""
    text_folder, vision_folder, read = folder / "text_encoder", folder / "image_encoder", Pixels()
    if vision_folder.is_dir():
        net, params = import_towers(text_folder, vision_folder)
        pixels = folder / layout.pixels
        size = 0 if net.vision is None else net.vision.image_size
        read = read_pixels(pixels if pixels.is_dir() else vision_folder, size)
        net = net.clone(mean=read.mean, std=read.std)
    else:
        net, params = import_clip(text_folder)
    tower = net.text
    if tower is None:
        raise ValueError(f"{text_folder} is not a text tower")
    require(net.projected, f"{text_folder} is a tower without projection: expected a CLIPTextModelWithProjection")
    tokenizer = read_clip_tokenizer(folder / "tokenizer", tower.context)
    require(
        tokenizer.vocab_size <= tower.vocab_size,
        f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens and text_encoder knows {tower.vocab_size}",
    )
    data = Data(source="folder", image_size=0 if net.vision is None else net.vision.image_size)
    known = {"normalise": False, "preprocess": preprocess_of(read)}
    config = clip.Config(seed=0, steps=1, batch_size=1, data=data, net=net, **known)
    return clip.FAMILY.trained(config, params, files={clip.TOKENIZER: tokenizer.to_json().encode()})


def _prior(folder: Path, walk: Walk, model: clip.Model, named: Files) -> Stage:
    net, params = import_prior(folder / "prior")
    context = clip.text_tower(model.config).context
    require(net.context == context, f"{folder}: the prior reads {net.context} tokens, text_encoder has {context}")
    _check_width(f"{folder}: the prior", net, model)
    check_variance(walk.path, walk.sampling, False)
    empty = model.empty_text()
    config = _prior_config(net, walk.process, walk.sampling)
    return Stage(config, params["net"], {**_prior_files(params["statistics"], empty), **named})


def _prior_files(statistics: dict[str, np.ndarray], empty: dict[str, np.ndarray]) -> dict[str, bytes]:
    fitted = {**statistics, **{f"empty_{name}": empty[name] for name in TEXT if name in empty}}
    return {STATISTICS: safetensors.numpy.save({k: np.ascontiguousarray(v) for k, v in fitted.items()})}


def _check_width(what: str, net: Any, model: clip.Model) -> None:
    ours = (model.config.net.embedding_dim, clip.text_tower(model.config).width)
    theirs = (net.embedding_dim, net.text_dim)
    require(
        theirs == ours,
        f"{what} reads embeddings and captions {theirs[0]} and {theirs[1]} wide, text_encoder's are {ours[0]} and "
        f"{ours[1]}",
    )


def _decoder(folder: Path, walk: Walk, model: clip.Model, named: Files) -> Stage:
    net, params = import_decoder(folder / "decoder", folder / "text_proj")
    _check_width(f"{folder}: the decoder", net, model)
    learned = net.unet.learned_variance
    check_variance(walk.path, walk.sampling, learned)
    config = decoder.Config(
        seed=0,
        steps=1,
        batch_size=1,
        data=Data(source="folder", image_size=net.unet.image_size, channels=net.unet.in_channels),
        net=net,
        context=clip.text_tower(model.config).context,
        process=walk.process,
        objective=Objective(loss="hybrid" if learned else "mse"),
        text_dropout=0.3,
        sampling=walk.sampling,
    )
    return Stage(config, params, named)


def _upsampler(folder: Path, walk: Walk, small: int) -> Stage:
    """Both nets of Karlo's upsampler: the second is fine-tuned for the last step. A picture of the pipeline's size is
    one tile."""
    (net, first), (last_net, last) = (import_upsampler(folder / f"super_res_{name}") for name in ("first", "last"))
    require(net == last_net, f"{folder}: super_res_first and super_res_last differ in config.json: not supported")
    factor = net.image_size // small
    require(
        factor >= 2 and net.image_size == factor * small,
        f"{folder}: pictures of {net.image_size} px after {small} px: expected a whole multiple",
    )
    check_variance(walk.path, walk.sampling, net.learned_variance)
    step = factor * 2 ** (len(net.multipliers) - 1)
    tile = -(-net.image_size // step) * step
    config = upsampler.Config(
        seed=0,
        steps=1,
        batch_size=1,
        data=Data(source="folder", image_size=net.image_size, channels=net.in_channels),
        net=net,
        factor=factor,
        degrade="none",
        process=walk.process,
        objective=Objective(loss="hybrid" if net.learned_variance else "mse"),
        tile=tile,
        overlap=tile // 4 // step * step,
        last_step=True,
        sampling=replace(walk.sampling, guidance=1.0),
    )
    return Stage(config, {"net": first, "last": last}, {})
