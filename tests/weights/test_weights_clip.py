"""CLIP folders without torch: what fields mean, and what is refused, by name. Numbers: tests/parity."""

import json
import shutil
from dataclasses import fields

import jax
import numpy as np
import pytest

from flaxgen.nets.clip import CLIP, TextTower, VisionTower
from flaxgen.weights import store
from flaxgen.weights.clip import STEM, abstract_params, export_clip, export_towers, import_clip, import_towers
from flaxgen.weights.clip_config import PREPROCESSOR, clip_from_config, config_from_clip

TINY = CLIP(
    vision=VisionTower(image_size=8, patch=4, width=16, depth=1, heads=2, mlp_ratio=1.5, activation="gelu"),
    text=TextTower(vocab_size=20, context=6, width=12, depth=2, heads=3, norm_eps=1e-6),
    embedding_dim=10,
    mean=(0.5, 0.25, 0.125),
    std=(0.5, 1.0, 2.0),
    logit_scale_init=2.5,
)
VIT_L_14 = {  # openai/clip-vit-large-patch14/config.json, in what matters
    "architectures": ["CLIPModel"],
    "initializer_factor": 1.0,
    "logit_scale_init_value": 2.6592,
    "model_type": "clip",
    "projection_dim": 768,
    "text_config": {"bos_token_id": 0, "eos_token_id": 2, "pruned_heads": {}, "dropout": 0.0, "hidden_size": 768},
    "text_config_dict": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "projection_dim": 768,
    },
    "torch_dtype": "float32",
    "transformers_version": None,
    "vision_config": {"dropout": 0.0, "top_k": 50},
    "vision_config_dict": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
        "projection_dim": 768,
    },
}


def same_fields(one, other):
    """Modules are equal only where they are bound alike; their fields are compared one by one."""
    if one is None or not hasattr(one, "__dataclass_fields__"):
        return one == other
    names = [f.name for f in fields(one) if f.name not in ("parent", "name")]
    return type(one) is type(other) and all(same_fields(getattr(one, n), getattr(other, n)) for n in names)


def random_params(net):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32), abstract_params(net))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    export_clip(TINY, random_params(TINY), folder)
    return folder


def test_the_defaults_are_vit_l_14():
    net = clip_from_config(VIT_L_14)
    assert net.logit_scale_init == pytest.approx(CLIP().logit_scale_init, abs=1e-4)
    assert same_fields(net.clone(logit_scale_init=CLIP().logit_scale_init), CLIP())


@pytest.mark.parametrize("net", [TINY, TINY.clone(vision=None), TINY.clone(text=None)], ids=("both", "text", "vision"))
def test_a_clip_survives_the_round_trip(net, tmp_path):
    params = random_params(net)
    export_clip(net, params, tmp_path)
    again, found = import_clip(tmp_path)
    if net.text is None or net.vision is None:
        again = again.clone(logit_scale_init=net.logit_scale_init)
    if net.vision is None:
        again = again.clone(mean=net.mean, std=net.std)
    assert same_fields(again, net)
    jax.tree.map(np.testing.assert_array_equal, found, params)


def test_towers_are_joined_and_parted(tmp_path):
    params = random_params(TINY)
    export_towers(TINY, params, tmp_path / "text", tmp_path / "vision", end_id=1)
    net, found = import_towers(tmp_path / "text", tmp_path / "vision")
    assert found["logit_scale"] == np.float32(net.logit_scale_init)
    assert same_fields(net.clone(logit_scale_init=TINY.logit_scale_init), TINY)
    jax.tree.map(np.testing.assert_array_equal, found | {"logit_scale": params["logit_scale"]}, params)
    assert store.read_json(tmp_path / "text" / "config.json")["eos_token_id"] == 1


def test_towers_that_do_not_belong_together(exported, tmp_path):
    text, vision = TINY.clone(vision=None), TINY.clone(text=None, embedding_dim=4)
    export_clip(text, random_params(text), tmp_path / "text")
    export_clip(vision, random_params(vision), tmp_path / "vision")
    with pytest.raises(ValueError, match=r"embeds in 10 dimensions, .*vision in 4"):
        import_towers(tmp_path / "text", tmp_path / "vision")
    with pytest.raises(ValueError, match="text is not a vision tower alone"):
        import_towers(tmp_path / "text", tmp_path / "text")
    with pytest.raises(ValueError, match="is not a text tower alone"):
        import_towers(exported, tmp_path / "vision")
    with pytest.raises(ValueError, match="this CLIP has one tower: write it with export_clip"):
        export_towers(text, random_params(text), tmp_path / "a", tmp_path / "b")
    with pytest.raises(ValueError, match="without towers"):
        config_from_clip(TINY.clone(text=None, vision=None))


def changed(changes):
    """VIT_L_14 with changes, those of a tower by its name and a dot."""
    config = json.loads(json.dumps(VIT_L_14))
    for key, value in changes.items():
        *tower, last = key.split(".")
        (config[tower[0]] if tower else config)[last] = value
    return config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "siglip"}, "model_type='siglip' is no CLIP's"),
        ({"model_type": None}, "model_type=None is no CLIP's"),
        (
            {"architectures": ["CLIPForImageClassification"]},
            r"is of \['CLIPForImageClassification'\], expected a CLIPM",
        ),
        ({"vision_config": 3}, "vision_config is not an object"),
        ({"text_config_dict": [1]}, "text_config_dict is not an object"),
        ({"projection_dim": "768"}, "projection_dim='768' is not supported, only a whole number from 1 to 2147483647"),
        ({"projection_dim": 0}, "projection_dim=0 is not supported"),
        ({"logit_scale_init_value": None}, "logit_scale_init_value=None"),
        ({"text_config_dict.num_hidden_layers": True}, r"text_config\.num_hidden_layers=True"),
        ({"text_config_dict.hidden_act": "relu"}, r"text_config\.hidden_act='relu' is not supported"),
        ({"text_config_dict.attention_dropout": 0.1}, r"text_config\.attention_dropout=0\.1 is not supported"),
        ({"text_config.pruned_heads": {"0": [1]}}, r"text_config\.pruned_heads={'0': \[1\]} is not supported"),
        ({"vision_config_dict.num_channels": 4}, r"vision_config\.num_channels=4 is not supported, only 3"),
        ({"vision_config_dict.image_size": [224, 224]}, r"vision_config\.image_size=\[224, 224\]"),
        ({"vision_config.use_mean_pooling": True}, r"a CLIP has no 'vision_config\.use_mean_pooling'"),
    ],
)
def test_what_is_not_supported_is_named(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        clip_from_config(changed(changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("end_id", [-1, 2, 20])
def test_ends_that_transformers_would_not_find(end_id):
    with pytest.raises(ValueError, match=f"end_id={end_id}: expected below vocab_size=20, and not 2"):
        config_from_clip(TINY, end_id)


def test_a_folder_in_half_precision_comes_back_to_the_byte(exported, tmp_path):
    """A variant whose dtypes are kept is exported as the same file; without, it is widened."""
    (tmp_path / "half").mkdir()
    half = {name: value.astype(np.float16) for name, value in store.read_folder(exported, STEM).items()}
    store.write_file(tmp_path / "half" / f"{STEM}.fp16.safetensors", half)
    for name in ("config.json", PREPROCESSOR):
        shutil.copy(exported / name, tmp_path / "half")
    net, params = import_clip(tmp_path / "half", "fp16", keep_dtype=True)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float16)}
    export_clip(net, params, tmp_path / "back")
    written = (tmp_path / "back" / f"{STEM}.safetensors").read_bytes()
    assert written == (tmp_path / "half" / f"{STEM}.fp16.safetensors").read_bytes()
    _, widened = import_clip(tmp_path / "half", "fp16")
    assert {leaf.dtype for leaf in jax.tree.leaves(widened)} == {np.dtype(np.float32)}
    with pytest.raises(FileNotFoundError, match=r"variant='fp16'$"):
        import_clip(tmp_path / "half")


def broken(tensors, case):
    if case == "missing":
        del tensors["logit_scale"]
    elif case == "extra":
        tensors["text_model.pooler.weight"] = np.zeros((2, 2), np.float32)
    elif case == "shape":
        tensors["vision_model.embeddings.class_embedding"] = np.zeros(9, np.float32)
    elif case == "layer":
        tensors["text_model.encoder.layers.2.layer_norm1.bias"] = np.zeros(12, np.float32)
    elif case == "position_ids":
        tensors["text_model.embeddings.position_ids"] = np.arange(6)[None, ::-1]
    return tensors


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("missing", "'logit_scale' is missing"),
        ("extra", r"no rule matches 'text_model\.pooler\.weight'"),
        ("shape", r"'vision_model\.embeddings\.class_embedding' has shape \(9,\), expected \(16,\)"),
        ("layer", r"'text_model\.encoder\.layers\.2\.layer_norm1\.bias' is not part of the model"),
        ("position_ids", r"'text_model\.embeddings\.position_ids' is not 0, 1, 2"),
    ],
)
def test_tensors_that_do_not_fit_are_named(case, message, exported, tmp_path):
    shutil.copy(exported / "config.json", tmp_path)
    store.write_file(tmp_path / f"{STEM}.safetensors", broken(store.read_folder(exported, STEM), case))
    with pytest.raises(ValueError, match=message):
        import_clip(tmp_path)


def test_folders_of_older_versions(exported, tmp_path):
    """position_ids beside the parameters, float16, and no preprocessor_config.json."""
    shutil.copy(exported / "config.json", tmp_path)
    tensors = {name: value.astype(np.float16) for name, value in store.read_folder(exported, STEM).items()}
    ids = {f"{tower}_model.embeddings.position_ids": np.arange(n)[None] for tower, n in (("text", 6), ("vision", 5))}
    store.write_file(tmp_path / f"{STEM}.safetensors", tensors | ids)
    net, params = import_clip(tmp_path)
    assert net.mean == CLIP().mean
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3), params, random_params(TINY))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"do_rescale": False}, r"preprocessor_config\.json: do_rescale=False is not supported, only True"),
        ({"rescale_factor": 0.5}, r"rescale_factor=0\.5 is not supported, only 1/255"),
        ({"image_mean": [0.5, 0.5]}, r"image_mean=\[0\.5, 0\.5\] is not supported, only a list of 3, each a number"),
        ({"image_std": [0.5, 0.5, 0]}, r"image_std=\[0\.5, 0\.5, 0\] is not .* each a number above 0"),
    ],
)
def test_pixels_that_are_not_supported(changes, message, exported, tmp_path):
    shutil.copytree(exported, tmp_path, dirs_exist_ok=True)
    path = tmp_path / PREPROCESSOR
    path.write_text(json.dumps(store.read_json(path) | changes))
    with pytest.raises(ValueError, match=message):
        import_clip(tmp_path)


def test_pixels_without_a_mean(exported, tmp_path):
    shutil.copytree(exported, tmp_path, dirs_exist_ok=True)
    (tmp_path / PREPROCESSOR).write_text('{"do_normalize": false}')
    net, _ = import_clip(tmp_path)
    assert (net.mean, net.std) == ((0.0,) * 3, (1.0,) * 3)


def test_export_refuses_other_params(tmp_path):
    params = random_params(TINY)
    del params["vision"]["class_token"]
    with pytest.raises(ValueError, match="'vision/class_token' is missing"):
        export_clip(TINY, params, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_without_config_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        import_clip(tmp_path)
