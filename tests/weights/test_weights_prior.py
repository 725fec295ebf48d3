"""PriorTransformer folders without torch: what fields mean, and what is refused, by name. Numbers: tests/parity."""

import json
import shutil
from dataclasses import fields

import jax
import numpy as np
import pytest

from flaxgen.nets.prior import DiffusionPrior
from flaxgen.weights import store
from flaxgen.weights.generate import generate_rules, module_namer
from flaxgen.weights.prior import (
    RULES,
    STEM,
    abstract_params,
    config_from_prior,
    export_prior,
    import_prior,
    prior_from_config,
)
from flaxgen.weights.rules import from_params

TINY = DiffusionPrior(embedding_dim=6, text_dim=6, context=4, width=8, depth=2, heads=2)
KARLO = {
    "_class_name": "PriorTransformer",
    "_diffusers_version": "0.12.0",
    "additional_embeddings": 4,
    "attention_head_dim": 64,
    "dropout": 0.0,
    "embedding_dim": 768,
    "num_attention_heads": 32,
    "num_embeddings": 77,
    "num_layers": 20,
}
"""PriorTransformer's own defaults, which diffusers' converters take for Karlo and for Kandinsky 2.1."""


def same_fields(one, other):
    return all(getattr(one, f.name) == getattr(other, f.name) for f in fields(one) if f.name not in ("parent", "name"))


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32), abstract_params(TINY))


@pytest.fixture(scope="module")
def exported(params, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    export_prior(TINY, params, folder)
    return folder


@pytest.fixture
def damaged(exported, tmp_path):
    """`damaged(change)`: a copy of the exported folder after `change(tensors)`."""

    def make(change):
        shutil.copytree(exported, tmp_path / "damaged")
        tensors = store.read_file(tmp_path / "damaged" / f"{STEM}.safetensors")
        change(tensors)
        store.write_file(tmp_path / "damaged" / f"{STEM}.safetensors", tensors)
        return tmp_path / "damaged"

    return make


def test_the_defaults_are_karlos_prior():
    assert same_fields(prior_from_config(KARLO), DiffusionPrior())
    assert same_fields(prior_from_config({"_class_name": "PriorTransformer"}), DiffusionPrior())


def test_karlos_prior_has_a_billion_parameters():
    """20 blocks of 12 w^2 + 13 w, and what stands around them."""
    w, d = 2048, 768
    blocks = 20 * (12 * w * w + 13 * w)
    around = 3 * (d * w + w) + 2 * (w * w + w) + 82 * w + 2 * w + (w * d + d) + 2 * d
    assert sum(leaf.size for leaf in jax.tree.leaves(abstract_params(DiffusionPrior()))) == blocks + around


def test_what_goes_out_comes_back(exported, params):
    net, back = import_prior(exported)
    assert same_fields(net, TINY)
    assert back["statistics"]["mean"].shape == back["statistics"]["std"].shape == (6,)
    for one, other in zip(jax.tree.leaves(params), jax.tree.leaves(back), strict=True):
        assert one.tobytes() == other.tobytes()


def test_a_pipeline_folder_has_its_prior_in_prior(exported, tmp_path):
    shutil.copytree(exported, tmp_path / "prior")
    assert same_fields(import_prior(tmp_path)[0], TINY)


def test_configs_come_back():
    config = config_from_prior(prior_from_config(KARLO))
    assert {key for key, value in KARLO.items() if config.get(key) != value} == {"_diffusers_version"}
    assert same_fields(prior_from_config(config_from_prior(TINY)), TINY)
    explicit = {"time_embed_dim": 2048, "embedding_proj_dim": 768, "clip_embed_dim": 768}
    assert same_fields(prior_from_config(KARLO | explicit), DiffusionPrior())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "UNet2DModel"}, "of a UNet2DModel, expected a PriorTransformer"),
        ({"sample_size": 3}, "PriorTransformer has no 'sample_size'"),
        ({"num_layers": 0}, "num_layers=0 is not supported, only a whole number from 1 to 2147483647"),
        ({"num_attention_heads": "32"}, "num_attention_heads='32'"),
        ({"embedding_dim": None}, "embedding_dim=None"),
        ({"num_embeddings": True}, "num_embeddings=True"),
        ({"additional_embeddings": 5}, "additional_embeddings=5 is not supported, only 4"),
        ({"dropout": 0.1}, "dropout=0.1 is not supported"),
        ({"time_embed_act_fn": "gelu"}, "time_embed_act_fn='gelu' is not supported, only 'silu'"),
        ({"norm_in_type": "layer"}, "norm_in_type='layer' is not supported, only None"),
        ({"embedding_proj_norm_type": "layer"}, "embedding_proj_norm_type='layer'"),
        ({"encoder_hid_proj_type": None}, "encoder_hid_proj_type=None"),
        ({"added_emb_type": None}, "added_emb_type=None"),
        ({"time_embed_dim": 4096}, "time_embed_dim=4096 is not supported, only None or 2048"),
        ({"embedding_proj_dim": 1024}, "embedding_proj_dim=1024 is not supported, only None or 768"),
        ({"clip_embed_dim": 1536}, "clip_embed_dim=1536"),
    ],
)
def test_configs_that_no_prior_has_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        prior_from_config(KARLO | change)


NAMES = {
    "net/transformer/block_{i}": "transformer_blocks.{i}",
    "net/condition/time_{i}": "time_embedding.linear_{i}",
    "net/x_in": "proj_in",
    "net/text_embedding_in": "embedding_proj",
    "net/text_in": "encoder_hidden_states_proj",
    "net/norm_out": "norm_out",
    "net/out": "proj_to_clip_embeddings",
    "norm_1": "norm1",
    "norm_2": "norm3",
    "attention/query": "attn1.to_q",
    "attention/key": "attn1.to_k",
    "attention/value": "attn1.to_v",
    "attention/out": "attn1.to_out.0",
    "mlp_1": "ff.net.0.proj",
    "mlp_2": "ff.net.2",
}


def test_the_table_can_be_made_from_the_net(params):
    """Names and layouts of a generated table are those of the one written by hand."""
    odd = [rule for rule in RULES if rule.tensor in ("positional_embedding", "prd_embedding", "clip_mean", "clip_std")]
    made = from_params(generate_rules(abstract_params(TINY), module_namer(NAMES), odd=odd), store.flatten(params))
    by_hand = from_params(RULES, store.flatten(params))
    assert made.keys() == by_hand.keys()
    assert all(made[name].tobytes() == by_hand[name].tobytes() for name in by_hand)


def rename(tensors):
    tensors["transformer_blocks.0.norm2.weight"] = tensors.pop("transformer_blocks.0.norm1.weight")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("clip_mean"), "tensor 'clip_mean' is missing"),
        (lambda t: t.pop("transformer_blocks.1.ff.net.2.bias"), "'transformer_blocks.1.ff.net.2.bias' is missing"),
        (rename, "no rule matches 'transformer_blocks.0.norm2.weight'"),
        (lambda t: t.update(clip_std=np.ones((2, 6), np.float32)), r"'clip_std' has shape \(2, 6\): expected 1 at dim"),
        (lambda t: t.update(clip_std=np.ones(6, np.float32)), r"'clip_std' has shape \(6,\), expected 2 dimensions"),
        (
            lambda t: t.update(positional_embedding=np.ones((1, 9, 8), np.float32)),
            r"'positional_embedding' has shape \(9, 8\), expected \(8, 8\)",
        ),
        (lambda t: t.update({"proj_in.bias": np.ones(8, np.float64)}), "'proj_in.bias' is float64"),
    ],
)
def test_tensors_that_are_not_the_priors_are_refused(change, message, damaged):
    folder = damaged(change)
    with pytest.raises(ValueError, match=message):
        import_prior(folder)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (TINY.clone(text_dim=5), "text_dim=5, not embedding_dim=6"),
        (TINY.clone(activation="quick_gelu"), "activation='quick_gelu' is not a PriorTransformer"),
    ],
)
def test_nets_that_are_no_prior_transformer_are_refused(net, message, params, tmp_path):
    with pytest.raises(ValueError, match=message):
        export_prior(net, params, tmp_path)


def test_no_folder_no_prior(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no"):
        import_prior(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(KARLO))
    with pytest.raises(FileNotFoundError, match=STEM):
        import_prior(tmp_path)
