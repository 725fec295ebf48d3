"""UNet with spatial transformers beside diffusers' UNet2DConditionModel: the same output, and the same file back."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.nets.layers import sinusoidal
from flaxgen.weights import store
from flaxgen.weights.unet2d import STEM, abstract_params
from flaxgen.weights.unet_condition import export_unet_condition, import_unet_condition
from flaxgen.weights.unet_condition_config import unet_from_condition_config

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
]

LEVELS = {  # of the levels of SD 1 and 2
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
}
SDXL_LEVELS = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
}
SMALL = {"sample_size": 16, "layers_per_block": 1, "norm_num_groups": 8, "cross_attention_dim": 24}
SD1 = SMALL | LEVELS | {"block_out_channels": (32, 32, 64, 64), "attention_head_dim": 8}
SD2 = (
    SMALL
    | LEVELS
    | {
        "block_out_channels": (32, 64, 96, 96),
        "attention_head_dim": (2, 4, 6, 6),
        "use_linear_projection": True,
        "upcast_attention": True,
    }
)
SDXL = (
    SMALL
    | SDXL_LEVELS
    | {
        "block_out_channels": (32, 64, 96),
        "layers_per_block": 2,
        "attention_head_dim": (2, 4, 6),
        "transformer_layers_per_block": (1, 2, 3),
        "projection_class_embeddings_input_dim": 12 + 6 * 256,
    }
)
CASES = {
    "sd1": SD1,
    "sd1_inpainting": SD1 | {"in_channels": 9},
    "sd2": SD2,
    "sdxl": SDXL,
    "x4_upscaler": SD2
    | {  # noise levels are classes; pixels read tokens alone
        "only_cross_attention": (True, True, True, False),
        "num_class_embeds": 10,
        "in_channels": 7,
        "layers_per_block": (1, 2, 1, 1),
    },
}
PUBLISHED = {  # parameters, counted from diffusers' nets
    "sd1": ({"cross_attention_dim": 768}, 859_520_964),
    "sd2": (
        {"cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20], "use_linear_projection": True},
        865_910_724,
    ),
    "sdxl": (
        SDXL_LEVELS
        | {
            "block_out_channels": [320, 640, 1280],
            "attention_head_dim": [5, 10, 20],
            "transformer_layers_per_block": [1, 2, 10],
            "cross_attention_dim": 2048,
            "projection_class_embeddings_input_dim": 2816,
        },
        2_567_463_684,
    ),
}


def random_model(config):
    """A UNet2DConditionModel without a tensor at 0 or 1, so that no wrong rule can pass unseen."""
    torch.manual_seed(0)
    model = diffusers.UNet2DConditionModel(**config).eval()
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.1 * torch.randn_like(value))
    return model


def given(config):
    """The inputs of both nets: ours, and diffusers'."""
    rng, size = np.random.default_rng(0), config["sample_size"]
    x = rng.standard_normal((2, size, size, config.get("in_channels", 4))).astype(np.float32)
    time, tokens = np.array([3.0, 871.0], np.float32), rng.standard_normal((2, 5, 24)).astype(np.float32)
    mask = np.array([[True] * 5, [True, True, True, False, False]])
    if "only_cross_attention" in config:  # diffusers hides no token from the first attention of a block
        mask[:] = True
    ours = {"x": x, "time": time, "tokens": tokens, "token_mask": mask}
    theirs = {
        "sample": torch.from_numpy(x.transpose(0, 3, 1, 2)),
        "timestep": torch.from_numpy(time),
        "encoder_hidden_states": torch.from_numpy(tokens),
        "encoder_attention_mask": torch.from_numpy(mask),
    }
    if "num_class_embeds" in config:
        ours["label"] = np.array([0, 9])
        theirs["class_labels"] = torch.tensor([0, 9])
    if "addition_embed_type" in config:
        pooled = rng.standard_normal((2, 12)).astype(np.float32)
        ids = np.array([[512, 768, 0, 16, 1024, 1024], [300, 200, 5, 0, 512, 512]], np.float32)
        waves = sinusoidal(jnp.asarray(ids.reshape(-1)), 256, "cos_sin").reshape(2, -1)
        ours["vector"] = np.concatenate((pooled, waves), axis=1)
        theirs["added_cond_kwargs"] = {"text_embeds": torch.from_numpy(pooled), "time_ids": torch.from_numpy(ids)}
    return ours, theirs


@pytest.mark.parametrize("name", CASES)
def test_unet_computes_what_unet2dconditionmodel_computes(name, tmp_path):
    model = random_model(CASES[name])
    model.save_pretrained(tmp_path)
    unet, params = import_unet_condition(tmp_path)
    ours, theirs = given(CASES[name])
    with torch.no_grad():
        expected = model(**theirs).sample.numpy().transpose(0, 2, 3, 1)
    found = jax.jit(lambda params, inputs: unet.apply({"params": params}, **inputs))(params, ours)
    assert expected.std() > 0.1
    assert np.abs(expected - np.asarray(found)).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("name", CASES)
def test_what_is_exported_is_what_was_imported(name, tmp_path):
    """The file byte by byte, and the config in all that matters: what a block does not use is not kept."""
    random_model(CASES[name]).save_pretrained(tmp_path / "there")
    unet, params = import_unet_condition(tmp_path / "there")
    export_unet_condition(unet, params, tmp_path / "back")
    there, back = (store.read_file(tmp_path / way / f"{STEM}.safetensors") for way in ("there", "back"))
    assert there.keys() == back.keys()
    for name, value in there.items():
        assert (value.dtype, value.shape, value.tobytes()) == (back[name].dtype, back[name].shape, back[name].tobytes())
    configs = [json.loads((tmp_path / way / "config.json").read_text()) for way in ("there", "back")]
    unused = ("upcast_attention", "attention_head_dim", "transformer_layers_per_block")
    old, new = ({k: v for k, v in c.items() if not k.startswith("_") and k not in unused} for c in configs)
    assert old == new
    assert unet_from_condition_config(configs[1]) == unet
    diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "back")


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_shapes_have_as_many_parameters(name):
    config, count = PUBLISHED[name]
    unet = unet_from_condition_config({"sample_size": 64} | config)
    assert sum(leaf.size for leaf in jax.tree.leaves(abstract_params(unet))) == count
