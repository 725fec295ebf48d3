"""Folders of diffusers' autoencoders without torch: what survives, and what is refused, by name. Numbers:
tests/parity."""

from dataclasses import fields

import jax
import numpy as np
import pytest
import random_weights

from flaxgen.nets.attention import SelfAttention
from flaxgen.nets.autoencoder import Autoencoder
from flaxgen.nets.tiny_autoencoder import TinyAutoencoder
from flaxgen.weights import store
from flaxgen.weights.autoencoder import STEM, abstract_params, export_autoencoder, import_autoencoder
from flaxgen.weights.autoencoder_config import Latents, autoencoder_from_config

ONE = SelfAttention()
KL = Autoencoder(image_size=8, channels=8, multipliers=(1, 2), depth=1, norm_groups=4)
VQ = KL.clone(moments=False, code_channels=5, attention=(None, ONE))
MOVQ = VQ.clone(channels=32, code_channels=0, spatial_norm=True, norm_groups=32)
TINY = TinyAutoencoder(channels=4, encoder_depth=(1, 2), decoder_depth=(2, 1))
SD = {  # runwayml/stable-diffusion-v1-5/vae/config.json
    "_class_name": "AutoencoderKL",
    "_diffusers_version": "0.6.0",
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 256,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
TAESD = {"_class_name": "AutoencoderTiny"}
MOVQ_CONFIG = SD | {"_class_name": "VQModel", "norm_type": "spatial", "vq_embed_dim": 4}


def same_fields(one, other):
    return all(getattr(one, f.name) == getattr(other, f.name) for f in fields(one) if f.name not in ("parent", "name"))


def test_the_defaults_are_stable_diffusions():
    net, latents, codes = autoencoder_from_config(SD)
    assert same_fields(net, Autoencoder())
    assert (latents, codes) == (Latents(scaling_factor=0.18215, force_upcast=True), 0)


def test_the_defaults_of_the_tiny_one_are_diffusers():
    net, latents, _ = autoencoder_from_config(TAESD)
    assert same_fields(net, TinyAutoencoder())
    assert latents == Latents(shift_factor=0.0)


@pytest.mark.parametrize(
    ("net", "codes", "latents"),
    [
        (KL, 0, Latents(0.13025, None, (0.5, 1.0), (2.0, 3.0), True)),
        (KL.clone(quant_convs=False, middle="resblocks", latent_channels=2), 0, Latents(0.3611, 0.1159)),
        (VQ, 7, Latents(0.18215, lookup_from_codebook=True)),
        (MOVQ.clone(channels=64, multipliers=(1, 1.5), attention=()), 7, Latents(force_upcast=True)),
        (TINY.clone(image_size=512), 0, Latents(0.5, 0.25, latent_magnitude=2.0, latent_shift=0.75)),
    ],
)
def test_nets_survive_the_round_trip(net, codes, latents, tmp_path):
    params = random_weights.draw_like(abstract_params(net, codes))
    export_autoencoder(net, params, latents, tmp_path / "vae")
    found = import_autoencoder(tmp_path)
    assert same_fields(found.net, net)
    assert found.latents == latents
    assert ("codebook" in found.params) == (codes > 0)
    jax.tree.map(np.testing.assert_array_equal, found.params, params)


@pytest.mark.parametrize(
    ("base", "changes", "message"),
    [
        (
            SD,
            {"_class_name": "AsymmetricAutoencoderKL"},
            "_class_name='AsymmetricAutoencoderKL', expected one of AutoencoderKL",
        ),
        (SD, {"out_channels": 4}, "out_channels=4 is not supported, only 3"),
        (SD, {"sample_size": [256, 512]}, r"sample_size=\[256, 512\] is not supported"),
        (SD, {"act_fn": "relu"}, "act_fn='relu'"),
        (SD, {"down_block_types": ["DownEncoderBlock2D"]}, "1 blocks for 4 levels"),
        (SD, {"up_block_types": ["AttnUpDecoderBlock2D", *["UpDecoderBlock2D"] * 3]}, "attend at other levels"),
        (SD, {"up_block_types": ["UpBlock2D"] * 4}, "only a list of one or more, each 'UpDecoderBlock2D' or 'Attn"),
        (SD, {"use_quant_conv": False}, "use_post_quant_conv=True is not supported, only False"),
        (SD, {"norm_type": "spatial"}, "a AutoencoderKL has no 'norm_type'"),
        (SD, {"latents_mean": [1, "2"]}, "latents_mean="),
        (MOVQ_CONFIG, {"norm_num_groups": 16}, "norm_num_groups=16 is not supported, only 32"),
        (MOVQ_CONFIG, {"vq_embed_dim": 8}, "vq_embed_dim=8 is not supported, only 4"),
        (TAESD, {"encoder_block_out_channels": [64, 64, 64, 32]}, "encoder_block_out_channels"),
        (TAESD, {"num_decoder_blocks": [3, 1]}, "num_decoder_blocks"),
        (TAESD, {"upsample_fn": "bilinear"}, "upsample_fn='bilinear'"),
    ],
)
def test_what_is_not_supported_is_named(base, changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        autoencoder_from_config(base | changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("net", "codes", "latents", "message"),
    [
        (KL.clone(attention=(None, SelfAttention(heads=2))), 0, Latents(), r"attention=SelfAttention\(heads=2"),
        (KL.clone(middle="none"), 0, Latents(), "middle='none'"),
        (KL.clone(norm_eps=1e-5), 0, Latents(), "norm_eps=1e-05"),
        (KL.clone(multipliers=(2, 2)), 0, Latents(), r"multipliers=\(2, 2\)"),
        (KL.clone(depth=(1, 1)), 0, Latents(), r"depth=\(1, 1\)"),
        (KL.clone(spatial_norm=True), 0, Latents(), "spatial_norm=True, code_channels=0 is not in an Auto"),
        (KL.clone(code_channels=3), 0, Latents(), "spatial_norm=False, code_channels=3 is not"),
        (KL.clone(moments=False), 0, Latents(), "moments=False is not in an AutoencoderKL, only True"),
        (KL, 7, Latents(), "moments=True is not in a VQModel, only False"),
        (VQ.clone(quant_convs=False, code_channels=0), 7, Latents(), "quant_convs=False is not in a VQModel"),
        (MOVQ.clone(norm_groups=16), 7, Latents(), "norm_groups=32"),
        (KL, 0, Latents(lookup_from_codebook=True), "no counterpart of 'lookup_from_codebook'"),
        (VQ, 7, Latents(shift_factor=1.0), "no counterpart of 'shift_factor'"),
        (TINY, 0, Latents(latents_mean=(1.0,)), "no counterpart of 'latents_mean'"),
    ],
)
def test_what_diffusers_lacks_is_not_exported(net, codes, latents, message, tmp_path):
    params = {"codebook": np.zeros((codes, 5), np.float32)} if codes else {}
    with pytest.raises(ValueError, match=message) as caught:
        export_autoencoder(net, params, latents, tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    export_autoencoder(VQ, random_weights.draw_like(abstract_params(VQ, 7)), Latents(), folder)
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantize.embedding.weight": None}, r"'quantize\.embedding\.weight' is missing"),
        ({"quantize.embedding.weight": (7, 4)}, r"shape \(7, 4\), expected \(7, 5\)"),
        ({"loss.logvar": ()}, r"no rule matches 'loss\.logvar'"),
        ({"encoder.time_embedding.linear_1.bias": (4,)}, r"'encoder\.time_embedding\.linear_1\.bias' is not part"),
        ({"encoder.mid_block.attentions.0.query.bias": (16,)}, "are both 'encoder.mid_block.attentions.0.to_q.bias'"),
    ],
)
def test_broken_tensors_are_named(exported, changes, message, tmp_path):
    tensors = store.read_file(exported / f"{STEM}.safetensors")
    for name, shape in changes.items():
        tensors.pop(name, None)
        if shape is not None:
            tensors[name] = np.zeros(shape, np.float32)
    store.write_file(tmp_path / f"{STEM}.safetensors", tensors)
    (tmp_path / "config.json").write_bytes((exported / "config.json").read_bytes())
    with pytest.raises(ValueError, match=message):
        import_autoencoder(tmp_path)


def test_a_codebook_is_a_matrix(tmp_path):
    with pytest.raises(ValueError, match=r"the codebook has shape \(7,\)"):
        export_autoencoder(VQ, {"codebook": np.zeros(7, np.float32)}, Latents(), tmp_path)
