"""UNet beside diffusers' UNet2DModel: the same output, and the same file back."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.nets.attention import SelfAttention
from flaxgen.weights import store
from flaxgen.weights.unet2d import STEM, export_unet2d, import_unet2d

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
]

TINY = {
    "sample_size": 16,
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
}
CIFAR10 = {  # google/ddpm-cifar10-32
    "sample_size": 32,
    "block_out_channels": (128, 256, 256, 256),
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "norm_eps": 1e-6,
    "attention_head_dim": None,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
}
ADM = {  # the shape of openai/diffusers-cd_imagenet64_l2
    "block_out_channels": (32, 64, 96),
    "layers_per_block": 2,
    "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "downsample_type": "resnet",
    "upsample_type": "resnet",
    "resnet_time_scale_shift": "scale_shift",
    "attention_head_dim": 16,
    "out_channels": 6,
}
CASES = {
    "tiny": {},
    "one_head_padding_end": {"attention_head_dim": None, "downsample_padding": 0, "norm_eps": 1e-6},
    "sin_cos_shift_1": {"flip_sin_to_cos": False, "freq_shift": 1, "time_embedding_dim": 48},
    "adm": ADM,
    "adm_middle_norm_and_classes": ADM | {"attn_norm_num_groups": 16, "num_class_embeds": 10},
    "classes_and_null": {"num_class_embeds": 11},
    "middle_without_attention": {"add_attention": False},
    "resampling_by_default": {"downsample_type": None, "upsample_type": None},
    "no_middle": {"mid_block_type": None},
    "fourier": {"time_embedding_type": "fourier"},
    "uneven_widths": {"block_out_channels": (32, 56)},
}


def random_model(config):
    """A UNet2DModel without a tensor at 0 or 1, so that no wrong rule can pass unseen."""
    torch.manual_seed(0)
    model = diffusers.UNet2DModel(**config).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "time_proj" not in name:
                value.add_(0.1 * torch.randn_like(value))
    return model


def compare(model, folder, batch=2):
    """Max abs difference of both nets, after checking that what is exported is what was imported."""
    model.save_pretrained(folder / "there")
    unet, params = import_unet2d(folder / "there")
    export_unet2d(unet, params, folder / "back")
    there, back = (store.read_file(folder / way / f"{STEM}.safetensors") for way in ("there", "back"))
    assert there.keys() == back.keys()
    for name, value in there.items():
        assert (value.dtype, value.shape, value.tobytes()) == (back[name].dtype, back[name].shape, back[name].tobytes())

    rng = np.random.default_rng(0)
    size = model.config.sample_size
    x = rng.standard_normal((batch, size, size, 3)).astype(np.float32)
    time = np.array([3.0, 871.0], np.float32)[:batch]
    classes = model.config.num_class_embeds
    label = np.array([0, classes - 1])[:batch] if classes else None
    ours = jax.jit(lambda p, x, t: unet.apply({"params": p}, x, t, None if label is None else jnp.asarray(label)))
    again = diffusers.UNet2DModel.from_pretrained(folder / "back").eval()
    with torch.no_grad():
        given = torch.from_numpy(x.transpose(0, 3, 1, 2)), torch.from_numpy(time)
        theirs = model(*given, class_labels=None if label is None else torch.from_numpy(label)).sample
        from_back = again(*given, class_labels=None if label is None else torch.from_numpy(label)).sample
    assert torch.equal(theirs, from_back)
    theirs = theirs.numpy().transpose(0, 2, 3, 1)
    assert theirs.std() > 0.1 / (time.max() if unet.time_embedding == "fourier" else 1)
    return unet, params, np.abs(theirs - np.asarray(ours(params, x, time))).max()


@pytest.mark.parametrize("name", CASES)
def test_unet_computes_what_unet2dmodel_computes(name, tmp_path):
    _, _, difference = compare(random_model(TINY | CASES[name]), tmp_path)
    assert difference <= 1e-4


@pytest.mark.parametrize("name", CASES)
def test_config_comes_back(name, tmp_path):
    """In all that matters: what a block does not use is not kept."""
    model = diffusers.UNet2DModel(**(TINY | CASES[name]))
    model.save_pretrained(tmp_path / "there")
    unet, params = import_unet2d(tmp_path / "there")
    export_unet2d(unet, params, tmp_path / "back")
    configs = [json.loads((tmp_path / way / "config.json").read_text()) for way in ("there", "back")]
    there, back = ({k: v for k, v in config.items() if not k.startswith("_")} for config in configs)
    if name == "no_middle":
        there["add_attention"] = False
    if name == "resampling_by_default":
        there |= {"downsample_type": "conv", "upsample_type": "conv"}
    assert there == back


def test_cifar10_shape(tmp_path):
    """google/ddpm-cifar10-32's shape."""
    unet, params, difference = compare(random_model(CIFAR10), tmp_path)
    assert difference <= 1e-4
    assert sum(value.size for value in jax.tree.leaves(params)) == 35_746_307
    assert (unet.channels, unet.multipliers, unet.depth, unet.attention) == (
        128,
        (1, 2, 2, 2),
        2,
        (None, SelfAttention(), None, None),
    )


def test_defaults_are_the_cifar10_net(tmp_path):
    model = diffusers.UNet2DModel(**CIFAR10)
    model.save_pretrained(tmp_path)
    unet, _ = import_unet2d(tmp_path)
    assert unet == type(unet)()


def test_old_names_of_attention(tmp_path):
    """Until 0.14 diffusers wrote query, key, value, proj_attn."""
    model = random_model(TINY)
    model.save_pretrained(tmp_path)
    _, expected = import_unet2d(tmp_path)
    path = tmp_path / f"{STEM}.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = {}
    for name, value in store.read_file(path).items():
        for new_part, old_part in old.items():
            name = name.replace(new_part, old_part)
        tensors[name] = value
    store.write_file(path, tensors)
    _, params = import_unet2d(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, params, expected)


def test_pipeline_folder_and_shards(tmp_path):
    """A pipeline keeps the net in `unet/`; a large net comes in several files."""
    model = random_model(TINY)
    model.save_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "pipeline" / "unet", max_shard_size="200KB")
    assert len(list((tmp_path / "pipeline" / "unet").glob("*.safetensors"))) > 1
    unet, params = import_unet2d(tmp_path / "whole")
    sharded_unet, sharded = import_unet2d(tmp_path / "pipeline")
    assert unet == sharded_unet
    jax.tree.map(np.testing.assert_array_equal, params, sharded)
