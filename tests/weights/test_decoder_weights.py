"""Karlo's folders without torch: what fields mean, and what is refused, by name. Numbers: tests/parity."""

import shutil

import jax
import numpy as np
import pytest

from flaxgen.nets.attention import TokenAttention
from flaxgen.nets.clip import TextTower
from flaxgen.nets.decoder import Decoder
from flaxgen.nets.unet import UNet
from flaxgen.weights import store
from flaxgen.weights.decoder import STEM, abstract_params, export_decoder, import_decoder
from flaxgen.weights.decoder_config import configs_from_decoder, decoder_from_configs

ATTENTION = TokenAttention(head_channels=8)
UNET = UNet(
    image_size=8,
    channels=8,
    multipliers=(1, 2),
    depth=1,
    attention=(None, ATTENTION),
    middle=ATTENTION,
    norm_groups=4,
    norm_eps=1e-5,
    added=True,
    token_dim=12,
    learned_variance=True,
    scale_shift=True,
    resample="resnet",
    time_order="cos_sin",
    time_shift=0,
)
NET = Decoder(unet=UNET, embedding_dim=6, text_dim=6, image_tokens=3)
KARLO = {
    "_class_name": "UNet2DConditionModel",
    "sample_size": 64,
    "in_channels": 3,
    "out_channels": 6,
    "layers_per_block": 3,
    "down_block_types": ["ResnetDownsampleBlock2D", *3 * ["SimpleCrossAttnDownBlock2D"]],
    "up_block_types": [*3 * ["SimpleCrossAttnUpBlock2D"], "ResnetUpsampleBlock2D"],
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "block_out_channels": [320, 640, 960, 1280],
    "cross_attention_dim": 1536,
    "class_embed_type": "identity",
    "attention_head_dim": 64,
    "resnet_time_scale_shift": "scale_shift",
}
PROJECTION = {"_class_name": "UnCLIPTextProjModel", "time_embed_dim": 1280, "cross_attention_dim": 1536}
"""What the folders decoder/ and text_proj/ of kakaobrain/karlo-v1-alpha say."""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A random net's parameters and its two folders."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("exported")
    params = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32), abstract_params(NET))
    export_decoder(NET, params, folder / "decoder", folder / "text_proj")
    return params, folder


def test_karlos_config_is_the_published_decoder():
    """320 channels x (1, 2, 3, 4), 3 blocks, attention at 32, 16 and 8 px, 64-channel heads, learned variance."""
    net = decoder_from_configs(KARLO, PROJECTION)
    value = TokenAttention(head_channels=64)
    unet = UNET.clone(
        image_size=64, channels=320, multipliers=(1, 2, 3, 4), depth=3, attention=(None, value, value, value),
        middle=value, norm_groups=32, token_dim=1536, downsample_padding=(1, 1),
    )  # fmt: skip
    assert net == Decoder(unet=unet, embedding_dim=768, text_dim=768, image_tokens=4)


def test_a_decoder_survives_the_round_trip(exported):
    params, folder = exported
    net, found = import_decoder(folder / "decoder", folder / "text_proj")
    assert net == NET
    assert jax.tree.structure(found) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, found, params)


def test_names_and_shapes_are_diffusers(exported):
    """Written down by hand for a few."""
    _, folder = exported
    shapes = {
        "decoder": {
            "down_blocks.0.downsamplers.0.conv1.weight": (8, 8, 3, 3),
            "down_blocks.1.attentions.0.add_k_proj.weight": (16, 12),
            "mid_block.attentions.0.add_v_proj.bias": (16,),
            "up_blocks.0.attentions.1.to_out.0.weight": (16, 16),
        },
        "text_proj": {
            "learned_classifier_free_guidance_embeddings": (6,),
            "clip_extra_context_tokens_proj.weight": (36, 6),
            "clip_image_embeddings_project_to_time_embeddings.weight": (32, 6),
            "text_encoder_hidden_states_norm.bias": (12,),
        },
    }
    for way, expected in shapes.items():
        header = store.read_header(folder / way / f"{STEM}.safetensors")
        assert {name: header[name].shape for name in expected} == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_class_name": "UNet2DModel"}, "is of a UNet2DModel, expected a UNet2DConditionModel"),
        ({"down_block_types": ["CrossAttnDownBlock2D"] * 4}, "down_block_types has CrossAttnDownBlock2D"),
        ({"up_block_types": ["SimpleCrossAttnUpBlock2D"] * 4}, "at other levels"),
        ({"mid_block_type": "UNetMidBlock2DCrossAttn"}, "mid_block_type='UNetMidBlock2DCrossAttn'"),
        ({"class_embed_type": "timestep"}, "class_embed_type='timestep'"),
        ({"class_embed_type": None}, "class_embed_type=None"),
        ({"only_cross_attention": True}, "only_cross_attention=True"),
        ({"cross_attention_norm": "layer_norm"}, "cross_attention_norm='layer_norm'"),
        ({"encoder_hid_dim": 768}, "encoder_hid_dim=768"),
        ({"norm_eps": 1e-6}, "norm_eps=1e-06"),
        ({"time_embedding_type": "fourier"}, "time_embedding_type='fourier'"),
        ({"attention_head_dim": [64, 64, 64, 64]}, "attention_head_dim="),
        ({"cross_attention_dim": 1024}, "cross_attention_dim=1536, but the decoder's is 1024"),
        ({"time_embedding_dim": 640}, "time_embed_dim=1280, but the decoder's is 640"),
        ({"attends": 1}, "has no 'attends'"),
    ],
)
def test_what_is_not_supported_is_named(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        decoder_from_configs(KARLO | changes, PROJECTION)
    assert "\n" not in str(caught.value)


def test_what_text_proj_lacks_is_named():
    with pytest.raises(ValueError, match="time_embed_dim=None, but the decoder's is 1280"):
        decoder_from_configs(KARLO, {"cross_attention_dim": 1536})
    with pytest.raises(ValueError, match="has no 'width'"):
        decoder_from_configs(KARLO, PROJECTION | {"width": 3})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"null_text": True}, "null_text=True"),
        ({"text": TextTower()}, "a text tower"),
        ({"text_dim": 5}, "text_dim=5"),
        ({"unet": UNET.clone(patch=2)}, "patch=2"),
        ({"unet": UNET.clone(resample="conv")}, "resample='conv'"),
        ({"unet": UNET.clone(norm_eps=1e-6)}, "norm_eps=1e-06"),
        ({"unet": UNET.clone(middle="resblocks")}, "middle='resblocks'"),
        ({"unet": UNET.clone(middle=TokenAttention(head_channels=8, norm_groups=2))}, "norm_groups=2"),
        ({"unet": UNET.clone(attention=(TokenAttention(head_channels=4), None))}, "middle="),
        ({"unet": UNET.clone(attention=(TokenAttention(head_channels=4), ATTENTION), middle="none")}, "all are one"),
        ({"unet": UNET.clone(num_classes=3)}, "num_classes=3"),
        ({"unet": UNET.clone(embedding_dim=3)}, "embedding_dim=3"),
        ({"unet": UNET.clone(attention=(), middle=TokenAttention())}, "head_channels"),
    ],
)
def test_what_karlo_lacks_is_not_exported(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export_decoder(NET.clone(**changes), {}, tmp_path / "decoder", tmp_path / "text_proj")
    assert not list(tmp_path.iterdir())


def test_a_net_without_a_middle_has_a_config():
    unet = UNET.clone(middle="none", downsample_padding=(1, 1))
    assert decoder_from_configs(*configs_from_decoder(NET.clone(unet=unet))) == NET.clone(unet=unet)


@pytest.mark.parametrize("way", ["decoder", "text_proj"])
def test_a_tensor_that_lacks_is_named_with_its_folder(way, exported, tmp_path):
    _, folder = exported
    shutil.copytree(folder, tmp_path / "karlo")
    name = {"decoder": "mid_block.attentions.0.add_k_proj.bias", "text_proj": "embedding_proj.bias"}[way]
    path = tmp_path / "karlo" / way / f"{STEM}.safetensors"
    tensors = store.read_file(path)
    del tensors[name]
    store.write_file(path, tensors)
    with pytest.raises(ValueError, match=rf"karlo/{way}: tensor '{name}' is missing"):
        import_decoder(tmp_path / "karlo" / "decoder", tmp_path / "karlo" / "text_proj")
