"""Variants of weights in the place of the plain ones: alone, in shards, and in some folders of a pipeline."""

import json

import numpy as np
import pytest

from flaxgen.weights import store
from flaxgen.weights.variants import link_variant, of_variant, variants_in


def write(path, value, name="w"):
    path.parent.mkdir(parents=True, exist_ok=True)
    store.write_file(path, {name: np.full(2, value, np.float32)})


def test_which_files_stand_for_which():
    names = ["config.json", "m.safetensors", "m.fp16.safetensors", "m.bf16.safetensors", "other.safetensors"]
    assert of_variant(names, "fp16", "here") == {
        "config.json": "config.json",
        "m.safetensors": "m.fp16.safetensors",
        "m.bf16.safetensors": "m.bf16.safetensors",
        "m.fp16.safetensors": "m.fp16.safetensors",
        "other.safetensors": "other.safetensors",
    }
    assert variants_in(names) == ["bf16", "fp16"]


@pytest.mark.parametrize("shard", ["m.fp16-0000{i}-of-00002.safetensors", "m-0000{i}-of-00002.fp16.safetensors"])
def test_shards(shard, tmp_path):
    """Their index names them as they are; those of the plain weights go with the plain index."""
    here = tmp_path / "here"
    places = {"a": shard.format(i=1), "b": shard.format(i=2)}
    for i, (name, file) in enumerate(places.items()):
        write(here / file, i, name)
        write(here / f"m-0000{i + 1}-of-00002.safetensors", 9, name)
    (here / "m.safetensors.index.fp16.json").write_text(json.dumps({"weight_map": places}))
    (here / "m.safetensors.index.json").write_text("{}")
    (tmp_path / "view").mkdir()
    folder = link_variant(here, "fp16", tmp_path / "view")
    assert {name: value[0] for name, value in store.read_folder(folder, "m").items()} == {"a": 0, "b": 1}


def test_a_pipeline_of_which_some_parts_have_it(tmp_path):
    pipeline, view = tmp_path / "pipeline", tmp_path / "view"
    for part, value in (("unet", 1), ("vae", 2)):
        write(pipeline / part / "m.safetensors", value)
    write(pipeline / "unet" / "m.fp16.safetensors", 3)
    (pipeline / "model_index.json").write_text("{}")
    view.mkdir()
    folder = link_variant(pipeline, "fp16", view)
    assert folder.name == "pipeline"
    assert [store.read_folder(folder / part, "m")["w"][0] for part in ("unet", "vae")] == [3, 2]


def test_a_part_of_a_pipeline_keeps_its_neighbours(tmp_path):
    pipeline, view = tmp_path / "pipeline", tmp_path / "view"
    write(pipeline / "text_encoder" / "m.fp16.safetensors", 1)
    (pipeline / "tokenizer").mkdir()
    (pipeline / "model_index.json").write_text("{}")
    view.mkdir()
    folder = link_variant(pipeline / "text_encoder", "fp16", view)
    assert (folder.parent / "tokenizer").is_dir()


def test_a_variant_that_is_not_there():
    with pytest.raises(ValueError, match="here has no weights of --variant fp16; the variants there are: none"):
        of_variant(["m.safetensors", "m-00001-of-00002.safetensors"], "fp16", "here")
