"""Folders of DiTTransformer2DModel and SD3Transformer2DModel without torch: what fields mean, and what is refused, by
name. Numbers: tests/parity."""

import shutil

import jax
import numpy as np
import pytest

from flaxgen.nets.dit import DiT
from flaxgen.nets.mmdit import MMDiT
from flaxgen.weights import store
from flaxgen.weights.dit import abstract_params, config_from_dit, dit_from_config, export_dit, import_dit
from flaxgen.weights.mmdit import config_from_mmdit, export_mmdit, import_mmdit, mmdit_from_config
from flaxgen.weights.unet2d import STEM

DIT = {
    "_class_name": "DiTTransformer2DModel",
    "_diffusers_version": "0.12.0.dev0",
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "attention_head_dim": 72,
    "dropout": 0.0,
    "in_channels": 4,
    "norm_elementwise_affine": False,
    "norm_eps": 1e-5,
    "norm_num_groups": 32,
    "norm_type": "ada_norm_zero",
    "num_attention_heads": 16,
    "num_embeds_ada_norm": 1000,
    "num_layers": 28,
    "out_channels": 8,
    "patch_size": 2,
    "sample_size": 32,
    "upcast_attention": False,
}
"""DiT-XL/2 of 256 pixels."""
SD3 = {
    "_class_name": "SD3Transformer2DModel",
    "attention_head_dim": 64,
    "caption_projection_dim": 1536,
    "in_channels": 16,
    "joint_attention_dim": 4096,
    "num_attention_heads": 24,
    "num_layers": 24,
    "out_channels": 16,
    "patch_size": 2,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 192,
    "sample_size": 128,
}
SD35 = SD3 | {"pos_embed_max_size": 384, "qk_norm": "rms_norm", "dual_attention_layers": list(range(13))}
TINY_DIT = DiT(image_size=4, in_channels=2, out_channels=2, width=8, depth=2, heads=2, num_classes=4, time_shift=1)
TINY_MMDIT = MMDiT(image_size=4, in_channels=2, out_channels=2, width=8, depth=2, heads=2, token_dim=6, vector_dim=7,
                   max_places=3, qk_norm=True, dual_blocks=(1,))  # fmt: skip


def random_params(net):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32), abstract_params(net))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """{"dit", "mmdit"}: what a tiny net of the kind becomes."""
    folder = tmp_path_factory.mktemp("folders")
    export_dit(TINY_DIT, random_params(TINY_DIT), folder / "dit")
    export_mmdit(TINY_MMDIT, random_params(TINY_MMDIT), folder / "mmdit")
    return {name: folder / name for name in ("dit", "mmdit")}


@pytest.fixture
def damaged(folders, tmp_path):
    """`damaged(name, change)`: a copy of a folder after `change(tensors)`."""

    def make(name, change):
        shutil.copytree(folders[name], tmp_path / "damaged")
        tensors = store.read_file(tmp_path / "damaged" / f"{STEM}.safetensors")
        change(tensors)
        store.write_file(tmp_path / "damaged" / f"{STEM}.safetensors", tensors)
        return tmp_path / "damaged"

    return make


def test_what_the_published_configs_say():
    xl = DiT(num_classes=1001, learned_variance=True, time_shift=1, mlp_norm_eps=1e-5)
    assert dit_from_config(DIT) == xl
    assert mmdit_from_config(SD3) == MMDiT()
    assert mmdit_from_config(SD35) == MMDiT(max_places=384, qk_norm=True, dual_blocks=tuple(range(13)))


@pytest.mark.parametrize(("read", "write", "config"), [
    (dit_from_config, config_from_dit, DIT),
    (mmdit_from_config, config_from_mmdit, SD3),
    (mmdit_from_config, config_from_mmdit, SD35),
])  # fmt: skip
def test_configs_come_back(read, write, config):
    again = write(read(config))
    assert {key for key, value in config.items() if again.get(key) != value} <= {"_diffusers_version"}
    assert read(again) == read(config)


@pytest.mark.parametrize(("read", "name", "net"), [(import_dit, "dit", TINY_DIT), (import_mmdit, "mmdit", TINY_MMDIT)])
def test_what_goes_out_comes_back(read, name, net, folders, tmp_path):
    shutil.copytree(folders[name], tmp_path / "transformer")
    for folder in (folders[name], tmp_path):
        found, params = read(folder)
        assert found == net
        jax.tree.map(np.testing.assert_array_equal, params, random_params(net))


def test_every_block_of_diffusers_has_the_embedding(folders):
    header = store.read_header(folders["dit"] / f"{STEM}.safetensors")
    shapes = {
        "pos_embed.proj.weight": (8, 2, 2, 2),
        "transformer_blocks.0.norm1.emb.class_embedder.embedding_table.weight": (4, 8),
        "transformer_blocks.1.norm1.emb.class_embedder.embedding_table.weight": (4, 8),
        "transformer_blocks.1.norm1.emb.timestep_embedder.linear_1.weight": (8, 256),
        "transformer_blocks.1.norm1.linear.weight": (48, 8),
        "proj_out_1.weight": (16, 8),
        "proj_out_2.weight": (8, 8),
    }
    assert {name: header[name].shape for name in shapes} == shapes


def test_scale_and_shift_of_the_last_norms_are_swapped_in_sd3(folders):
    """Here the shift is first, everywhere; there only in blocks whose tokens go on."""
    tensors = store.read_file(folders["mmdit"] / f"{STEM}.safetensors")
    params, swapped = random_params(TINY_MMDIT), np.r_[8:16, 0:8]

    def bias(*path):
        value = params
        for part in path:
            value = value[part]
        return value["linear"]["bias"]

    assert tensors["pos_embed.pos_embed"].shape == (1, 9, 8)
    np.testing.assert_array_equal(tensors["norm_out.linear.bias"], bias("head", "modulation")[swapped])
    last, first = (tensors[f"transformer_blocks.{i}.norm1_context.linear.bias"] for i in (1, 0))
    np.testing.assert_array_equal(last, bias("block_1", "token_modulation")[swapped])
    np.testing.assert_array_equal(first, bias("block_0", "token_modulation"))
    assert "transformer_blocks.1.attn.to_add_out.weight" not in tensors


@pytest.mark.parametrize(
    ("read", "config", "message"),
    [
        (dit_from_config, DIT | {"_class_name": "PixArtTransformer2DModel"}, "expected a DiTTransformer2DModel"),
        (dit_from_config, DIT | {"norm_type": "ada_norm_single"}, "norm_type='ada_norm_single' is not supported"),
        (dit_from_config, DIT | {"norm_elementwise_affine": True}, "norm_elementwise_affine=True"),
        (dit_from_config, DIT | {"attention_bias": False}, "attention_bias=False"),
        (dit_from_config, DIT | {"activation_fn": "geglu"}, "activation_fn='geglu'"),
        (dit_from_config, DIT | {"dropout": 0.1}, "dropout=0.1"),
        (dit_from_config, DIT | {"num_embeds_ada_norm": None}, "num_embeds_ada_norm=None"),
        (dit_from_config, DIT | {"num_layers": 0}, "num_layers=0"),
        (dit_from_config, DIT | {"caption_channels": 4096}, "has no 'caption_channels'"),
        (mmdit_from_config, SD3 | {"caption_projection_dim": 1152}, "caption_projection_dim=1152 .* only 1536"),
        (mmdit_from_config, SD3 | {"qk_norm": "layer_norm"}, "qk_norm='layer_norm'"),
        (mmdit_from_config, SD3 | {"dual_attention_layers": [-1]}, r"dual_attention_layers=\[-1\]"),
        (mmdit_from_config, SD3 | {"pos_embed_max_size": None}, "pos_embed_max_size=None"),
    ],
)
def test_what_is_not_supported_is_named(read, config, message):
    with pytest.raises(ValueError, match=message) as caught:
        read(config)
    assert "\n" not in str(caught.value)


FIRST = "transformer_blocks.0.norm1.emb.timestep_embedder.linear_1.bias"
SECOND = FIRST.replace("blocks.0", "blocks.1")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("dit", lambda t: t.pop(SECOND), f"'{SECOND}' is missing, of which every block"),
        ("dit", lambda t: t.pop(FIRST), f"'{FIRST}' is missing"),
        ("dit", lambda t: t[SECOND].__iadd__(1), f"'{SECOND}' is not '{FIRST}'"),
        ("dit", lambda t: t.update({SECOND.replace("blocks.1", "blocks.2"): t[FIRST]}), "no rule matches"),
        ("mmdit", lambda t: t.update({"pos_embed.pos_embed": np.ones((1, 4, 8), np.float32)}),
         r"'pos_embed.pos_embed' has shape \(1, 4, 8\): expected 9 places"),
        ("mmdit", lambda t: t.pop("norm_out.linear.bias"), "'norm_out.linear.bias' is missing"),
    ],
)  # fmt: skip
def test_tensors_that_are_not_the_nets_are_refused(name, change, message, damaged):
    folder = damaged(name, change)
    with pytest.raises(ValueError, match=message):
        {"dit": import_dit, "mmdit": import_mmdit}[name](folder)


@pytest.mark.parametrize(
    ("export", "net", "message"),
    [
        (export_dit, TINY_DIT.clone(token_dim=6), "token_dim=6"),
        (export_dit, TINY_DIT.clone(vector_dim=6), "vector_dim=6"),
        (export_dit, TINY_DIT.clone(time_shift=0), "time_shift=0 is no DiTTransformer2DModel, expected 1"),
        (export_dit, TINY_DIT.clone(num_classes=0), "num_classes=0"),
        (export_mmdit, TINY_MMDIT.clone(num_classes=4), "num_classes=4"),
    ],
)
def test_what_diffusers_lacks_is_not_exported(export, net, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export(net, {}, tmp_path)
    assert not list(tmp_path.iterdir())
