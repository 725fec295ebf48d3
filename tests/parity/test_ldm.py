"""Single files through diffusers' own converters of them: what we write there are the nets that we have here."""

import ldm_toy
import numpy as np
import pytest
import sd3_toy
from safetensors.numpy import load_file

from flaxgen.weights import store
from flaxgen.weights.autoencoder import export_autoencoder
from flaxgen.weights.clip import export_clip
from flaxgen.weights.ldm import KINDS, write_single
from flaxgen.weights.ldm_text import OPEN_CLIP
from flaxgen.weights.mmdit import export_mmdit
from flaxgen.weights.sd3_single import write_single as write_sd3
from flaxgen.weights.unet2d import STEM
from flaxgen.weights.unet_condition import export_unet_condition

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
]
DIFFUSERS_KINDS = {
    "sd1": "v1",
    "sd1-inpainting": "inpainting",
    "sd2": "v1",  # it knows SD 2 by 1024 channels of tokens
    "sd2-inpainting": "inpainting",
}


def converted_text(text, net, checkpoint):
    """A tower's tensors as diffusers converts them, and calls them in a CLIPTextModelWithProjection."""
    from diffusers.loaders.single_file_utils import convert_ldm_clip_checkpoint, convert_open_clip_checkpoint

    if text.names is not OPEN_CLIP:
        return convert_ldm_clip_checkpoint(checkpoint)
    kind = transformers.CLIPTextModelWithProjection
    shape = {"num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 4, "vocab_size": 3}
    model = kind(transformers.CLIPTextConfig(hidden_size=net.text.width, **shape))
    place = f"{text.place}.text_projection"
    if place in checkpoint:  # it takes the projection's rows for the tower's width, as they are in published files
        assert checkpoint[place].shape[0] == net.text.width
    return convert_open_clip_checkpoint(model, checkpoint, f"{text.place}.")


def assert_same(theirs, folder, name):
    ours = {key.removeprefix("text_model."): value for key, value in store.read_file(folder / name).items()}
    theirs = {key.removeprefix("text_model."): value for key, value in theirs.items()}
    assert set(theirs) == set(ours)
    for key, value in ours.items():
        np.testing.assert_array_equal(theirs[key].numpy(), value, err_msg=key)


@pytest.mark.parametrize("name", KINDS)
def test_diffusers_reads_the_same_nets_from_what_we_write(name, tmp_path):
    from diffusers.loaders import single_file_utils as theirs
    from safetensors.torch import load_file

    single = ldm_toy.make(name)
    write_single(tmp_path / "single.safetensors", single)
    checkpoint = load_file(tmp_path / "single.safetensors")
    if name in DIFFUSERS_KINDS:
        assert theirs.infer_diffusers_model_type(checkpoint) == DIFFUSERS_KINDS[name]
    export_unet_condition(single.unet, single.unet_params, tmp_path / "unet")
    config = store.read_json(tmp_path / "unet" / "config.json")
    assert_same(theirs.convert_ldm_unet_checkpoint(checkpoint, config), tmp_path / "unet", f"{STEM}.safetensors")
    export_autoencoder(*single.autoencoder, tmp_path / "vae")
    config = store.read_json(tmp_path / "vae" / "config.json")
    assert_same(theirs.convert_ldm_vae_checkpoint(checkpoint, config), tmp_path / "vae", f"{STEM}.safetensors")
    for text, (net, params) in zip(single.kind.texts, single.texts, strict=True):
        export_clip(net, params, tmp_path / "text")
        assert_same(converted_text(text, net, checkpoint), tmp_path / "text", "model.safetensors")


def test_diffusers_loads_the_published_layout_of_sd1(tmp_path):
    """By its `from_single_file`, with the configs of our folders: no tensor is missing or left over."""
    single = ldm_toy.make("sd1")
    write_single(tmp_path / "single.safetensors", single)
    export_unet_condition(single.unet, single.unet_params, tmp_path / "unet")
    model = diffusers.UNet2DConditionModel.from_single_file(
        str(tmp_path / "single.safetensors"), config=str(tmp_path), subfolder="unet", local_files_only=True
    )
    assert_same(model.state_dict(), tmp_path / "unet", f"{STEM}.safetensors")


def test_stable_diffusion_3_is_read_by_diffusers_under_our_names(tmp_path):
    """By the function with which its `from_single_file` reads the authors' names."""
    from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers

    write_sd3(tmp_path / "a.safetensors", sd3_toy.make())
    export_mmdit(sd3_toy.NET, sd3_toy.make().params, tmp_path / "transformer")
    tensors = {name: torch.from_numpy(value) for name, value in load_file(tmp_path / "a.safetensors").items()}
    inside = {name: value for name, value in tensors.items() if name.startswith("model.diffusion_model.")}
    theirs = convert_sd3_transformer_checkpoint_to_diffusers(inside)
    ours = load_file(tmp_path / "transformer" / "diffusion_pytorch_model.safetensors")
    assert theirs.keys() == ours.keys()
    for name, value in theirs.items():
        np.testing.assert_array_equal(value.numpy(), ours[name], err_msg=name)
