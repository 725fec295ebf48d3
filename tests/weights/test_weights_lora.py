"""LoRA files: three layouts of the same factors, their sum with the parameters, what is refused. Names: by hand."""

import json

import jax
import jax.numpy as jnp
import ldm_toy
import numpy as np
import pytest
import random_weights
from safetensors.numpy import save_file

from flaxgen.nets.mmdit import MMDiT
from flaxgen.weights import dit, mmdit, sd3_single, store, unet2d
from flaxgen.weights.convert import export_params
from flaxgen.weights.lora import Factors, merge, read_lora, write_lora
from flaxgen.weights.tree import leaves_of

SD1 = {"unet": ldm_toy.SD1, "clip": ldm_toy.OPENAI}
SDXL = {"unet": ldm_toy.SDXL, "clip": ldm_toy.OPENAI, "clip_2": ldm_toy.PROJECTED}
DOWN_0 = "down_blocks.0.attentions.1.transformer_blocks.0"
MODULES = {  # peft's name, kohya's, that of diffusers 0.17, the kernel in torch, and here
    f"unet.{DOWN_0}.attn2.to_k": (
        "lora_unet_down_blocks_0_attentions_1_transformer_blocks_0_attn2_to_k",
        f"unet.{DOWN_0}.attn2.processor.to_k_lora",
        (32, 24),
        "down_0_attention_1/block_0/cross_attention/key/kernel",
    ),
    f"unet.{DOWN_0}.attn1.to_out.0": (
        "lora_unet_down_blocks_0_attentions_1_transformer_blocks_0_attn1_to_out_0",
        f"unet.{DOWN_0}.attn1.processor.to_out_lora",
        (32, 32),
        "down_0_attention_1/block_0/self_attention/out/kernel",
    ),
    "unet.mid_block.attentions.0.proj_in": (
        "lora_unet_mid_block_attentions_0_proj_in",
        "unet.mid_block.attentions.0.proj_in.lora",
        (64, 64, 1, 1),
        "middle_attention/proj_in/kernel",
    ),
    "unet.up_blocks.0.resnets.2.conv1": (
        "lora_unet_up_blocks_0_resnets_2_conv1",
        "unet.up_blocks.0.resnets.2.conv1.lora",
        (64, 96, 3, 3),
        "up_0_resblock_2/conv_1/kernel",
    ),
    "text_encoder.text_model.encoder.layers.1.self_attn.out_proj": (
        "lora_te_text_model_encoder_layers_1_self_attn_out_proj",
        "text_encoder.text_model.encoder.layers.1.self_attn.to_out_lora",
        (24, 24),
        "text/transformer/block_1/attention/out/kernel",
    ),
    "text_encoder.text_model.encoder.layers.0.mlp.fc1": (
        "lora_te_text_model_encoder_layers_0_mlp_fc1",
        "text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_linear_layer",
        (96, 24),
        "text/transformer/block_0/mlp_1/kernel",
    ),
}
RANK = 3
KEY, OUT = (f"unet.{DOWN_0}.{name}" for name in ("attn2.to_k", "attn1.to_out.0"))


def factors_of(shape, seed):
    """down [rank, in, ...] and up [out, rank, 1 ...] of a kernel in torch."""
    rng = np.random.default_rng(seed)
    down, up = (RANK, *shape[1:]), (shape[0], RANK, *(1 for _ in shape[2:]))
    return rng.standard_normal(down).astype(np.float32), rng.standard_normal(up).astype(np.float32)


def layouts(alpha=None):
    """The same LoRA under peft's, kohya's and old diffusers' names; only kohya's has an alpha."""
    peft, kohya, old = {}, {}, {}
    for seed, (name, (flat, older, shape, _)) in enumerate(MODULES.items()):
        down, up = factors_of(shape, seed)
        peft |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
        kohya |= {f"{flat}.lora_down.weight": down, f"{flat}.lora_up.weight": up}
        old |= {f"{older}.down.weight": down, f"{older}.up.weight": up}
        if alpha is not None:
            kohya[f"{flat}.alpha"] = np.array(alpha, np.float32)
    return {"peft": peft, "kohya": kohya, "old": old}


def read(tensors, tmp_path, targets=SD1):
    path = tmp_path / "lora.safetensors"
    store.write_file(path, tensors)
    return read_lora(path, targets)


def with_header(tensors, path, configs):
    """What is read of a file whose header has peft's configs, as diffusers writes them."""
    text = configs if isinstance(configs, str) else json.dumps(configs)
    save_file(tensors, path, {"format": "pt", "lora_adapter_metadata": text})
    return read_lora(path, SD1)


def test_three_layouts_hold_the_same_factors(tmp_path):
    peft, kohya, old = (read(tensors, tmp_path) for tensors in layouts().values())
    assert {part: set(factors) for part, factors in peft.items()} == {
        "unet": {path for name, (*_, path) in MODULES.items() if name.startswith("unet")},
        "clip": {path for name, (*_, path) in MODULES.items() if name.startswith("text")},
    }
    for other in (kohya, old):
        jax.tree.map(np.testing.assert_array_equal, other, peft)


@pytest.mark.parametrize(
    ("module", "original", "part", "path", "shape"),
    [
        (
            "unet_down_blocks_1_attentions_0_transformer_blocks_1_attn2_to_v",
            "unet_input_blocks_3_1_transformer_blocks_1_attn2_to_v",
            "unet",
            "down_1_attention_0/block_1/cross_attention/value/kernel",
            (64, 64),
        ),
        (
            "unet_up_blocks_0_upsamplers_0_conv",
            "unet_output_blocks_1_2_conv",
            "unet",
            "up_0_resample/conv/kernel",
            (64, 64, 3, 3),
        ),
        ("unet_conv_in", "unet_input_blocks_0_0", "unet", "conv_in/kernel", (32, 4, 3, 3)),
        (
            "te2_text_model_encoder_layers_2_mlp_fc2",
            "te2_text_model_encoder_layers_2_mlp_fc2",
            "clip_2",
            "text/transformer/block_2/mlp_2/kernel",
            (40, 160),
        ),
        ("te2_text_projection", "te2_text_projection", "clip_2", "text_projection/kernel", (48, 40)),
    ],
)
def test_sdxl_has_the_names_of_either_code(module, original, part, path, shape, tmp_path):
    down, up = factors_of(shape, 0)
    for name in (module, original):
        found = read({f"lora_{name}.lora_down.weight": down, f"lora_{name}.lora_up.weight": up}, tmp_path, SDXL)
        assert {one: list(factors) for one, factors in found.items()} == {part: [path]}


def test_merging_is_the_formula(tmp_path):
    """W + strength * alpha / rank * up down, in float64 and torch's layout; a convolution's by einsum."""
    lora = read(layouts(alpha=2.0)["kohya"], tmp_path)
    params = random_weights.draw_like(unet2d.abstract_params(ldm_toy.SD1))
    merged = merge(params, [(lora["unet"], 0.5), (lora["unet"], -2.0)])
    before, after = leaves_of(params), leaves_of(merged)
    assert set(before) == set(after)
    moved = {}
    for seed, (_, _, shape, path) in enumerate(MODULES.values()):
        down, up = (value.astype(np.float64) for value in factors_of(shape, seed))
        move = np.einsum("or,ri...->oi...", up.reshape(-1, RANK), down) * 2 / RANK
        moved[path] = move.T if len(shape) == 2 else move.transpose(2, 3, 1, 0)
    for path, leaf in before.items():
        expected = leaf if path not in moved else leaf.astype(np.float64) - 1.5 * moved[path]
        np.testing.assert_allclose(after[path], expected, rtol=2e-6, atol=2e-6)
        assert (path in lora["unet"]) == bool(np.any(after[path] != leaf))


def test_another_strength_compiles_nothing(tmp_path):
    lora, traced = read(layouts()["peft"], tmp_path)["clip"], []

    @jax.jit
    def merged(kernels, factors, strength):
        traced.append(strength)
        return merge(kernels, [(factors, strength)])

    path = "text/transformer/block_0/mlp_1/kernel"
    *way, last = path.split("/")
    factors, kernel = {path: lora[path]}, jnp.ones((24, 96), jnp.bfloat16)
    params = {last: kernel}
    for key in reversed(way):
        params = {key: params}
    half, none = (leaves_of(merged(params, factors, strength))[path] for strength in (0.5, 0.0))
    assert len(traced) == 1
    assert half.dtype == kernel.dtype
    np.testing.assert_array_equal(none, kernel)
    expected = 1 + 0.5 * lora[path].down @ lora[path].up
    np.testing.assert_array_equal(half, expected.astype(jnp.bfloat16))


def test_alpha_is_the_rank_where_it_is_missing_or_zero(tmp_path):
    for alpha, scale in ((None, 1.0), (0.0, 1.0), (1.5, 0.5)):
        lora = read(layouts(alpha)["kohya"], tmp_path)
        assert {factors.scale for part in lora.values() for factors in part.values()} == {np.float32(scale)}


def test_alpha_of_pefts_config(tmp_path):
    path, tensors = tmp_path / "lora.safetensors", layouts()["peft"]
    configs = {"unet.lora_alpha": 6, "unet.r": RANK, "unet.alpha_pattern": {"attn2.to_k": 9}}
    lora = with_header(tensors, path, configs)
    assert lora["unet"][MODULES[KEY][-1]].scale == 3
    assert lora["unet"][MODULES[OUT][-1]].scale == 2
    assert {factors.scale for factors in lora["clip"].values()} == {1.0}
    lora = with_header(tensors, path, configs | {"unet.use_rslora": True})
    assert lora["unet"][MODULES[OUT][-1]].scale == np.float32(6 / np.sqrt(RANK))
    for changes, message in (
        ({"unet.lora_alpha": "six"}, "alpha='six' of unet.* expected a number"),
        ({"unet.alpha_pattern": [1]}, r"unet.alpha_pattern=\[1\], expected an object"),
    ):
        with pytest.raises(ValueError, match=message):
            with_header(tensors, path, configs | changes)
    for text, message in (("{", "lora_adapter_metadata is not JSON"), ("[]", "is not an object")):
        with pytest.raises(ValueError, match=message):
            with_header(tensors, path, text)


def test_a_written_file_is_pefts_and_moves_as_much(tmp_path):
    path = tmp_path / "peft.safetensors"
    lora, tensors = read(layouts(alpha=1.5)["kohya"], tmp_path), layouts()["peft"]
    write_lora(path, lora, SD1)
    written = store.read_file(path)
    assert {name: value.shape for name, value in written.items()} == {name: v.shape for name, v in tensors.items()}
    for name, value in written.items():
        np.testing.assert_array_equal(value, tensors[name] * (0.5 if "lora_B" in name else 1))
    with pytest.raises(ValueError, match="moves 'here/kernel' of 'unet', which this model does not have"):
        write_lora(path, {"unet": {"here/kernel": Factors(np.ones((2, 1)), np.ones((1, 2)), 1.0)}}, SD1)


def test_a_linear_layer_and_a_1x1_convolution_are_one(tmp_path):
    tensors = layouts()["peft"]
    squeezed = {
        name: v.squeeze((2, 3)) if v.shape[2:] == (1, 1) and "conv" not in name else v for name, v in tensors.items()
    }
    assert {v.ndim for name, v in squeezed.items() if "proj_in" in name} == {2}
    jax.tree.map(np.testing.assert_array_equal, read(squeezed, tmp_path), read(tensors, tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({f"{KEY}.dora_scale": (32, 1)}, "attn2.to_k.dora_scale' is of DoRA, expected LoRA"),
        ({f"{KEY}.lora_magnitude_vector": (32,)}, "is of DoRA"),
        ({"lora_unet_conv_in.hada_w1_a": (2, 3)}, "'lora_unet_conv_in.hada_w1_a' is of LoHa"),
        ({"lora_unet_conv_in.lokr_w1": (2, 3)}, "is of LoKr"),
        ({"lora_unet_conv_in.lora_mid.weight": (2, 2, 3, 3)}, "is of LoCon with a core"),
        ({"unet.down_blocks.7.resnets.0.conv1.lora_A.weight": (2, 3)}, r"'unet.down_blocks.7\S+' has no place in this"),
        ({"lora_te2_text_projection.lora_up.weight": (2, 3)}, "'lora_te2_text_projection.lora_up.weight' has no place"),
        (
            {f"{KEY}.lora_A.weight": (RANK, 16)},
            r"attn2.to_k.lora_A.weight' of shape \(3, 16\) is no 'down' of rank 3 for",
        ),
        ({f"{KEY}.lora_B.weight": (32, 5)}, r"attn2.to_k.lora_B.weight' of shape \(32, 5\) is no 'up' of rank 3"),
        ({f"{KEY}.lora_A.weight": (RANK,)}, r"attn2.to_k.lora_A.weight' of shape \(3,\)"),
        ({f"{KEY}.alpha": (2,)}, r"attn2.to_k.alpha' of shape \(2,\) is no 'alpha'"),
        ({"unet.conv_in.lora_A.weight": (RANK, 4, 3, 3)}, "'unet.conv_in.lora_A.weight' has no 'up' beside it"),
        ({f"unet.{DOWN_0}.attn2.to_k.lora.down.weight": (RANK, 24)}, r"to_k.lora.down.weight' and .* are both down of"),
    ],
)
def test_other_files_are_refused_by_name(changes, message, tmp_path):
    tensors = layouts()["peft"] | {name: np.ones(shape, np.float32) for name, shape in changes.items()}
    with pytest.raises(ValueError, match=message) as caught:
        read(tensors, tmp_path)
    assert "\n" not in str(caught.value)


def test_other_targets_and_other_parameters_are_refused(tmp_path):
    read(layouts()["peft"], tmp_path)
    with pytest.raises(ValueError, match="part='vae' is none of a model's"):
        read_lora(tmp_path / "lora.safetensors", {"vae": ldm_toy.SD1})
    with pytest.raises(ValueError, match="is a pickle"):
        read_lora(tmp_path / "lora.pt", SD1)
    kernel = {"b": {"kernel": jnp.ones((4, 5))}}
    with pytest.raises(ValueError, match=r"a LoRA moves 'a/kernel' .* have none: another model"):
        merge(kernel, [({"a/kernel": Factors(np.ones((4, 1)), np.ones((1, 5)), 1.0)}, 1.0)])
    kernel = {"a": {"kernel": jnp.ones((4, 5))}}
    with pytest.raises(ValueError, match=r"of shape \(4, 6\), these parameters have \(4, 5\)"):
        merge(kernel, [({"a/kernel": Factors(np.ones((4, 1)), np.ones((1, 6)), 1.0)}, 1.0)])


def test_names_of_both_codes_of_a_net_of_patches(tmp_path):
    """Of every module what the file moves is what its own tensor is moved by, of those too that are several here, or
    whose halves are swapped."""
    net = MMDiT(
        image_size=4, in_channels=4, out_channels=4, patch=2, width=16, depth=2, heads=2, token_dim=12, vector_dim=10,
        max_places=4, dual_blocks=(0,),
    )  # fmt: skip
    params = random_weights.draw_like(dit.abstract_params(net))
    kohya = lambda module: f"lora_unet_{module.replace('.', '_')}"  # noqa: E731
    named = ((sd3_single.net_rules(net), kohya), (mmdit.rules_of(net), lambda module: f"transformer.{module}"))
    for rules, name_of in named:
        before, moves, tensors = export_params(rules, params, dit.abstract_params(net)), {}, {}
        for name in sorted(before):
            value = before[name]
            if not name.endswith(".weight") or value.ndim < 2:
                continue
            down, up = factors_of(value.shape, len(moves))
            module = name_of(name.removesuffix(".weight"))
            tensors |= {f"{module}.lora_down.weight": down, f"{module}.lora_up.weight": up}
            tensors[f"{module}.alpha"] = np.array(2.0, np.float32)
            moves[name] = 2 / RANK * (up.reshape(len(up), RANK) @ down.reshape(RANK, -1)).reshape(value.shape)
        save_file(tensors, tmp_path / "lora.safetensors")
        (factors,) = read_lora(tmp_path / "lora.safetensors", {"unet": net}).values()
        after = export_params(rules, merge(params, [(factors, 1.0)]), dit.abstract_params(net))
        for name, move in moves.items():
            np.testing.assert_allclose(after[name], before[name] + move, atol=1e-4, err_msg=name)
    assert any("qkv" in name for name in export_params(named[0][0], params, dit.abstract_params(net)))
    write_lora(tmp_path / "back.safetensors", {"unet": factors}, {"unet": net})
    (again,) = read_lora(tmp_path / "back.safetensors", {"unet": net}).values()
    for path, (down, up, scale) in factors.items():
        np.testing.assert_allclose(again[path].up, scale * up, rtol=1e-6)
        np.testing.assert_array_equal(again[path].down, down)


def test_a_lora_of_a_t5(tmp_path):
    save_file({"lora_te3_encoder_block_0.alpha": np.zeros(1, np.float32)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="moves a T5, of which no LoRAs are read"):
        read_lora(tmp_path / "a.safetensors", SD1)


def test_a_fused_module_of_another_width(tmp_path):
    net = MMDiT(image_size=4, in_channels=4, out_channels=4, width=16, depth=2, heads=2, token_dim=12, vector_dim=10)
    name = "lora_unet_joint_blocks_0_x_block_attn_qkv"
    down, up = np.zeros((2, 16), np.float32), np.zeros((40, 2), np.float32)
    save_file({f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=f"tensor '{name}.lora_up.weight' of shape .40, 2. is no 'up' of rank 2"):
        read_lora(tmp_path / "a.safetensors", {"unet": net})
