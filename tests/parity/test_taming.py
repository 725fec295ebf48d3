"""CompVis' layout through diffusers' own converter of it: what we write there is the autoencoder we have here."""

import re

import jax
import numpy as np
import pytest

from flaxgen.weights import store
from flaxgen.weights.autoencoder import STEM, import_autoencoder
from flaxgen.weights.taming import export_taming, import_taming

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
]
TINY = {"block_out_channels": (32, 64, 64), "sample_size": 16, "layers_per_block": 2}
PLAIN = {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3}
ATTENDING = {
    "down_block_types": ("DownEncoderBlock2D", "DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
    "up_block_types": ("AttnUpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"),
}
ATTENTIONS = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}


def attention_of_levels(tensors, levels):
    """The converter knows that of the middle alone; what it leaves is renamed here."""
    renamed = {}
    for name, value in tensors.items():
        match = re.fullmatch(r"(encoder\.down|decoder\.up)\.(\d+)\.attn\.(\d+)\.(\w+)\.(\w+)", name)
        if match:
            way, i = ("down", int(match[2])) if "down" in match[1] else ("up", levels - 1 - int(match[2]))
            part = match[1].split(".")[0]
            name = f"{part}.{way}_blocks.{i}.attentions.{match[3]}.{ATTENTIONS[match[4]]}.{match[5]}"
            renamed[name] = value[:, :, 0, 0] if value.ndim == 4 else value
    return renamed


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("AutoencoderKL", PLAIN),
        ("VQModel", PLAIN | {"num_vq_embeddings": 9, "vq_embed_dim": 5}),
        ("VQModel", ATTENDING | {"num_vq_embeddings": 9}),
    ],
)
def test_diffusers_reads_what_we_write_for_compvis(kind, fields, tmp_path):
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    torch.manual_seed(0)
    model = getattr(diffusers, kind)(**TINY, **fields)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.1 * torch.randn_like(value))
    model.save_pretrained(tmp_path)
    net, params, _ = import_autoencoder(tmp_path)
    export_taming(net, params, tmp_path / "vqgan.safetensors")
    tensors = {name: torch.from_numpy(value) for name, value in store.read_file(tmp_path / "vqgan.safetensors").items()}
    attending = attention_of_levels(tensors, 3)
    plain = {name: value for name, value in tensors.items() if not re.search(r"\.(down|up)\.\d+\.attn\.", name)}
    converted = convert_ldm_vae_checkpoint(plain, dict(model.config)) | attending
    codebook = "quantize.embedding.weight"
    converted |= {codebook: tensors[codebook]} if codebook in tensors else {}
    again = getattr(diffusers, kind)(**model.config)
    again.load_state_dict(current_names(converted))
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name

    found_net, found = import_taming(tmp_path / "vqgan.safetensors", image_size=16)
    assert found_net == net
    jax.tree.map(np.testing.assert_array_equal, found, params)
    assert (tmp_path / f"{STEM}.safetensors").is_file()


def current_names(tensors):
    """The converter writes the names that attention had before diffusers 0.14."""
    old = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
    return {re.sub(r"\.(query|key|value|proj_attn)\.", lambda m: f".{old[m[1]]}.", n): v for n, v in tensors.items()}
