"""UNet as DeepFloyd's IF has it, beside diffusers' UNet2DConditionModel: added tokens with a norm or without pixels,
GELU, scaled skips, levels of several depths, and an activation of the time embedding that all blocks share."""

import jax
import numpy as np
import pytest

from flaxgen.nets.attention import TokenAttention
from flaxgen.nets.unet import UNet
from flaxgen.weights import store
from flaxgen.weights.decoder import UNET_RULES
from flaxgen.weights.rules import to_params, under
from flaxgen.weights.unet2d import ATTENTION_PLACES, NORM, abstract_params

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

IF = {
    "sample_size": 16,
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": (32, 64),
    "layers_per_block": (1, 2),
    "norm_num_groups": 8,
    "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "cross_attention_dim": 64,
    "attention_head_dim": 16,
    "cross_attention_norm": "group_norm",
    "resnet_time_scale_shift": "scale_shift",
    "act_fn": "gelu",
}
UPSAMPLER = {
    "only_cross_attention": True,
    "time_embedding_act_fn": "gelu",
    "resnet_skip_time_act": True,
    "resnet_out_scale_factor": 1 / 0.7071,
    "mid_block_scale_factor": 1 / 0.7071,
}


@pytest.mark.parametrize("changes", [{}, UPSAMPLER], ids=["base", "upsampler"])
def test_unet_computes_what_if_computes(changes):
    torch.manual_seed(0)
    model = diffusers.UNet2DConditionModel(**IF | changes).eval()
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.1 * torch.randn_like(value))
    attention = TokenAttention(head_channels=16, token_norm_groups=32, only_tokens=bool(changes))
    unet = UNet(
        image_size=16, channels=32, multipliers=(1, 2), depth=(1, 2), attention=(None, attention), middle=attention,
        token_dim=64, scale_shift=True, resample="resnet", norm_groups=8, norm_eps=1e-5, time_order="cos_sin",
        time_shift=0, activation="gelu", skip_scale=0.7071 if changes else 1.0,
    )  # fmt: skip
    norm = under([(f"{tensor}.norm_cross", f"{param}/token_norm") for tensor, param in ATTENTION_PLACES], NORM)
    tensors = {name: value.numpy() for name, value in model.state_dict().items()}
    params = store.fit(to_params((*UNET_RULES, *norm), tensors), abstract_params(unet), "IF")

    rng = np.random.default_rng(0)
    x, tokens = rng.standard_normal((2, 16, 16, 3)), rng.standard_normal((2, 5, 64))
    x, tokens, time = x.astype(np.float32), tokens.astype(np.float32), np.array([3.0, 871.0], np.float32)
    with torch.no_grad():
        given = torch.from_numpy(x.transpose(0, 3, 1, 2)), torch.from_numpy(time), torch.from_numpy(tokens)
        expected = model(*given).sample.numpy().transpose(0, 2, 3, 1)
    apply = jax.jit(lambda params, x, time, tokens: unet.apply({"params": params}, x, time, tokens=tokens))
    found = apply(params, x, time, tokens)
    assert expected.std() > 0.1
    assert np.abs(expected - np.asarray(found)).max() <= 1e-4 * np.abs(expected).max()
