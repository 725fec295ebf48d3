"""The stages of an unCLIP, and the model directory that holds them: `model_index.json` and a folder a stage."""

import dataclasses
import functools
import itertools
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flaxgen
from flaxgen import parallel
from flaxgen.nets.ar_prior import ARPrior
from flaxgen.nets.prior import DiffusionPrior
from flaxgen.train import config as configs
from flaxgen.train.config import require
from flaxgen.weights import store
from flaxgen.zoo import clip, decoder, embeddings, files, prior, upsampler
from flaxgen.zoo.clip import Model as Clip
from flaxgen.zoo.decoder import Model as UnclipDecoder
from flaxgen.zoo.prior import Model as Prior
from flaxgen.zoo.upsampler import Model as Upsampler

INDEX = "model_index.json"
KIND = "unclip"
STAGES = ("clip", "prior", "ar_prior", "decoder", "upsampler_1", "upsampler_2")
"""Every folder that an unCLIP may have; none is needed by all verbs."""
MODULES = {"clip": clip, "prior": prior, "ar_prior": prior, "decoder": decoder, "upsampler_1": upsampler,
           "upsampler_2": upsampler}  # fmt: skip
NETS = {"prior": DiffusionPrior, "ar_prior": ARPrior}
"""Of the two kinds of prior, the one that belongs into a folder."""
UPSAMPLERS = ("upsampler_1", "upsampler_2")
SHIPPED = Path(flaxgen.__file__).parent / "models" / "scenes"
"""The unCLIP of drawn scenes that comes with the package."""
VERBS = ("draw", "vary", "blend", "edit", "inpaint")
PRIORS = {"diffusion": "prior", "autoregressive": "ar_prior"}
"""What takes captions to image embeddings, and the stage that does."""


class Stages(NamedTuple):
    """What an unCLIP is made of; a stage that is not there is None."""

    clip: Clip | None = None
    prior: Prior | None = None
    ar_prior: Prior | None = None
    decoder: UnclipDecoder | None = None
    upsampler_1: Upsampler | None = None
    upsampler_2: Upsampler | None = None

    @property
    def upsamplers(self) -> tuple[Upsampler, ...]:
        """From small to large, as far as none is missing."""
        both = (self.upsampler_1, self.upsampler_2)
        return tuple(stage for stage in itertools.takewhile(lambda stage: stage is not None, both) if stage)


def is_composite(directory: Path) -> bool:
    """Whether the directory holds stages rather than one model."""
    return (directory / INDEX).is_file() and store.read_json(directory / INDEX).get("type") == KIND


def load(directory: Path, plan: parallel.Plan) -> Stages:
    """The stages that the directory has; a line on stderr says if pictures are smaller for want of an upsampler.

    Raises:
        ValueError: if a stage cannot be read, or was trained with another CLIP.
    """
    listed = store.read_json(directory / INDEX).get("stages", {})
    known = isinstance(listed, dict) and set(listed) <= set(STAGES)
    require(known, f"{directory / INDEX}: stages={listed!r}: expected a folder for some of {', '.join(STAGES)}")
    loaded: dict[str, Any] = {}
    for name, folder in listed.items():
        in_here = os.path.basename(str(folder)) == folder and folder not in ("", ".", "..")
        require(in_here, f"{directory / INDEX}: {name} is in {folder!r}: expected the name of a folder")
        if (directory / folder).is_dir():
            loaded[name] = load_stage(name, directory / folder, plan)
    stages = Stages(**loaded)
    check_same_clip(stages, str(directory))
    gone = [name for name in UPSAMPLERS if name in listed and name not in loaded]
    if gone and parallel.process_index() == 0:
        print(f"warning: {directory} lacks the stage {gone[0]!r}: pictures are drawn at the size before it",
              file=sys.stderr)  # fmt: skip
    return stages


def load_stage(name: str, directory: Path, plan: parallel.Plan) -> Any:
    """One stage from a run or model directory of its own.

    Raises:
        ValueError: if it is something else.
    """
    module: Any = MODULES[name]
    try:
        config, step = files.read_config(directory, module.TYPES, module.Config)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    kind, wanted = type(config.net), NETS.get(name, object)
    require(issubclass(kind, wanted), f"{name}: {directory} has the net {kind.__name__}: expected {wanted.__name__}")
    params, step = files.read_weights(directory, functools.partial(module.init_params, config), step)
    if not hasattr(module, "FILE_NAMES"):
        return module.Model(config, params, step, plan)
    return module.Model(config, params, step, plan, files.read_files(directory, module.FILE_NAMES))


def check_same_clip(stages: Stages, where: str) -> None:
    """Raises ValueError unless every stage was trained with the CLIP that is there."""
    if stages.clip is None:
        return
    for name in ("prior", "ar_prior", "decoder"):
        stage = getattr(stages, name)
        try:
            if stage is not None:
                embeddings.check_clip(stage.found, stages.clip.fingerprint)
        except ValueError as error:
            raise ValueError(f"{where}: {name}: {error}") from error


def compose(directory: Path, sources: Mapping[str, Path], dtype: str | None = None) -> None:
    """Writes the model directory of the stages in `sources`, runs or model directories by stage; `dtype` is what
    weights are rounded to, such as "float16".

    Raises:
        ValueError: if a stage is not known or not what it is called, was trained with another CLIP, or the directory
            is not empty.
    """
    unknown = [name for name in sources if name not in STAGES]
    require(not unknown, f"stage {', '.join(unknown)} is not known: expected some of {', '.join(STAGES)}")
    alone = "upsampler_2" in sources and "upsampler_1" not in sources
    require(not alone, "upsampler_2 enlarges what upsampler_1 makes: give both, or call it upsampler_1")
    here = parallel.make_plan("jit")
    stages = Stages(**{name: load_stage(name, Path(path), here) for name, path in sources.items()})
    check_same_clip(stages, "the stages do not belong together")
    write(directory, stages, dtype)


def write(directory: Path, stages: Stages, dtype: str | None = None) -> None:
    """Writes the model directory of those stages that are there.

    Raises:
        ValueError: if it holds anything yet.
    """
    files.new_directory(directory)
    there = {name: stage for name, stage in zip(STAGES, stages, strict=True) if stage is not None}
    for name, stage in there.items():
        encoded = configs.encode(_without_paths(stage.config), MODULES[name].TYPES)
        files.write_model(directory / name, encoded, stage.params, stage.step, getattr(stage, "found", {}), dtype)
    write_index(directory, tuple(there))


def _without_paths(config: Any) -> Any:
    """The config less where its CLIP, its embeddings and the weights it began with lay, which is nowhere that another
    machine knows."""
    places = {name: "" for name in ("clip", "cache", "start") if hasattr(config, name)}
    return dataclasses.replace(config, **places)


def write_index(directory: Path, names: tuple[str, ...]) -> None:
    """Says which folders of the directory are stages."""
    index = {"flaxgen": flaxgen.__version__, "type": KIND, "stages": {name: name for name in names}}
    (directory / INDEX).write_text(json.dumps(index, indent=2) + "\n", "utf-8")


def require_stages(stages: Stages, *names: str) -> None:
    """Raises ValueError naming the first stage that is not there, and which verbs work without it."""
    for name in names:
        if getattr(stages, name) is None:
            if name in PRIORS.values():
                others = [through for through, prior in PRIORS.items() if getattr(stages, prior) is not None]
                works = f"vary, blend and edit still work, and draw through {' or '.join([*others, 'text'])}"
            else:
                works = f"{', '.join(VERBS)} all need it, add it with `flaxgen compose`"
            raise ValueError(f"this model lacks the stage {name!r}: {works}")
