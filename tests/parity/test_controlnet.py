"""ControlNet beside diffusers' ControlNetModel: the same residuals, alone and inside a UNet, and the same file back."""

import json

import jax
import numpy as np
import pytest

from flaxgen.weights import store
from flaxgen.weights.controlnet import abstract_params, controlnet_from_config, export_controlnet, import_controlnet
from flaxgen.weights.unet2d import STEM
from flaxgen.weights.unet_condition import import_unet_condition

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
cases = pytest.importorskip("test_unet_condition")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
]
NAMES = ("sd1", "sdxl")
WIDTHS = (8, 16, 24)


def random_pair(name):
    """A UNet and its ControlNet, whose zero convolutions are none."""
    unet = cases.random_model(cases.CASES[name])
    control = diffusers.ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=WIDTHS).eval()
    with torch.no_grad():
        for value in control.parameters():
            value.add_(0.1 * torch.randn_like(value))
    return unet, control


@pytest.mark.parametrize("name", NAMES)
def test_residuals_alone_and_inside_a_unet(name, tmp_path):
    unet, control = random_pair(name)
    for kind, model in (("unet", unet), ("control", control)):
        model.save_pretrained(tmp_path / kind)
    (our_unet, unet_params), (net, params) = (
        import_unet_condition(tmp_path / "unet"),
        import_controlnet(tmp_path / "control"),
    )
    ours, theirs = cases.given(cases.CASES[name])
    ours, mask = {key: value for key, value in ours.items() if key != "token_mask"}, "encoder_attention_mask"
    theirs = {key: value for key, value in theirs.items() if key != mask}
    side = 4 * cases.CASES[name]["sample_size"]
    hint = np.random.default_rng(1).random((2, side, side, 3)).astype(np.float32)
    with torch.no_grad():
        skips, middle = control(
            **theirs, controlnet_cond=torch.from_numpy(hint.transpose(0, 3, 1, 2)), return_dict=False
        )
        moved = {"down_block_additional_residuals": skips, "mid_block_additional_residual": middle}
        expected, plain = unet(**theirs, **moved).sample, unet(**theirs).sample

    @jax.jit
    def both(unet_params, params, given, hint):
        residuals = net.apply({"params": params}, given["x"], given["time"], hint, **without(given, "x", "time"))
        return residuals, our_unet.apply({"params": unet_params}, **given, residuals=residuals)

    residuals, found = both(unet_params, params, ours, hint)
    assert len(residuals.skips) == len(skips)
    pairs = [*zip(residuals.skips, skips, strict=True), (residuals.middle, middle), (found, expected)]
    for our, their in pairs:
        wanted = their.numpy().transpose(0, 2, 3, 1)
        assert wanted.std() > 0.1
        assert np.abs(np.asarray(our) - wanted).max() <= 2e-5 * np.abs(wanted).max()
    assert (expected - plain).abs().max() > 0.1


def without(given, *names):
    return {key: value for key, value in given.items() if key not in names}


@pytest.mark.parametrize("name", NAMES)
def test_what_is_exported_is_what_was_imported(name, tmp_path):
    """The file byte by byte, and the config in all that matters: what a block does not use is not kept."""
    random_pair(name)[1].save_pretrained(tmp_path / "there")
    net, params = import_controlnet(tmp_path / "there")
    export_controlnet(net, params, tmp_path / "back")
    there, back = (store.read_file(tmp_path / way / f"{STEM}.safetensors") for way in ("there", "back"))
    assert there.keys() == back.keys()
    assert all((there[key].shape, there[key].tobytes()) == (back[key].shape, back[key].tobytes()) for key in there)
    configs = [json.loads((tmp_path / way / "config.json").read_text()) for way in ("there", "back")]
    unused = ("upcast_attention", "attention_head_dim", "transformer_layers_per_block")
    old, new = ({k: v for k, v in c.items() if not k.startswith("_") and k not in unused} for c in configs)
    assert old == new
    assert controlnet_from_config(configs[1]) == net
    diffusers.ControlNetModel.from_pretrained(tmp_path / "back")


@pytest.mark.parametrize(("name", "count"), [("sd1", 361_279_120), ("sdxl", 1_251_014_160)])
def test_published_shapes_have_as_many_parameters(name, count):
    config = without(cases.PUBLISHED[name][0], "up_block_types")
    net = controlnet_from_config(config)
    assert sum(leaf.size for leaf in jax.tree.leaves(abstract_params(net))) == count
