"""Stable Diffusion as people pass it around: one .safetensors file under the names of its authors' code, read and
written."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from flaxgen.data import Data
from flaxgen.data.tokenize import Tokenizer, read_tokenizer
from flaxgen.interchange.autoencoders import config_for, parts_of
from flaxgen.interchange.karlo.layout import whole_directory
from flaxgen.interchange.stable_diffusion import make_config
from flaxgen.nets.clip import CLIP
from flaxgen.train.config import require
from flaxgen.weights import store
from flaxgen.weights.autoencoder import Imported
from flaxgen.weights.ldm import KINDS, Kind, Single, kind_of, read_single, write_single
from flaxgen.weights.ldm_text import OPEN_CLIP
from flaxgen.zoo.autoencoder import FAMILY as AUTOENCODER
from flaxgen.zoo.clip import FAMILY as CLIP_FAMILY
from flaxgen.zoo.clip import TOKENIZER
from flaxgen.zoo.clip import Config as ClipConfig
from flaxgen.zoo.latent import FAMILY, WHOLE

SINGLE = "model.safetensors"
"""The file that a folder of this layout holds, where one is written."""
ASKED = ("tokenizer", "prediction", "turbo")
"""What may be said of a file that is not in it."""
PREDICTIONS = {"eps": "epsilon", "v": "v_prediction"}
TABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000,
         "timestep_spacing": "leading", "steps_offset": 1}  # fmt: skip
PLMS = {"_class_name": "PNDMScheduler", "skip_prk_steps": True, "set_alpha_to_one": False}
"""What versions 1 and 2 are drawn with; XL with Euler's method."""
TURBO = {"_class_name": "EulerAncestralDiscreteScheduler", **TABLE, "timestep_spacing": "trailing"}
"""What SD-Turbo and SDXL-Turbo are drawn with [Sauer23]."""


def matches(place: Path) -> bool:
    """Whether this is such a file."""
    return kind_of(store.read_header(place)) is not None


def import_single(path: Path, directory: Path, said: Mapping[str, str]) -> None:
    """Writes the model directory of a single file's parts. A file has no tokenizer: it is that of the folder
    `tokenizer`, by default of one of that name beside the file. `prediction` is "eps" or "v", which files of version 2
    do not say. With `turbo` of "true" it draws in one step without guidance, as models do that were distilled to that,
    which no file says.

    Raises:
        ValueError: if the file is of no kind that is known, something of it is not said, or the directory is not empty.
    """
    for name in said:
        require(name in ASKED, f"--set {name}: a single file can be told {', '.join(ASKED)} alone")
    single = read_single(path, keep_dtype=True)
    kind = single.kind
    asked = said.get("prediction") or kind.prediction or ""
    require(asked in PREDICTIONS, f"{path} is of kind {kind.name}, of which some files predict noise and some v: say "
            "--set prediction=eps (512-base-ema) or --set prediction=v (768-v-ema)")  # fmt: skip
    turbo = said.get("turbo", "false")
    require(turbo in ("true", "false"), f"--set turbo={turbo}: expected true or false")
    scheduler = (TURBO if turbo == "true" else _scheduler(kind)) | {"prediction_type": PREDICTIONS[asked]}
    sizes: Literal[0, 5, 6] = 6 if kind.numbers == 6 else 5 if kind.numbers == 5 else 0
    context = _tower(single.texts[0][0]).context
    config = make_config(single.unet, scheduler, context, sizes=sizes, zero_empty=sizes == 6)
    place = Path(said["tokenizer"]) if "tokenizer" in said else path.with_name("tokenizer")
    first_stage = single.autoencoder
    with whole_directory(directory):
        described = config_for(first_stage.net, first_stage.params, first_stage.latents)
        AUTOENCODER.write_model(directory / "autoencoder", described, first_stage.params, 0)
        names = _encoder_names(kind)
        for name, text, (net, params) in zip(names, kind.texts, single.texts, strict=True):
            read = clip_tokenizer(place, net, path, 0 if text.names is OPEN_CLIP else None)
            described = ClipConfig(
                seed=0, steps=1, batch_size=1, data=Data(source="folder"), net=net, normalise=False
            )  # fmt: skip
            CLIP_FAMILY.write_model(directory / name, described, params, 0, {TOKENIZER: read.to_json().encode()})
        FAMILY.write_model(directory / "denoiser", config, single.unet_params, 0)
        WHOLE.write_index(directory, ("autoencoder", *names, "denoiser"))


def _scheduler(kind: Kind) -> dict[str, Any]:
    return TABLE | ({"_class_name": "EulerDiscreteScheduler"} if kind.numbers else PLMS)


def _encoder_names(kind: Kind) -> tuple[str, ...]:
    """The parts that text towers become: a refiner's only one is the second of XL."""
    return ("clip_2",) if kind.numbers == 5 else ("clip", "clip_2")[: len(kind.texts)]


def _tower(net: CLIP) -> Any:
    assert net.text is not None
    return net.text


def clip_tokenizer(place: Path, net: CLIP, path: Path, pad_id: int | None) -> Tokenizer:
    """CLIP's tokenizer, padding with `pad_id` (None: the end token), as OpenCLIP does with 0."""
    tower = _tower(net)
    try:
        found = read_tokenizer(place, tower.context, pad_id)
    except FileNotFoundError:
        raise ValueError(
            f"{path} has no tokenizer in it: say --set tokenizer=DIR, the folder tokenizer/ of any pipeline of Stable "
            f"Diffusion or CLIP, or put that beside the file ({place} is not there)"
        ) from None
    require(found.vocab_size <= tower.vocab_size, f"{place}: the tokenizer has {found.vocab_size} tokens and the text "
            f"encoder knows {tower.vocab_size}")  # fmt: skip
    return found


def export_single(model: Any, directory: Path) -> None:
    """Writes the single file of a model, and its tokenizer beside it.

    Raises:
        ValueError: naming what no file of this layout has, or if the directory is not empty.
    """
    parts, net = model.whole, model.whole.config.net
    first_stage = parts.autoencoder
    kind = _kind_for(model)
    with whole_directory(directory):
        single = Single(
            kind,
            net,
            dict(parts.denoiser.params),
            Imported(first_stage.config.net, dict(parts_of(first_stage)), first_stage.config.latents),
            tuple((clip.config.net, dict(clip.params)) for clip in parts.clips),
        )
        write_single(directory / SINGLE, single)
        (directory / "tokenizer").mkdir()
        described = json.loads(parts.clips[0].tokenizer.to_json())
        (directory / "tokenizer" / "tokenizer.json").write_text(json.dumps(described), "utf-8")


def _kind_for(model: Any) -> Kind:
    """The kind that has such parts; ValueError where there is none."""
    config = model.whole.config
    towers: Mapping[str, Any] = {name: model.parts[name] for name in ("clip", "clip_2") if name in model.parts}
    fits = [
        kind for kind in KINDS.values()
        if _encoder_names(kind) == tuple(towers) and kind.numbers == config.sizes
        and kind.channels == config.net.in_channels and kind.prediction in (None, config.process.prediction)
        and _is_linear(config.net) == (kind.heads is None) and config.image_embedding is None
    ]  # fmt: skip
    require(bool(fits), f"no single file has such parts, expected those of one of {', '.join(KINDS)}: not exported")
    return fits[0]


def _is_linear(net: Any) -> bool:
    """Whether projections are linear, as in all versions after the first."""
    return any(getattr(value, "linear", False) for value in net.attentions)
