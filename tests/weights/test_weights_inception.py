"""The published layout of the FID Inception, without torch: names by hand, bytes there and back, what is refused."""

import sys

import jax
import numpy as np
import pytest

from flaxgen.weights import store
from flaxgen.weights.inception import RULES, SHA256, URLS, abstract_params, export_inception, import_inception
from flaxgen.weights.rules import from_params, to_params


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.random(leaf.shape, np.float32), abstract_params())


@pytest.fixture(scope="module")
def exported(params, tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "inception.safetensors"
    export_inception(params, path)
    return path


@pytest.fixture
def changed(exported, tmp_path):
    """`changed(edit)`: the exported file after `edit(tensors)`."""

    def make(edit):
        tensors = store.read_file(exported)
        edit(tensors)
        store.write_file(tmp_path / "changed.safetensors", tensors)
        return tmp_path / "changed.safetensors"

    return make


def test_the_way_back_is_the_way_there(params, exported):
    jax.tree.map(np.testing.assert_array_equal, import_inception(exported), params)


def test_rules_are_a_bijection(params):
    flat = store.flatten(params)
    tensors = from_params(RULES, flat)
    assert len(tensors) == len(flat) == len(RULES)
    again = to_params(RULES, tensors)
    assert again.keys() == flat.keys()
    assert all(again[name].tobytes() == flat[name].tobytes() for name in flat)


def test_export_has_the_names_of_the_published_file(exported):
    """A few, written down by hand from pytorch-fid."""
    header = store.read_header(exported)
    shapes = {
        "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
        "Conv2d_4a_3x3.bn.running_var": (192,),
        "Mixed_5b.branch_pool.conv.weight": (32, 192, 1, 1),
        "Mixed_5d.branch5x5_2.conv.weight": (64, 48, 5, 5),
        "Mixed_6a.branch3x3dbl_3.conv.weight": (96, 96, 3, 3),
        "Mixed_6b.branch7x7_2.conv.weight": (128, 128, 1, 7),
        "Mixed_6c.branch7x7dbl_4.conv.weight": (160, 160, 7, 1),
        "Mixed_6e.branch7x7dbl_5.bn.running_mean": (192,),
        "Mixed_7a.branch7x7x3_4.bn.bias": (192,),
        "Mixed_7b.branch3x3_2a.conv.weight": (384, 384, 1, 3),
        "Mixed_7c.branch3x3dbl_1.bn.weight": (448,),
        "Mixed_7c.branch_pool.conv.weight": (192, 2048, 1, 1),
        "fc.weight": (1008, 2048),
        "fc.bias": (1008,),
    }
    assert {name: header[name].shape for name in shapes} == shapes
    assert len(header) == 472


def test_counters_of_batches_are_left_out(changed, params):
    path = changed(lambda tensors: tensors.update({"Mixed_7c.branch1x1.bn.num_batches_tracked": np.array(0)}))
    jax.tree.map(np.testing.assert_array_equal, import_inception(path), params)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.pop("Mixed_6a.branch3x3.bn.weight"), r"'Mixed_6a\.branch3x3\.bn\.weight' is missing"),
        (
            lambda t: t.update({"fc.weight": np.zeros((1000, 2048), np.float32)}),
            r"\(2048, 1000\), expected \(2048, 1008",
        ),
        (lambda t: t.update({"Mixed_8a.bn.num_batches_tracked": np.array(0)}), r"no rule matches 'Mixed_8a"),
        (lambda t: t.update({"AuxLogits.fc.bias": np.zeros(1000, np.float32)}), "torchvision's Inception"),
        (lambda t: t.update({"fc.bias": np.zeros(1008)}), "float64, which does not fit into float32"),
    ],
)
def test_tensors_that_do_not_fit_are_named(edit, message, changed):
    with pytest.raises(ValueError, match=message) as caught:
        import_inception(changed(edit))
    assert "\n" not in str(caught.value)


def test_a_missing_file_says_where_it_comes_from(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        import_inception(tmp_path / "inception.safetensors")
    assert URLS[0] in str(caught.value)
    assert SHA256 in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_torch_a_pickle_is_told_how_to_convert(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "weights.pth").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"is a pickle.*weights_only=True.*'weights\.safetensors'") as caught:
        import_inception(tmp_path / "weights.pth")
    assert "\n" not in str(caught.value)


def test_a_damaged_download_is_found_by_its_name(tmp_path):
    """The published name ends in the first 8 digits of the sha256 of its bytes."""
    assert all(f"-{SHA256[:8]}.pth" in url for url in URLS)
    path = tmp_path / URLS[0].rpartition("/")[2]
    path.write_bytes(b"half a file")
    with pytest.raises(ValueError, match=r"has sha256 [0-9a-f]{8}\.\.\., its name says 6726825d"):
        import_inception(path)


def test_export_refuses_other_params(params, tmp_path):
    with pytest.raises(ValueError, match="'fc_bias' is missing"):
        export_inception({name: value for name, value in params.items() if name != "fc_bias"}, tmp_path / "x")
