"""dalle-mini's folders: names, what survives, what is refused. Numbers of the net: tests/nets and tests/parity."""

import jax
import numpy as np
import pytest
import random_weights
from flax import serialization

from flaxgen.nets.dalle_mini import DalleMini
from flaxgen.weights import store
from flaxgen.weights.dalle_mini import (
    FILE,
    abstract_params,
    config_from_dalle_mini,
    dalle_mini_from_config,
    export_dalle_mini,
    import_dalle_mini,
)
from flaxgen.weights.tree import flatten, unflatten

SMALL = DalleMini(text_tokens=7, context=4, codes=5, length=6, begin=4, width=8, depth=3, heads=2, inner=6)
MEGA = {"d_model": 2048, "encoder_vocab_size": 50_272, "image_vocab_size": 16_415, "decoder_start_token_id": 16_384} | {
    f"{half}_{name}": value
    for half in ("encoder", "decoder")
    for name, value in (("layers", 24), ("attention_heads", 32), ("ffn_dim", 4096))
}
MINI = {f"{half}_ffn_dim": 2730 for half in ("encoder", "decoder")}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    params = random_weights.draw_like(abstract_params(SMALL))
    export_dalle_mini(SMALL, params, folder)
    return folder, params


def read(folder):
    return flatten(serialization.msgpack_restore((folder / FILE).read_bytes()))


def write(folder, net, tensors):
    store.write_json(folder / "config.json", config_from_dalle_mini(net))
    (folder / FILE).write_bytes(serialization.msgpack_serialize(unflatten(tensors)))


def test_names_and_shapes_are_dalle_minis(exported):
    encoder, decoder = (f"model/{half}/layers/FlaxBart{half.title()}Layers" for half in ("encoder", "decoder"))
    tensors = {name: value.shape for name, value in read(exported[0]).items()}
    assert {
        "lm_head/kernel": (8, 6),
        "model/encoder/embed_tokens/embedding": (7, 8),
        "model/decoder/embed_tokens/embedding": (6, 8),
        "model/decoder/embed_positions/embedding": (6, 8),
        "model/encoder/layernorm_embedding/scale": (8,),
        "model/decoder/final_ln/bias": (8,),
        f"{encoder}/LayerNorm_0/bias": (3, 8),
        f"{encoder}/FlaxBartAttention_0/q_proj/kernel": (3, 8, 8),
        f"{encoder}/GLU_0/Dense_2/kernel": (3, 6, 8),
        f"{decoder}/FlaxBartAttention_1/out_proj/kernel": (3, 8, 8),
        f"{decoder}/LayerNorm_3/scale": (3, 8),
        f"{decoder}/GLU_0/LayerNorm_1/bias": (3, 6),
    }.items() <= tensors.items()
    assert f"{encoder}/LayerNorm_0/scale" not in tensors
    assert not any(name.startswith(encoder) and "LayerNorm_2" in name for name in tensors)


def test_layers_are_in_front(exported):
    folder, params = exported
    stacked = read(folder)["model/decoder/layers/FlaxBartDecoderLayers/GLU_0/Dense_1/kernel"]
    for i in range(3):
        np.testing.assert_array_equal(stacked[i], params["decoder"][f"block_{i}"]["mlp"]["value"]["kernel"])


@pytest.mark.parametrize("depth", [3, 1])
def test_nets_and_files_survive_the_round_trip(depth, tmp_path):
    net = SMALL.clone(depth=depth)
    params = random_weights.draw_like(abstract_params(net))
    export_dalle_mini(net, params, tmp_path / "one")
    found, again = import_dalle_mini(tmp_path / "one")
    assert found == net
    jax.tree.map(np.testing.assert_array_equal, again, params)
    export_dalle_mini(found, again, tmp_path / "two")
    for name in (FILE, "config.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    whole = serialization.msgpack_restore((tmp_path / "one" / FILE).read_bytes())
    assert serialization.to_bytes(jax.tree.map(lambda leaf: leaf, whole)) == (tmp_path / "one" / FILE).read_bytes()


def test_half_precision_stays_with_keep_dtype(exported, tmp_path):
    half = {name: value.astype(np.float16) for name, value in read(exported[0]).items()}
    write(tmp_path, SMALL, half)
    net, params = import_dalle_mini(tmp_path, keep_dtype=True)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float16)}
    export_dalle_mini(net, params, tmp_path / "back")
    assert (tmp_path / "back" / FILE).read_bytes() == (tmp_path / FILE).read_bytes()
    assert {leaf.dtype for leaf in jax.tree.leaves(import_dalle_mini(tmp_path)[1])} == {np.dtype(np.float32)}


def test_layers_one_by_one_are_read_too(exported, tmp_path):
    folder, params = exported
    tensors = {}
    for name, value in read(folder).items():
        if "Layers/" in name:
            tensors |= {name.replace("Layers/", f"Layer_{i}/"): value[i] for i in range(3)}
        else:
            tensors[name] = value
    write(tmp_path, SMALL, tensors)
    jax.tree.map(np.testing.assert_array_equal, import_dalle_mini(tmp_path)[1], params)


GATE = "model/encoder/layers/FlaxBartEncoderLayers/GLU_0/Dense_0/kernel"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({GATE: None}, f"tensor '{GATE}' is missing"),
        ({GATE: np.zeros((2, 8, 6), np.float32)}, r"shape \(2, 8, 6\): expected 3 at dimension 0"),
        ({GATE: np.zeros((3, 8, 7), np.float32)}, r"has shape \(8, 7\), expected \(8, 6\)"),
        ({GATE: np.array(1, np.float32)}, r"shape \(\): expected 3 at dimension 0"),
        ({GATE: np.full((3, 8, 6), np.nan, np.float32)}, "holds NaN or infinite numbers"),
        ({GATE: np.zeros((3, 8, 6), np.int32)}, "is int32, expected floating-point numbers"),
        ({GATE: np.zeros((3, 8, 6), np.float64)}, "is float64, which does not fit into float32"),
        ({"lm_head/bias": np.zeros(6, np.float32)}, "no rule matches 'lm_head/bias'"),
        ({"lm_head/kernel": "numbers"}, "expected floating-point numbers"),
        ({"extra": np.zeros(10**5, np.float32)}, "a file of this model has at most"),
    ],
)
def test_broken_tensors_are_named(changes, message, exported, tmp_path):
    tensors = {name: value for name, value in (read(exported[0]) | changes).items() if value is not None}
    write(tmp_path, SMALL, tensors)
    with pytest.raises(ValueError, match=message) as caught:
        import_dalle_mini(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93\x01\x02\x03",
        b"\x81\xa1a\x80",
        b"\xdd\xff\xff\xff\xff",
        b"\x81\xa1a\xc7\x03\x01abc",
        b"\x91" * 5000,
        b"\x81\xa1a" * 900 + b"\x01",
        b"\x81\x01\x02",
        serialization.msgpack_serialize({"a": np.zeros(4, np.float32)})[:-3],
        serialization.msgpack_serialize({"a/b": np.zeros(4, np.float32)}),
        serialization.msgpack_serialize({"a": [np.zeros(4, np.float32)]}),
        serialization.msgpack_serialize({"__msgpack_chunked_array__": True, "shape": 3}),
    ],
)
def test_bytes_that_are_no_parameters_are_refused_in_a_line(data, tmp_path):
    store.write_json(tmp_path / "config.json", config_from_dalle_mini(SMALL))
    (tmp_path / FILE).write_bytes(data)
    with pytest.raises(ValueError, match=r"is not a file of Flax parameters|is int64") as caught:
        import_dalle_mini(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    store.write_json(tmp_path / "config.json", config_from_dalle_mini(SMALL))
    with pytest.raises(FileNotFoundError, match=rf"there is no .*{FILE}"):
        import_dalle_mini(tmp_path)


def test_a_write_that_fails_leaves_what_was_there(exported, tmp_path):
    params = jax.tree.map(np.copy, exported[1])
    export_dalle_mini(SMALL, params, tmp_path)
    before = (tmp_path / FILE).read_bytes()
    params["out"]["kernel"][0, 0] = np.inf
    with pytest.raises(ValueError, match="tensor 'lm_head/kernel' holds NaN or infinite"):
        export_dalle_mini(SMALL, params, tmp_path)
    assert (tmp_path / FILE).read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", FILE]


@pytest.mark.parametrize(("config", "count"), [(MINI, 437_833_712), (MEGA, 2_587_521_024)], ids=["mini", "mega"])
def test_published_sizes(config, count):
    """0.4 and 2.6 billion, as their model cards say."""
    net = dalle_mini_from_config(config)
    assert sum(leaf.size for leaf in jax.tree.leaves(abstract_params(net))) == count
    assert net.begin == 16_384
    assert dalle_mini_from_config(config_from_dalle_mini(net)) == net


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "bart"}, "is of a bart, expected a dallebart"),
        ({"ln_positions": "swinv2"}, "ln_positions='swinv2' is not supported, only 'normformer'"),
        ({"use_cosine_attention": True}, "use_cosine_attention=True is not supported, only False"),
        ({"use_glu": False}, "use_glu=False is not supported"),
        ({"decoder_layers": 6}, "the decoder's depth=6 is not supported, only 12"),
        (
            {"encoder_layers": 2**31 - 1},
            "encoder_layers=2147483647 is not supported, only a whole number from 1 to 1000",
        ),
        ({"d_model": 0}, "d_model=0 is not supported, only a whole number from 1"),
        ({"decoder_start_token_id": -1}, "decoder_start_token_id=-1 is not supported"),
        ({"activation_function": "relu"}, "activation_function='relu' is not supported, only 'gelu'"),
    ],
)
def test_configs_of_other_nets_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        dalle_mini_from_config(config)


def test_what_no_dallebart_has_is_not_exported(tmp_path):
    with pytest.raises(ValueError, match="quick_gelu"):
        export_dalle_mini(SMALL.clone(activation="quick_gelu"), {}, tmp_path)
