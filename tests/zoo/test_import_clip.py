"""transformers' CLIPs as a user brings them in and out: a folder becomes a model that every command takes.

Numbers beside transformers' own are in tests/parity/test_clip_model.py."""

import dataclasses
import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from saving import write_model

from flaxgen import verbs
from flaxgen.cli import main
from flaxgen.data import Data
from flaxgen.data.tokenize import train_bpe
from flaxgen.family.extractor import Preprocess
from flaxgen.measure.features import make_extractor
from flaxgen.nets.clip import CLIP, TextTower, VisionTower
from flaxgen.weights import store
from flaxgen.weights.clip import STEM, abstract_params
from flaxgen.weights.clip_config import PREPROCESSOR, PROCESSOR, clip_from_config, config_from_clip, read_pixels
from flaxgen.zoo import clip

BOTH = CLIP(
    vision=VisionTower(image_size=8, patch=4, width=16, depth=1, heads=2),
    text=TextTower(vocab_size=300, context=9, width=12, depth=1, heads=2),
    embedding_dim=10,
    mean=(0.5, 0.25, 0.125),
)
NETS = {
    "both": BOTH,
    "text": BOTH.clone(vision=None),
    "vision": BOTH.clone(text=None),
    "bare_text": BOTH.clone(vision=None, embedding_dim=12, projected=False),
    "bare_vision": BOTH.clone(text=None, embedding_dim=16, projected=False),
}
CLASSES = {
    "both": "CLIPModel",
    "text": "CLIPTextModelWithProjection",
    "vision": "CLIPVisionModelWithProjection",
    "bare_text": "CLIPTextModel",
    "bare_vision": "CLIPVisionModel",
}
CAPTIONS = ["a red circle", ""]
IMAGES = np.random.default_rng(1).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)


def random_params(net):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32), abstract_params(net))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A model of every kind, and the same in transformers' layout."""
    root = tmp_path_factory.mktemp("clips")
    tokenizer = train_bpe(["a red circle", "a green square left of a blue one"], 300, 9)
    for name, net in NETS.items():
        config = clip.Config(seed=0, steps=1, batch_size=1, data=Data(source="folder"), net=net)
        small = {clip.TOKENIZER: tokenizer.to_json().encode()} if net.text else {}
        write_model(root / name, config, random_params(net), 0, small)
        assert main(["export", str(root / name), str(root / f"{name}_theirs"), "--layout", "transformers"]) == 0
    return root


@pytest.fixture
def spoilt(folders, tmp_path):
    """A copy of a folder of transformers, to be changed."""
    return lambda name: shutil.copytree(folders / f"{name}_theirs", tmp_path / "theirs")


def imported(folder, tmp_path):
    tmp_path.mkdir(exist_ok=True)
    assert main(["import", str(folder), str(tmp_path / "model")]) == 0
    return verbs.load(tmp_path / "model")


@pytest.mark.parametrize("name", NETS)
def test_there_and_back(name, folders, tmp_path, capsys):
    """The same weights to the bit, and the same tokenizer."""
    theirs = folders / f"{name}_theirs"
    assert store.read_json(theirs / "config.json")["architectures"] == [CLASSES[name]]
    capsys.readouterr()
    model, before = imported(theirs, tmp_path), verbs.load(folders / name)
    said = capsys.readouterr()
    assert (said.out, said.err) == (f"wrote {tmp_path / 'model'}\n", "")
    jax.tree.map(np.testing.assert_array_equal, model.params, before.params)
    assert model.files == before.files
    assert main(["export", str(tmp_path / "model"), str(tmp_path / "again"), "--layout", "transformers"]) == 0
    there, again = (
        {path.name: path.read_bytes() for path in place.iterdir()} for place in (theirs, tmp_path / "again")
    )
    assert again == there


def test_embeddings_without_a_projection(folders, tmp_path):
    """They are what the towers give: of a caption its last token's state."""
    text, vision = (imported(folders / f"bare_{name}_theirs", tmp_path / name) for name in ("text", "vision"))
    encoded = text.encode_text(CAPTIONS)
    last = text.tokenizer(CAPTIONS).mask.sum(1) - 1
    pooled = encoded.hidden[np.arange(2), last]
    unit = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    np.testing.assert_allclose(encoded.embedding, unit * 12**0.5, atol=1e-5)
    assert vision.encode_image(IMAGES).shape == (2, 16)
    assert main(["info", str(tmp_path / "vision" / "model")]) == 0


def test_a_projection_cannot_be_left_out_of_any_width():
    net = BOTH.clone(vision=None, projected=False)
    with pytest.raises(ValueError, match="projected=False: embedding_dim=10 is not the width=12"):
        abstract_params(net)


@pytest.mark.parametrize(("name", "prefix"), [("bare_text", "text_model."), ("bare_vision", "vision_model.")])
def test_tensors_as_transformers_5_calls_them(name, prefix, spoilt, folders, tmp_path):
    """Without the tower's name."""
    theirs = spoilt(name)
    path = theirs / f"{STEM}.safetensors"
    tensors = store.read_file(path)
    store.write_file(path, {tensor.removeprefix(prefix): value for tensor, value in tensors.items()})
    assert all(tensor.startswith(prefix) for tensor in tensors)
    jax.tree.map(np.testing.assert_array_equal, imported(theirs, tmp_path).params, verbs.load(folders / name).params)


def test_features_of_an_imported_clip(folders, tmp_path):
    """What `flaxgen import` is named for where features of a CLIP are asked for."""
    with pytest.raises(ValueError, match=rf"use `flaxgen import {folders / 'both_theirs'} MODEL_DIR`"):
        make_extractor(f"clip:{folders / 'both_theirs'}")
    imported(folders / "both_theirs", tmp_path)
    extractor = make_extractor(f"clip:{tmp_path / 'model'}")
    features = jax.jit(extractor.apply)(extractor.params, {"image": jnp.asarray(IMAGES)})["features"]
    wanted = verbs.load(folders / "both").encode_image(IMAGES)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    np.testing.assert_allclose(unit * 10**0.5, wanted, atol=1e-5)
    assert extractor.tokenize(CAPTIONS)["ids"].shape == (2, 9)


def test_one_tower_is_not_trained(folders, tmp_path):
    imported(folders / "text_theirs", tmp_path)
    config, _ = verbs.read_config(tmp_path / "model")
    with pytest.raises(ValueError, match="a clip of this kind is imported, and not trained here"):
        clip.FAMILY.training(config)


def test_a_text_tower_without_a_tokenizer_is_said(spoilt, tmp_path, capsys):
    theirs = spoilt("text")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (theirs / name).unlink()
    model = imported(theirs, tmp_path)
    assert capsys.readouterr().err == f"{theirs} has no tokenizer: the model cannot read captions\n"
    with pytest.raises(ValueError, match=r"this CLIP has no tokenizer\.json beside its weights"):
        model.encode_text(CAPTIONS)
    verbs.export(tmp_path / "model", tmp_path / "again", layout="transformers")
    assert not (tmp_path / "again" / "tokenizer.json").exists()


def test_a_pipelines_folders(folders, tmp_path):
    """text_encoder_2/ with tokenizer_2/ beside it, image_encoder/ with feature_extractor/."""
    shutil.copytree(folders / "bare_text_theirs", tmp_path / "text_encoder_2")
    (tmp_path / "tokenizer_2").mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.move(tmp_path / "text_encoder_2" / name, tmp_path / "tokenizer_2" / name)
    assert imported(tmp_path / "text_encoder_2", tmp_path).tokenizer.context == 9
    shutil.copytree(folders / "vision_theirs", tmp_path / "image_encoder")
    (tmp_path / "feature_extractor").mkdir()
    shutil.move(tmp_path / "image_encoder" / PREPROCESSOR, tmp_path / "feature_extractor" / PREPROCESSOR)
    verbs.import_model(str(tmp_path / "image_encoder"), tmp_path / "vision")
    assert verbs.load(tmp_path / "vision").config.net.mean == BOTH.mean


def test_preprocessing_as_transformers_5_writes_it(spoilt, tmp_path):
    theirs = spoilt("both")
    described = store.read_json(theirs / PREPROCESSOR)
    (theirs / PREPROCESSOR).unlink()
    (theirs / PROCESSOR).write_text(json.dumps({"image_processor": described, "processor_class": "CLIPProcessor"}))
    assert imported(theirs, tmp_path).config.net.mean == BOTH.mean


def test_ends_that_differ(spoilt, tmp_path, capsys):
    theirs = spoilt("text")
    config = store.read_json(theirs / "config.json")
    (theirs / "config.json").write_text(json.dumps({**config, "eos_token_id": 7}))
    assert main(["import", str(theirs), str(tmp_path / "model")]) == 2
    assert "eos_token_id=7, and the tokenizer ends captions with 1" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_values_that_its_config_says_are_refused(folders, tmp_path, capsys):
    given = ["import", str(folders / "text_theirs"), str(tmp_path / "model"), "--set", "net.embedding_dim=3"]
    assert main(given) == 2
    assert "has a config of its own" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "preprocess"),
    [
        ({}, Preprocess()),
        ({"size": 8, "crop_size": 8}, Preprocess()),
        ({"size": {"shortest_edge": 10}, "crop_size": {"height": 8, "width": 8}}, Preprocess(short_side=10)),
        ({"size": {"height": 8, "width": 8}, "do_center_crop": False}, Preprocess(squash=True)),
        ({"resample": 2}, Preprocess(filter="bilinear")),
    ],
    ids=str,
)
def test_preprocessing_comes_with_it(given, preprocess, spoilt, tmp_path):
    theirs = spoilt("vision")
    (theirs / PREPROCESSOR).write_text(json.dumps(given))
    config = imported(theirs, tmp_path).config
    assert config.preprocess == preprocess
    verbs.export(tmp_path / "model", tmp_path / "again", layout="transformers")
    assert read_pixels(tmp_path / "again", 8)[2:] == (preprocess.short_side, preprocess.squash, preprocess.filter)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"do_resize": False}, "do_resize=False is not supported, only True"),
        ({"resample": 0}, "resample=0 is not supported, only 3 or 2 or 1"),
        (
            {"size": {"height": 8, "width": 9}},
            "size={'height': 8, 'width': 9} is not supported, only pixels as a number",
        ),
        ({"size": {"shortest_edge": 8, "longest_edge": 9}}, "is not supported, only pixels"),
        ({"size": {}}, "size={} is not supported, only pixels"),
        ({"crop_size": 9}, "crop_size=9 do not make squares of 8 pixels"),
        ({"size": 7, "crop_size": 8}, "size=7, do_center_crop=True and crop_size=8 do not make squares of 8 pixels"),
        ({"do_center_crop": False}, "do_center_crop=False and crop_size=None do not make squares of 8 pixels"),
    ],
    ids=str,
)
def test_preprocessing_that_is_not_supported(given, message, spoilt, tmp_path):
    theirs = spoilt("vision")
    (theirs / PREPROCESSOR).write_text(json.dumps(given))
    with pytest.raises(ValueError, match=re.escape(message)):
        verbs.import_model(str(theirs), tmp_path / "model")


def test_companions_see_what_preprocessing_makes(folders):
    """Data that priors and decoders are trained on are cropped alike, and cannot be squashed."""
    model = verbs.load(folders / "both")
    data = Data(source="folder", resize=50, random_crop=True)

    def seen(how):
        config = dataclasses.replace(model.config, preprocess=how)
        return dataclasses.replace(model, config=config).encoder.see(data)

    assert (seen(Preprocess()).image_size, seen(Preprocess()).resize) == (8, 0)
    assert seen(Preprocess(short_side=10)) == dataclasses.replace(data, image_size=8, resize=10, random_crop=False)
    with pytest.raises(ValueError, match=r"preprocess\.squash=True: data are cropped and not squashed"):
        seen(Preprocess(squash=True))


def test_a_variant_of_the_weights(folders, spoilt, tmp_path, capsys):
    theirs = spoilt("text")
    path = theirs / f"{STEM}.safetensors"
    half = {name: value.astype(np.float16) for name, value in store.read_file(path).items()}
    path.unlink()
    store.write_file(theirs / f"{STEM}.fp16.safetensors", half)
    given = ["import", str(theirs), str(tmp_path / "model")]
    assert main(given) == 2
    assert "there are variants: choose one with --variant NAME, in Python variant='fp16'" in capsys.readouterr().err
    assert main([*given, "--variant", "bf16"]) == 2
    assert f"{theirs} has no weights of --variant bf16; the variants there are: fp16" in capsys.readouterr().err
    assert main([*given, "--variant", "fp16"]) == 0
    wanted = jax.tree.map(lambda leaf: leaf.astype(np.float16), verbs.load(folders / "text").params)
    model = verbs.load(tmp_path / "model")
    jax.tree.map(np.testing.assert_array_equal, model.params, wanted)
    assert model.tokenizer.context == 9


@pytest.mark.parametrize("name", ["quick_gelu", "gelu", "gelu_new", "gelu_pytorch_tanh"])
def test_an_activation_comes_back_as_itself(name):
    config = config_from_clip(BOTH)
    for tower in ("text_config", "vision_config"):
        config[tower]["hidden_act"] = name
    assert config_from_clip(clip_from_config(config)) == config
