"""Single files of Stable Diffusion: their names, their kinds, what survives, what is left out and refused."""

import jax
import ldm_toy
import numpy as np
import pytest

from flaxgen.nets.attention import SpatialTransformer
from flaxgen.weights import store
from flaxgen.weights.autoencoder_config import config_from_autoencoder
from flaxgen.weights.clip_config import config_from_clip
from flaxgen.weights.ldm import KINDS, kind_of, read_single, write_single
from flaxgen.weights.ldm_unet import unet_from_shapes
from flaxgen.weights.unet_condition_config import condition_config_from_unet

UNET, SD2_TEXT = "model.diffusion_model", "cond_stage_model.model"

NAMES = [name for name in KINDS if "inpainting" not in name]
"""Of every layout one; all are in tests/parity."""


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Of every kind a model and its file."""
    folder = tmp_path_factory.mktemp("single")
    models = {name: ldm_toy.make(name) for name in NAMES}
    for name, model in models.items():
        write_single(folder / f"{name}.safetensors", model)
    return models, folder


def changed(written, name, tmp_path, changes, without=()):
    """The file of a kind with some tensors more, or others."""
    path = tmp_path / "changed.safetensors"
    tensors = store.read_file(written[1] / f"{name}.safetensors") | changes
    store.write_file(path, {key: value for key, value in tensors.items() if key not in without})
    return path


def assert_same(one, other):
    """The same nets and numbers."""
    assert one.kind is other.kind
    assert condition_config_from_unet(one.unet) == condition_config_from_unet(other.unet)
    first_stages = (config_from_autoencoder(m.autoencoder.net, m.autoencoder.latents) for m in (one, other))
    assert next(first_stages) == next(first_stages)
    for (net, _), (again, _) in zip(one.texts, other.texts, strict=True):
        assert config_from_clip(net) == config_from_clip(again)
    params = [(m.unet_params, m.autoencoder.params, [tower for _, tower in m.texts]) for m in (one, other)]
    jax.tree.map(np.testing.assert_array_equal, *params)


@pytest.mark.parametrize("name", NAMES)
def test_models_survive_the_round_trip(written, name, tmp_path):
    models, folder = written
    path, again = folder / f"{name}.safetensors", tmp_path / "again.safetensors"
    assert kind_of(store.read_header(path)) is KINDS[name]
    found = read_single(path)
    assert_same(found, models[name])
    write_single(again, found)
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("name", ["sd1", "sd2"])
def test_inpainting_is_known_by_nine_channels(written, name):
    header = store.read_header(written[1] / f"{name}.safetensors")
    first = f"{UNET}.input_blocks.0.0.weight"
    for channels, expected in ((9, f"{name}-inpainting"), (5, None)):
        shape = (32, channels, 3, 3)
        assert kind_of(header | {first: header[first]._replace(shape=shape)}) is KINDS.get(expected)


def test_names_and_shapes_are_those_of_the_original_code(written):
    """Of ldm/modules/diffusionmodules/openaimodel.py and open_clip/transformer.py, by hand for a few."""
    expected = {
        "sd1": {
            f"{UNET}.input_blocks.0.0.weight": (32, 4, 3, 3),
            f"{UNET}.input_blocks.2.1.proj_in.weight": (32, 32, 1, 1),
            f"{UNET}.input_blocks.3.0.op.weight": (32, 32, 3, 3),
            f"{UNET}.input_blocks.4.0.skip_connection.weight": (64, 32, 1, 1),
            f"{UNET}.middle_block.1.transformer_blocks.0.attn2.to_k.weight": (64, 24),
            f"{UNET}.output_blocks.2.1.conv.weight": (64, 64, 3, 3),
            f"{UNET}.output_blocks.5.1.norm.weight": (32,),
            f"{UNET}.out.2.weight": (4, 32, 3, 3),
            "first_stage_model.decoder.up.1.upsample.conv.weight": (64, 64, 3, 3),
            "first_stage_model.quant_conv.weight": (8, 8, 1, 1),
            "cond_stage_model.transformer.text_model.encoder.layers.1.self_attn.q_proj.weight": (24, 24),
        },
        "sd2": {
            f"{UNET}.output_blocks.1.2.conv.weight": (64, 64, 3, 3),
            f"{SD2_TEXT}.positional_embedding": (9, 40),
            f"{SD2_TEXT}.transformer.resblocks.2.attn.in_proj_weight": (120, 40),
            f"{SD2_TEXT}.transformer.resblocks.2.mlp.c_fc.weight": (160, 40),
        },
        "sdxl": {
            f"{UNET}.label_emb.0.0.weight": (128, 48 + 6 * 256),
            f"{UNET}.input_blocks.3.1.proj_in.weight": (64, 64),
            "conditioner.embedders.0.transformer.text_model.final_layer_norm.weight": (24,),
            "conditioner.embedders.1.model.text_projection": (40, 48),
        },
    }
    for name, shapes in expected.items():
        header = store.read_header(written[1] / f"{name}.safetensors")
        assert {key: header[key].shape for key in shapes} == shapes


def test_heads_are_eight_or_one_for_every_64_channels():
    transformer = "1.transformer_blocks.0.attn2.to_k.weight"
    shapes = {"input_blocks.0.0.weight": (320, 4, 3, 3), "out.2.weight": (4, 320, 3, 3)}
    for number, width in ((1, 320), (3, 640)):
        shapes |= {f"input_blocks.{number}.0.in_layers.2.weight": (width, 320, 3, 3)}
        shapes |= {f"input_blocks.{number}.{transformer}": (width, 1024)}
    shapes |= {f"middle_block.{transformer}": (640, 1024), "middle_block.1.proj_in.weight": (640, 640)}
    for heads, expected in ((8, [8, 8]), (None, [5, 10])):
        net = unet_from_shapes(shapes, "here", 64, heads)
        assert [value.heads for value in net.attention] == expected


def test_what_is_no_part_of_the_model_is_left_out(written, tmp_path):
    ones = np.ones((3, 4), np.float32)
    block = {
        key.replace("resblocks.2", "resblocks.3"): value
        for key, value in store.read_file(written[1] / "sd2.safetensors").items()
        if "resblocks.2" in key
    }
    extras = {"betas": ones, "model_ema.diffusion_modeltime_embed0weight": ones, f"{SD2_TEXT}.logit_scale": ones}
    extras |= {f"{SD2_TEXT}.text_projection": ones, **block}
    assert_same(read_single(changed(written, "sd2", tmp_path, extras)), written[0]["sd2"])
    ids = {"cond_stage_model.transformer.text_model.embeddings.position_ids": np.arange(9)[None]}
    assert_same(read_single(changed(written, "sd1", tmp_path, ids)), written[0]["sd1"])


def test_half_precision_is_read_as_float32_or_kept(written, tmp_path):
    path = tmp_path / "half.safetensors"
    tensors = store.read_file(written[1] / "sd1.safetensors")
    store.write_file(path, {key: value.astype(np.float16) for key, value in tensors.items()})
    assert {leaf.dtype for leaf in jax.tree.leaves(read_single(path).unet_params)} == {np.dtype(np.float32)}
    again = tmp_path / "again.safetensors"
    write_single(again, read_single(path, keep_dtype=True))
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("name", "changes", "without", "message"),
    [
        ("sdxl", {"edm_mean": np.ones(4)}, (), "no rule matches 'edm_mean'"),
        ("sd1", {f"{UNET}.input_blocks.0.0.weight": np.ones((32, 8, 3, 3))}, (), "is no single file of sd1, .* 4 or 9"),
        ("sd2", {f"{UNET}.label_emb.0.0.weight": np.ones((128, 9))}, (), "is no single file of"),
        ("sdxl", {f"{UNET}.label_emb.0.0.weight": np.ones((128, 1583))}, (), "is no single file of"),
        ("sd1", {}, ("first_stage_model.decoder.conv_in.weight",), "looked for .*first_stage_model.decoder.conv_in"),
        ("sd1", {}, (f"{UNET}.input_blocks.2.1.norm.weight",), rf"{UNET}.input_blocks.2.1.norm.weight' is missing"),
        ("sd1", {}, (f"{UNET}.out.2.weight",), r"'out.2.weight' of 2 dimensions or more is missing"),
        ("sd2", {}, (f"{SD2_TEXT}.transformer.resblocks.1.attn.in_proj_bias",), "resblocks.1.attn.in_proj_bias"),
    ],
)
def test_other_files_are_refused_by_name(written, name, changes, without, message, tmp_path):
    changes = {key: value.astype(np.float32) for key, value in changes.items()}
    path = changed(written, name, tmp_path, changes, without)
    with pytest.raises(ValueError, match=message) as caught:
        read_single(path)
    assert "\n" not in str(caught.value)


def test_pickles_and_missing_files_are_refused(tmp_path):
    with pytest.raises(
        ValueError,
        match="is a pickle, which is never read: save its tensors as safetensors first, of a checkpoint",
    ):
        read_single(tmp_path / "model.ckpt")
    with pytest.raises(FileNotFoundError, match="there is no"):
        read_single(tmp_path / "model.safetensors")


def test_what_a_reader_would_take_for_another_net_is_not_written(written, tmp_path):
    sd1, path = written[0]["sd1"], tmp_path / "refused.safetensors"
    four = SpatialTransformer(heads=4)
    text = (sd1.texts[0][0].clone(text=sd1.texts[0][0].text.clone(activation="gelu")), sd1.texts[0][1])
    latents = sd1.autoencoder._replace(latents=ldm_toy.KINDS["sdxl"].latents)
    for changes, message in (
        ({"unet": sd1.unet.clone(attention=(four, None), middle=four)}, "attention_head_dim=4 .* take 8"),
        ({"unet": sd1.unet.clone(norm_groups=16)}, "norm_num_groups=16"),
        ({"texts": (text,)}, "hidden_act='gelu' .* take 'quick_gelu'"),
        ({"autoencoder": latents}, "scaling_factor=0.13025 .* take 0.18215"),
        ({"kind": KINDS["sd1-inpainting"]}, "of kind 'sd1', not of 'sd1-inpainting'"),
    ):
        with pytest.raises(ValueError, match=message):
            write_single(path, sd1._replace(**changes))
    assert not path.exists()
