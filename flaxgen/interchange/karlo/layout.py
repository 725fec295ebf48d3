"""What the folders of diffusers' unCLIP pipelines hold, by the class that model_index.json names."""

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from flaxgen.family import files
from flaxgen.weights import store

INDEX = "model_index.json"
SCHEDULER = "scheduler_config.json"
DIFFUSERS, TRANSFORMERS = "diffusers", "transformers"
Parts = Mapping[str, tuple[str, str]]
"""A pipeline's folders, and for each the library and the class that read it."""

TEXT: Parts = {
    "text_encoder": (TRANSFORMERS, "CLIPTextModelWithProjection"),
    "tokenizer": (TRANSFORMERS, "CLIPTokenizer"),
}
IMAGE_ENCODER: Parts = {"image_encoder": (TRANSFORMERS, "CLIPVisionModelWithProjection")}
PIXELS = (TRANSFORMERS, "CLIPImageProcessor")
PRIOR: Parts = {"prior": (DIFFUSERS, "PriorTransformer")}
UNCLIP_SCHEDULER = (DIFFUSERS, "UnCLIPScheduler")
DRAWING: Parts = {
    "text_proj": ("unclip", "UnCLIPTextProjModel"),  # as Karlo says; diffusers since moved it below `deprecated`
    "decoder": (DIFFUSERS, "UNet2DConditionModel"),
    "super_res_first": (DIFFUSERS, "UNet2DModel"),
    "super_res_last": (DIFFUSERS, "UNet2DModel"),
    "decoder_scheduler": UNCLIP_SCHEDULER,
    "super_res_scheduler": UNCLIP_SCHEDULER,
}


class Pipeline(NamedTuple):
    """A pipeline's parts, and what it calls two of them."""

    parts: Parts
    prior_scheduler: str = "prior_scheduler"
    pixels: str = "feature_extractor"


KANDINSKY = Pipeline(
    {**TEXT, **IMAGE_ENCODER, "image_processor": PIXELS, **PRIOR, "scheduler": UNCLIP_SCHEDULER},
    prior_scheduler="scheduler",
    pixels="image_processor",
)
PIPELINES = {
    "UnCLIPPipeline": Pipeline({**TEXT, **PRIOR, "prior_scheduler": UNCLIP_SCHEDULER, **DRAWING}),
    "UnCLIPImageVariationPipeline": Pipeline({**TEXT, **IMAGE_ENCODER, "feature_extractor": PIXELS, **DRAWING}),
    "KandinskyV22PriorPipeline": KANDINSKY,
    "KandinskyPriorPipeline": KANDINSKY,
}


def is_pipeline(folder: Path) -> bool:
    """Whether the folder is one of PIPELINES."""
    return (folder / INDEX).is_file() and store.read_json(folder / INDEX).get("_class_name") in PIPELINES


def is_prior(folder: Path) -> bool:
    """Whether the folder is a PriorTransformer's alone."""
    config = folder / "config.json"
    return config.is_file() and store.read_json(config).get("_class_name") == "PriorTransformer"


def read_layout(folder: Path) -> Pipeline:
    """The layout of a pipeline's folder.

    Raises:
        ValueError: if a part is missing, or of a class that is not known here.
    """
    index = store.read_json(folder / INDEX)
    name = str(index["_class_name"])
    for part, (library, kind) in PIPELINES[name].parts.items():
        listed = index.get(part, [library, kind])
        found = listed[1] if isinstance(listed, list) and len(listed) == 2 else listed
        # What reads pixels and captions goes by many names; their files are checked instead.
        if found != kind and part not in ("tokenizer", PIPELINES[name].pixels):
            raise ValueError(f"{folder / INDEX}: the {part} of this {name} is a {found}, expected a {kind}")
        if not (folder / part).is_dir():
            raise ValueError(f"{folder} is a {name} without the folder {part}/: it cannot be imported")
    return PIPELINES[name]


@contextlib.contextmanager
def whole_directory(directory: Path) -> Iterator[None]:
    """A directory that must not hold anything yet; where what is done inside fails, nothing of it stays."""
    files.new_directory(directory)
    with contextlib.ExitStack() as undo:
        undo.callback(shutil.rmtree, directory, ignore_errors=True)
        yield
        undo.pop_all()


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file as diffusers does."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", "utf-8")
