"""State_dicts of CompVis' autoencoders: their names, what survives, what is left out and refused."""

from dataclasses import fields

import jax
import numpy as np
import pytest
import random_weights

from flaxgen.nets.attention import SelfAttention
from flaxgen.nets.autoencoder import Autoencoder
from flaxgen.weights import store
from flaxgen.weights.autoencoder import abstract_params
from flaxgen.weights.taming import export_taming, import_taming, is_taming

ONE = SelfAttention()
VQGAN = Autoencoder(
    image_size=16,
    channels=32,
    multipliers=(1, 2),
    depth=1,
    attention=(None, ONE),
    latent_channels=6,
    moments=False,
)
KL = VQGAN.clone(moments=True, attention=(), multipliers=(1, 2, 1), depth=2)


def same_fields(one, other):
    return all(getattr(one, f.name) == getattr(other, f.name) for f in fields(one) if f.name not in ("parent", "name"))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "vqgan.safetensors"
    params = random_weights.draw_like(abstract_params(VQGAN, 7))
    export_taming(VQGAN, params, path)
    return path, params


def test_names_and_shapes_are_those_of_taming(exported):
    """Of taming/modules/diffusionmodules/model.py: attention is 1x1 convolutions, `up` is numbered by resolution."""
    tensors = store.read_file(exported[0])
    shapes = {name: value.shape for name, value in tensors.items()}
    assert {
        "encoder.conv_in.weight": (32, 3, 3, 3),
        "encoder.down.0.downsample.conv.bias": (32,),
        "encoder.down.1.block.0.nin_shortcut.weight": (64, 32, 1, 1),
        "encoder.down.1.attn.0.proj_out.weight": (64, 64, 1, 1),
        "encoder.mid.block_2.norm2.bias": (64,),
        "encoder.norm_out.weight": (64,),
        "quant_conv.weight": (6, 6, 1, 1),
        "quantize.embedding.weight": (7, 6),
        "decoder.mid.attn_1.k.weight": (64, 64, 1, 1),
        "decoder.up.1.attn.1.norm.weight": (64,),
        "decoder.up.1.upsample.conv.weight": (64, 64, 3, 3),
        "decoder.up.0.block.0.nin_shortcut.weight": (32, 64, 1, 1),
        "decoder.conv_out.weight": (3, 32, 3, 3),
    }.items() <= shapes.items()
    assert not {name for name in shapes if re_levels(name)}
    assert is_taming(shapes)
    assert not is_taming({"encoder.conv_in.weight": ()})


def re_levels(name):
    """What would stand there if the way up were numbered from the latents on."""
    return name.startswith(("decoder.up.0.upsample", "decoder.up.0.attn", "encoder.down.1.downsample"))


@pytest.mark.parametrize(
    ("net", "codes"),
    [
        (VQGAN, 7),
        (VQGAN.clone(code_channels=4, middle="resblocks", in_channels=1, multipliers=(1, 1.5), channels=64), 7),
        (KL, 0),
        (KL.clone(quant_convs=False, multipliers=(1,)), 0),
    ],
)
def test_nets_survive_the_round_trip(net, codes, tmp_path):
    params = random_weights.draw_like(abstract_params(net, codes))
    export_taming(net, params, tmp_path / "a.safetensors")
    again, found = import_taming(tmp_path / "a.safetensors", image_size=16)
    assert same_fields(again, net)
    jax.tree.map(np.testing.assert_array_equal, found, params)


def test_the_loss_of_a_run_is_left_out(exported, tmp_path):
    path, params = exported
    more = {"loss.discriminator.main.0.weight": np.ones((2, 3, 4, 4), np.float32), "loss.logvar": np.ones((), "f4")}
    store.write_file(tmp_path / "last.safetensors", store.read_file(path) | more)
    _, found = import_taming(tmp_path / "last.safetensors")
    jax.tree.map(np.testing.assert_array_equal, found, params)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder.conv_in.weight": None}, r"'encoder\.conv_in\.weight' of 4 dimensions is missing"),
        ({"decoder.conv_in.weight": (64, 6)}, r"'decoder\.conv_in\.weight' of 4 dimensions is missing"),
        ({"encoder.conv_in.weight": (0, 3, 3, 3)}, r"'encoder\.conv_in\.weight' of 4 dimensions is missing"),
        ({"quantize.embedding.weight": ()}, r"'quantize\.embedding\.weight' is not part of the model"),
        ({"decoder.up.1.attn.1.q.weight": (64, 64)}, "expected 4 dimensions"),
        ({"encoder.mid.attn_1.q.bias": None}, r"'encoder\.mid\.attn_1\.q\.bias' is missing"),
        ({"quantize.embed.weight": (7, 6)}, r"no rule matches 'quantize\.embed\.weight'"),
        ({"first_stage_model.quant_conv.bias": (6,)}, r"no rule matches 'first_stage_model"),
        ({"encoder.down.3.block.0.conv1.weight": (64, 64, 3, 3)}, r"'encoder\.down\.2\.block\.0\.conv1\.weight'"),
    ],
)
def test_broken_tensors_are_named(exported, changes, message, tmp_path):
    tensors = store.read_file(exported[0])
    for name, shape in changes.items():
        tensors.pop(name, None)
        if shape is not None:
            tensors[name] = np.zeros(shape, np.float32)
    store.write_file(tmp_path / "a.safetensors", tensors)
    with pytest.raises(ValueError, match=message) as caught:
        import_taming(tmp_path / "a.safetensors")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm_groups": 16}, "norm_groups=16, spatial_norm=False is not in a CompVis autoencoder"),
        ({"spatial_norm": True}, "norm_groups=32, spatial_norm=True"),
        ({"middle": "none"}, "middle='none' is not in a CompVis autoencoder"),
    ],
)
def test_what_compvis_lacks_is_not_exported(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export_taming(VQGAN.clone(**changes), {}, tmp_path / "a.safetensors")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no"):
        import_taming(tmp_path / "a.safetensors")
