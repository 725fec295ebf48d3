"""Upsamplers beside Karlo's super-resolution nets in diffusers, called as the pipeline calls them."""

import json

import jax
import numpy as np
import pytest

from flaxgen.weights import store
from flaxgen.weights.unet2d import STEM, abstract_params
from flaxgen.weights.upsampler import export_upsampler, import_upsampler, upsampler_from_config

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
]

KARLO = {  # kakaobrain/karlo-v1-alpha, super_res_first/config.json and super_res_last/config.json
    "sample_size": 256,
    "in_channels": 6,
    "out_channels": 3,
    "layers_per_block": 3,
    "down_block_types": 4 * ("ResnetDownsampleBlock2D",),
    "up_block_types": 4 * ("ResnetUpsampleBlock2D",),
    "block_out_channels": (320, 640, 960, 1280),
    "add_attention": False,
}
TINY = KARLO | {
    "sample_size": 16,
    "layers_per_block": 1,
    "down_block_types": 2 * ("ResnetDownsampleBlock2D",),
    "up_block_types": 2 * ("ResnetUpsampleBlock2D",),
    "block_out_channels": (32, 64),
    "norm_num_groups": 8,
}
CASES = {
    "first": {},
    "last": {},
    "attention_in_the_middle": {"add_attention": True},
    "scale_shift_learned_variance": {"resnet_time_scale_shift": "scale_shift", "out_channels": 6},
    "karlo_at_a_tenth": KARLO | {"sample_size": 32, "block_out_channels": (32, 64, 96, 128), "norm_num_groups": 32},
}


def random_model(name):
    """A UNet2DModel without a tensor at 0 or 1; "first" and "last" differ in their numbers."""
    torch.manual_seed(len(name))
    model = diffusers.UNet2DModel(**(TINY | CASES[name])).eval()
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.1 * torch.randn_like(value))
    return model


@pytest.mark.parametrize("name", CASES)
def test_upsampler_computes_what_karlo_computes(name, tmp_path):
    """From a quarter of the size, on a picture of the model's size and on one that is wider."""
    model = random_model(name)
    model.save_pretrained(tmp_path)
    net, params = import_upsampler(tmp_path)
    rng, size = np.random.default_rng(0), net.image_size
    time = np.array([3.0, 871.0], np.float32)
    ours = jax.jit(lambda p, x, time, low: net.apply({"params": p}, x, time, low_res=low))
    for height, width in ((size, size), (size, 2 * size)):
        x = rng.standard_normal((2, height, width, 3)).astype(np.float32)
        low = rng.standard_normal((2, height // 4, width // 4, 3)).astype(np.float32)
        given = [torch.from_numpy(value).permute(0, 3, 1, 2) for value in (x, low)]
        with torch.no_grad():
            up = torch.nn.functional.interpolate(
                given[1], size=[height, width], mode="bicubic", align_corners=False, antialias=True
            )
            theirs = model(torch.cat((given[0], up), dim=1), torch.from_numpy(time)).sample
        theirs = theirs.permute(0, 2, 3, 1).numpy()
        assert theirs.std() > 0.1
        assert np.abs(theirs - np.asarray(ours(params, x, time, low))).max() <= 1e-4


@pytest.mark.parametrize("name", CASES)
def test_the_same_file_comes_back(name, tmp_path):
    """Every byte of the tensors, and every field of the config."""
    there, back = tmp_path / "there", tmp_path / "back"
    random_model(name).save_pretrained(there)
    export_upsampler(*import_upsampler(there), back)
    old, new = (store.read_file(folder / f"{STEM}.safetensors") for folder in (there, back))
    assert old.keys() == new.keys()
    for key, value in old.items():
        assert (value.dtype, value.shape, value.tobytes()) == (new[key].dtype, new[key].shape, new[key].tobytes())
    old, new = (json.loads((folder / "config.json").read_text()) for folder in (there, back))
    kinds = ("downsample_type", "upsample_type")  # of blocks that these nets do not have
    assert {k: v for k, v in old.items() if not k.startswith("_") and k not in kinds} == {
        k: v for k, v in new.items() if not k.startswith("_") and k not in kinds
    }
    diffusers.UNet2DModel.from_pretrained(back)


def test_karlos_upsampler_has_as_many_parameters():
    with torch.device("meta"):
        model = diffusers.UNet2DModel(**KARLO)
    net = upsampler_from_config({k: v for k, v in model.config.items() if not k.startswith("_")})
    ours = sum(leaf.size for leaf in jax.tree.leaves(abstract_params(net)))
    assert ours == sum(value.numel() for value in model.parameters())
    assert (net.attention, net.middle) == ((), "resblocks")
