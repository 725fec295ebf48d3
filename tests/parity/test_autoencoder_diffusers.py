"""Autoencoders beside diffusers' three classes of them: the same codes and pictures, and the same files back."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.nets.autoencoder import Autoencoder
from flaxgen.weights import store
from flaxgen.weights.autoencoder import STEM, abstract_params, export_autoencoder, import_autoencoder
from flaxgen.weights.autoencoder_config import autoencoder_from_config

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
]

TINY = {"block_out_channels": (16, 32), "norm_num_groups": 8, "sample_size": 16, "layers_per_block": 1}
LEVELS = {
    "down_block_types": ("DownEncoderBlock2D", "DownEncoderBlock2D"),
    "up_block_types": ("UpDecoderBlock2D", "UpDecoderBlock2D"),
}
ATTENDING = {
    "down_block_types": ("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
    "up_block_types": ("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
}
BARE = {"use_quant_conv": False, "use_post_quant_conv": False}
CASES = {
    "kl": ("AutoencoderKL", TINY | LEVELS),
    "kl without quant convs": (
        "AutoencoderKL",
        TINY | LEVELS | BARE | {"latent_channels": 16, "scaling_factor": 0.3611, "shift_factor": 0.1159},
    ),
    "kl of many fields": (
        "AutoencoderKL",
        TINY
        | ATTENDING
        | {
            "in_channels": 1,
            "out_channels": 1,
            "layers_per_block": 2,
            "mid_block_add_attention": False,
            "latents_mean": [0.1, 0.2, 0.3, 0.4],
            "latents_std": [1.0, 2.0, 3.0, 4.0],
            "force_upcast": False,
        },
    ),
    "vq": ("VQModel", TINY | LEVELS | {"num_vq_embeddings": 20, "latent_channels": 6, "vq_embed_dim": 5}),
    "vq attending": ("VQModel", TINY | ATTENDING | {"num_vq_embeddings": 20, "lookup_from_codebook": True}),
    "movq": (
        "VQModel",
        TINY
        | ATTENDING
        | {
            "block_out_channels": (32, 64),
            "norm_num_groups": 32,
            "latent_channels": 4,
            "norm_type": "spatial",
            "num_vq_embeddings": 30,
            "vq_embed_dim": 4,
        },
    ),
    "tiny": (
        "AutoencoderTiny",
        {
            "encoder_block_out_channels": (16, 16, 16),
            "decoder_block_out_channels": (16, 16, 16),
            "num_encoder_blocks": (1, 2, 1),
            "num_decoder_blocks": (2, 1, 1),
            "latent_channels": 5,
            "latent_magnitude": 2,
            "shift_factor": 0.25,
        },
    ),
}
SD = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
F16 = {
    "block_out_channels": (128, 128, 256, 256, 512),
    "layers_per_block": 2,
    "down_block_types": (*["DownEncoderBlock2D"] * 4, "AttnDownEncoderBlock2D"),
    "up_block_types": ("AttnUpDecoderBlock2D", *["UpDecoderBlock2D"] * 4),
    "latent_channels": 256,
    "num_vq_embeddings": 1024,
}
MOVQ = {
    "block_out_channels": (128, 256, 256, 512),
    "layers_per_block": 2,
    "down_block_types": (*["DownEncoderBlock2D"] * 3, "AttnDownEncoderBlock2D"),
    "up_block_types": ("AttnUpDecoderBlock2D", *["UpDecoderBlock2D"] * 3),
    "latent_channels": 4,
    "norm_type": "spatial",
    "num_vq_embeddings": 16384,
    "vq_embed_dim": 4,
}
FULL = {
    "sd": ("AutoencoderKL", SD, 83_653_863),
    "sd3": ("AutoencoderKL", SD | BARE | {"latent_channels": 16}, 83_819_683),
    "movq": ("VQModel", MOVQ, 67_832_495),
    "f16": ("VQModel", F16, 72_141_699),
    "taesd": ("AutoencoderTiny", {}, 1_222_532 + 1_222_531),
}


def random_model(name):
    """A model without a tensor at 0 or 1, so that no wrong rule can pass unseen."""
    kind, config = CASES[name]
    torch.manual_seed(0)
    model = getattr(diffusers, kind)(**config).eval()
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.1 * torch.randn_like(value))
    return model


@pytest.fixture(scope="module", params=CASES)
def pair(request, tmp_path_factory):
    """A model, the folder it was saved to, and the one that was exported after an import."""
    model, folder = random_model(request.param), tmp_path_factory.mktemp("pair")
    model.save_pretrained(folder / "there")
    imported = import_autoencoder(folder / "there")
    export_autoencoder(*imported, folder / "back")
    return model, folder, imported


def channels_first(x):
    return torch.from_numpy(np.array(x).transpose(0, 3, 1, 2))


def compare(ours, theirs):
    theirs = theirs.numpy().transpose(0, 2, 3, 1)
    assert theirs.std() > 0.1
    assert np.abs(theirs - np.asarray(ours)).max() <= 1e-5 * max(1, np.abs(theirs).max())


def test_codes_and_pictures_are_the_same(pair):
    model, _, (net, params, _) = pair
    x = jax.random.uniform(jax.random.key(0), (2, 16, 16, net.in_channels), minval=-1)
    z = jax.random.normal(jax.random.key(1), (2, 16 // net.factor, 16 // net.factor, net.latent_dim))

    @jax.jit
    def both(params):
        apply = {"params": {name: params[name] for name in ("encoder", "decoder")}}
        return net.apply(apply, x, method="encode"), net.apply(apply, z, method="decode")

    codes, pictures = both(params)
    with torch.no_grad():
        encoded, given = model.encode(channels_first(x)), channels_first(z)
        if isinstance(model, diffusers.VQModel):
            model.config.lookup_from_codebook = False
            expected, drawn = encoded.latents, model.decode(given, force_not_quantize=True).sample
        elif isinstance(model, diffusers.AutoencoderKL):
            mean, log_variance = np.split(np.asarray(codes), 2, axis=-1)
            expected, drawn = encoded.latent_dist.parameters, model.decode(given).sample
            compare(mean, encoded.latent_dist.mean)
            compare(np.clip(log_variance, -30, 20), encoded.latent_dist.logvar)
        else:
            expected, drawn = encoded.latents, model.decode(given).sample
    compare(codes, expected)
    compare(pictures, drawn)


def test_files_come_back(pair):
    """Byte for byte in tensors and in all of the config; and diffusers reads them."""
    model, folder, _ = pair
    there, back = (store.read_file(folder / way / f"{STEM}.safetensors") for way in ("there", "back"))
    assert there.keys() == back.keys()
    for name, value in there.items():
        assert (value.dtype, value.shape, value.tobytes()) == (back[name].dtype, back[name].shape, back[name].tobytes())
    configs = [json.loads((folder / way / "config.json").read_text()) for way in ("there", "back")]
    there, back = ({k: v for k, v in config.items() if k != "_diffusers_version"} for config in configs)
    assert there == back
    again, information = type(model).from_pretrained(folder / "back", output_loading_info=True)
    assert not any(information.values())
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


def test_codebooks_come_beside_the_net(pair):
    model, _, (_, params, latents) = pair
    if isinstance(model, diffusers.VQModel):
        np.testing.assert_array_equal(params["codebook"], model.quantize.embedding.weight.detach().numpy())
    else:
        assert set(params) == {"encoder", "decoder"}
    for key in {"scaling_factor", "shift_factor", "force_upcast", "latent_magnitude"} & set(model.config):
        assert getattr(latents, key) == model.config[key]


def test_old_names_of_attention(tmp_path):
    """Until 0.14 diffusers wrote query, key, value, proj_attn, as Stable Diffusion's files still have it."""
    random_model("kl of many fields").save_pretrained(tmp_path)
    expected = import_autoencoder(tmp_path)
    path, tensors = tmp_path / f"{STEM}.safetensors", {}
    for name, value in store.read_file(path).items():
        for new, old in {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}.items():
            name = name.replace(new, old)
        tensors[name] = value
    assert "encoder.down_blocks.1.attentions.0.proj_attn.bias" in tensors
    store.write_file(path, tensors)
    found = import_autoencoder(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, found.params, expected.params)


@pytest.mark.parametrize("name", FULL)
def test_published_nets_have_the_published_size(name):
    kind, fields, count = FULL[name]
    with torch.device("meta"):
        model = getattr(diffusers, kind)(**fields)
    assert sum(value.numel() for value in model.parameters()) == count
    described = autoencoder_from_config(dict(model.config) | {"_class_name": kind})
    shapes = abstract_params(described.net, described.codes)
    assert sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == count
    if name == "sd":
        assert described.net == Autoencoder(image_size=32)


def test_half_precision_is_kept_when_asked(tmp_path):
    model = random_model("kl").half()
    model.save_pretrained(tmp_path / "there", variant="fp16")
    net, params, latents = import_autoencoder(tmp_path / "there", variant="fp16", keep_dtype=True)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float16)}
    export_autoencoder(net, params, latents, tmp_path / "back")
    name = f"{STEM}.safetensors"
    assert (tmp_path / "back" / name).read_bytes() == (tmp_path / "there" / f"{STEM}.fp16.safetensors").read_bytes()
    wide = import_autoencoder(tmp_path / "there", variant="fp16").params
    assert {leaf.dtype for leaf in jax.tree.leaves(wide)} == {jnp.dtype(jnp.float32)}
