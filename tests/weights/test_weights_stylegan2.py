"""NVlabs' layout of StyleGAN2, without torch: names by hand, bytes there and back, what is refused."""

import jax
import numpy as np
import pytest

from flaxgen.nets.stylegan2 import Generator
from flaxgen.nets.stylegan2_discriminator import Discriminator
from flaxgen.weights import store, stylegan2

SMALL = {"channels": 3, "num_classes": 2, "mapping_depth": 2, "channel_base": 64, "channel_max": 8}
GENERATOR = Generator(16, latent_dim=5, style_dim=6, **SMALL)
DISCRIMINATOR = Discriminator(16, **SMALL)
NETS = {
    "generator": (GENERATOR, stylegan2.import_generator, stylegan2.export_generator),
    "discriminator": (DISCRIMINATOR, stylegan2.import_discriminator, stylegan2.export_discriminator),
}


def random_variables(net):
    rng = np.random.default_rng(0)
    shapes = stylegan2.abstract_variables(net)
    return jax.tree.map(lambda leaf: np.asarray(rng.normal(size=leaf.shape), np.float32), shapes)


@pytest.fixture(scope="module", params=NETS)
def side(request, tmp_path_factory):
    """(net, variables, the exported file, import, export) of either net."""
    net, read, write = NETS[request.param]
    path, variables = tmp_path_factory.mktemp("weights") / f"{request.param}.safetensors", random_variables(net)
    write(net, variables, path)
    return net, variables, path, read, write


def test_bytes_there_and_back(side, tmp_path):
    net, variables, path, read, write = side
    again = read(net, path)
    jax.tree.map(np.testing.assert_array_equal, again, variables)
    write(net, again, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("architecture", ["orig", "skip", "resnet"])
@pytest.mark.parametrize("name", NETS)
def test_every_architecture_has_its_tensors(name, architecture, tmp_path):
    net, read, write = NETS[name]
    net = net.clone(architecture=architecture)
    variables = random_variables(net)
    write(net, variables, tmp_path / "x.safetensors")
    jax.tree.map(np.testing.assert_array_equal, read(net, tmp_path / "x.safetensors"), variables)


def test_names_and_shapes_are_nvlabs(tmp_path):
    """Written down by hand from stylegan2-ada-pytorch's training/networks.py."""
    stylegan2.export_generator(GENERATOR, random_variables(GENERATOR), tmp_path / "g.safetensors")
    stylegan2.export_discriminator(DISCRIMINATOR, random_variables(DISCRIMINATOR), tmp_path / "d.safetensors")
    found = {name: entry.shape for name, entry in store.read_header(tmp_path / "g.safetensors").items()}
    dense = {"mapping.embed": (6, 2), "mapping.fc0": (6, 11), "mapping.fc1": (6, 6)}
    expected = {"mapping.w_avg": (6,), "synthesis.b4.const": (8, 4, 4)}
    for size, inputs, outputs in ((4, 8, 8), (8, 8, 8), (16, 8, 4)):
        block = f"synthesis.b{size}"
        expected[f"{block}.resample_filter"] = (4, 4)
        for conv, channels in (("conv0", inputs), ("conv1", outputs)):
            if (size, conv) == (4, "conv0"):
                continue
            layer = f"{block}.{conv}"
            dense[f"{layer}.affine"] = (channels, 6)
            expected |= {f"{layer}.weight": (outputs, channels, 3, 3), f"{layer}.bias": (outputs,)}
            expected |= {f"{layer}.noise_strength": (), f"{layer}.noise_const": (size, size)}
            expected[f"{layer}.resample_filter"] = (4, 4)
        dense[f"{block}.torgb.affine"] = (outputs, 6)
        expected |= {f"{block}.torgb.weight": (3, outputs, 1, 1), f"{block}.torgb.bias": (3,)}
    expected |= {f"{name}.weight": shape for name, shape in dense.items()}
    expected |= {f"{name}.bias": shape[:1] for name, shape in dense.items()}
    assert found == expected

    found = {name: entry.shape for name, entry in store.read_header(tmp_path / "d.safetensors").items()}
    dense = {"mapping.embed": (8, 2), "mapping.fc0": (8, 8), "mapping.fc1": (8, 8), "b4.fc": (8, 128), "b4.out": (8, 8)}
    convs = {"b16.fromrgb": (4, 3, 1, 1), "b16.conv0": (4, 4, 3, 3), "b16.conv1": (8, 4, 3, 3)}
    convs |= {"b8.conv0": (8, 8, 3, 3), "b8.conv1": (8, 8, 3, 3), "b4.conv": (8, 9, 3, 3)}
    skips = {"b16.skip": (8, 4, 1, 1), "b8.skip": (8, 8, 1, 1)}
    expected = {f"{name}.weight": shape for name, shape in (dense | convs | skips).items()}
    expected |= {f"{name}.bias": shape[:1] for name, shape in (dense | convs).items()}
    expected |= {f"{name}.resample_filter": (4, 4) for name in (*convs, *skips, "b16", "b8")}
    assert found == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 32}, r"tensor 'synthesis\.b32\.conv0\.affine\.bias' is missing"),
        ({"image_size": 8}, r"tensor 'synthesis\.b16\.conv0\.affine\.bias' is not part of the model"),
        ({"channel_base": 32}, r"tensor 'synthesis\.b16\.conv0\.bias' has shape \(4,\), expected \(2,\)"),
        ({"num_classes": 0}, r"'mapping\.embed\.bias' is not part of the model"),
        ({"mapping_depth": 3}, r"'mapping\.fc2\.bias' is missing"),
    ],
)
def test_another_net_is_refused_by_its_first_tensor(change, message, tmp_path):
    path = tmp_path / "g.safetensors"
    stylegan2.export_generator(GENERATOR, random_variables(GENERATOR), path)
    with pytest.raises(ValueError, match=message) as caught:
        stylegan2.import_generator(GENERATOR.clone(**change), path)
    assert "\n" not in str(caught.value)


def test_another_filter_is_refused(side, tmp_path):
    net, _, path, read, _ = side
    tensors = dict(store.read_file(path))
    name = sorted(name for name in tensors if name.endswith("resample_filter"))[0]
    tensors[name] = np.full((4, 4), 1 / 16, np.float32)
    store.write_file(tmp_path / "box.safetensors", tensors)
    with pytest.raises(ValueError, match=f"'{name}' is not the filter of taps 1 3 3 1"):
        read(net, tmp_path / "box.safetensors")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no .*none\.safetensors"):
        stylegan2.import_generator(GENERATOR, tmp_path / "none.safetensors")
