"""The weights of DALL-E's discrete autoencoder: names, what survives, what is refused. Numbers: tests/parity."""

import jax
import numpy as np
import pytest
import random_weights

from flaxgen.nets.dalle_vae import DalleVae
from flaxgen.weights import store
from flaxgen.weights.autoencoder import abstract_params
from flaxgen.weights.dalle_vae import PARTS, export_flava, export_openai, import_flava, import_openai

SMALL = DalleVae(image_size=8, channels=8, multipliers=(1, 2), depth=1, codes=5, bottleneck=4)
FLAVA = DalleVae(image_size=8, channels=4, depth=1, codes=5)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    params = random_weights.draw_like(abstract_params(SMALL))
    export_openai(SMALL, params, folder)
    return folder, params


def test_names_are_openais(exported):
    encoder, decoder = (store.read_file(exported[0] / f"{part}.safetensors") for part in PARTS)
    assert {
        "blocks.input.w": (8, 3, 7, 7),
        "blocks.group_1.block_1.res_path.conv_1.w": (2, 8, 3, 3),
        "blocks.group_2.block_1.id_path.w": (16, 8, 1, 1),
        "blocks.group_2.block_1.res_path.conv_4.b": (16,),
        "blocks.output.conv.b": (5,),
    }.items() <= {name: value.shape for name, value in encoder.items()}.items()
    assert {
        "blocks.input.w": (4, 5, 1, 1),
        "blocks.group_1.block_1.id_path.w": (16, 4, 1, 1),
        "blocks.group_2.block_1.res_path.conv_4.w": (8, 2, 3, 3),
        "blocks.output.conv.w": (6, 8, 1, 1),
    }.items() <= {name: value.shape for name, value in decoder.items()}.items()


def test_nets_survive_the_round_trip(exported):
    folder, params = exported
    net, found = import_openai(folder, image_size=8)
    assert net == SMALL
    jax.tree.map(np.testing.assert_array_equal, found, params)


def test_flavas_codebook_survives_the_round_trip(tmp_path):
    params = random_weights.draw_like(abstract_params(FLAVA))
    export_flava(FLAVA, params, tmp_path)
    net, found = import_flava(tmp_path, image_size=8)
    assert net == FLAVA
    assert set(found) == {"encoder"}
    jax.tree.map(np.testing.assert_array_equal, found["encoder"], params["encoder"])


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("encoder", {"blocks.input.w": None}, r"'blocks\.input\.w' of 4 dimensions is missing: this is not OpenAI's"),
        ("encoder", {"blocks.input.w": (0, 3, 7, 7)}, r"'blocks\.input\.w' of 4 dimensions is missing"),
        (
            "encoder",
            {"blocks.input.w": (3, 3, 7, 7)},
            "a group has 8 channels, expected a multiple of the first one's 3",
        ),
        ("encoder", {"blocks.group_2.block_1.id_path.b": None}, r"'blocks\.group_2\.block_1\.id_path\.b' is missing"),
        ("decoder", {"blocks.output.conv.w": (7, 8, 1, 1)}, r"shape \(1, 1, 8, 7\), expected \(1, 1, 8, 6\)"),
        ("decoder", {"blocks.input.weight": (4, 5, 1, 1)}, r"no rule matches 'blocks\.input\.weight'"),
    ],
)
def test_broken_tensors_are_named(exported, part, changes, message, tmp_path):
    for name in PARTS:
        tensors = store.read_file(exported[0] / f"{name}.safetensors")
        for tensor, shape in changes.items() if name == part else ():
            tensors.pop(tensor, None)
            if shape is not None:
                tensors[tensor] = np.zeros(shape, np.float32)
        store.write_file(tmp_path / f"{name}.safetensors", tensors)
    with pytest.raises(ValueError, match=message) as caught:
        import_openai(tmp_path)
    assert "\n" not in str(caught.value)


def test_what_is_not_there_says_where_it_comes_from(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"convert_openai_dvae\.py makes it of OpenAI's encoder\.pkl"):
        import_openai(tmp_path)


def test_other_widths_are_not_flavas(tmp_path):
    with pytest.raises(ValueError, match=r"multipliers=\(1, 2\) are not in a FlavaImageCodebook"):
        export_flava(SMALL, {}, tmp_path)
    store.write_json(tmp_path / "config.json", {"model_type": "flava_image_codebook", "num_groups": 3})
    with pytest.raises(ValueError, match="num_groups=3 is not supported, only 4"):
        import_flava(tmp_path)
