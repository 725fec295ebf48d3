"""DALL-E's discrete autoencoder beside transformers' FlavaImageCodebook and, for the decoder and the pickles, modules
with the names that OpenAI published."""

import json
import os
import pickle
import subprocess
import sys
import types
from collections import OrderedDict
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.nets.dalle_vae import DalleVae
from flaxgen.weights import store
from flaxgen.weights.autoencoder import abstract_params
from flaxgen.weights.dalle_vae import STEM, export_flava, export_openai, import_flava, import_openai

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
]
SCRIPT = Path(__file__).parents[2] / "scripts" / "convert_openai_dvae.py"


class Conv2d(torch.nn.Module):
    """A convolution whose parameters are w and b."""

    def __init__(self, inputs, outputs, size):
        super().__init__()
        self.device = torch.device("cpu")
        self.w = torch.nn.Parameter(torch.randn(outputs, inputs, size, size) / (inputs * size**2) ** 0.5)
        self.b = torch.nn.Parameter(0.1 * torch.randn(outputs))

    def forward(self, x):
        return torch.nn.functional.conv2d(x, self.w, self.b, padding=self.w.shape[-1] // 2)


class Block(torch.nn.Module):
    """id_path(x) + res_path(x) / layers^2."""

    def __init__(self, inputs, outputs, kernels, layers):
        super().__init__()
        self.gain = 1 / layers**2
        self.id_path = torch.nn.Identity() if inputs == outputs else Conv2d(inputs, outputs, 1)
        widths = (inputs, *[outputs // 4] * 3, outputs)
        parts = []
        for i, size in enumerate(kernels):
            parts += [(f"relu_{i + 1}", torch.nn.ReLU()), (f"conv_{i + 1}", Conv2d(widths[i], widths[i + 1], size))]
        self.res_path = torch.nn.Sequential(OrderedDict(parts))

    def forward(self, x):
        return self.id_path(x) + self.gain * self.res_path(x)


class Part(torch.nn.Module):
    """An encoder or a decoder: a convolution, groups with a change of size between them, a ReLU and a convolution."""

    def __init__(self, first, widths, depth, kernels, resample, outputs):
        super().__init__()
        groups, width, layers = [("input", Conv2d(*first))], first[1], len(widths) * depth
        for i, wide in enumerate(widths):
            blocks = [(f"block_{j + 1}", Block(width if j == 0 else wide, wide, kernels, layers)) for j in range(depth)]
            blocks += [("resample", resample)] if i < len(widths) - 1 else []
            groups.append((f"group_{i + 1}", torch.nn.Sequential(OrderedDict(blocks))))
            width = wide
        last = OrderedDict([("relu", torch.nn.ReLU()), ("conv", Conv2d(width, outputs, 1))])
        self.blocks = torch.nn.Sequential(OrderedDict([*groups, ("output", torch.nn.Sequential(last))]))

    def forward(self, x):
        return self.blocks(x)


def channels_first(x):
    return torch.from_numpy(np.array(x).transpose(0, 3, 1, 2))


def compare(ours, theirs):
    theirs = theirs.numpy().transpose(0, 2, 3, 1)
    assert theirs.std() > 0.1
    assert np.abs(theirs - np.asarray(ours)).max() <= 1e-5 * max(1, np.abs(theirs).max())


@pytest.fixture(scope="module")
def flava(tmp_path_factory):
    config = transformers.FlavaImageCodebookConfig(hidden_size=16, vocab_size=32)
    torch.manual_seed(0)
    model = transformers.FlavaImageCodebook(config).eval()
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.1 * torch.randn_like(value))
    folder = tmp_path_factory.mktemp("flava")
    model.save_pretrained(folder / "there")
    return model, folder


def test_flavas_codebook_is_the_encoder(flava):
    """The net maps pixels itself: FLAVA's take them in [0.1, 0.9]."""
    model, folder = flava
    net, params = import_flava(folder / "there", image_size=32)
    assert net == DalleVae(image_size=32, channels=16, codes=32)
    x = jax.random.uniform(jax.random.key(0), (2, 32, 16, 3), minval=-1)
    logits = jax.jit(lambda p: net.apply({"params": p}, x, method="encode"))(params)
    with torch.no_grad():
        pixels = 0.8 * (channels_first(x) + 1) / 2 + 0.1
        compare(logits, model(pixels))
        np.testing.assert_array_equal(logits.argmax(-1), model.get_codebook_indices(pixels).numpy())


def test_flavas_files_come_back(flava):
    model, folder = flava
    net, params = import_flava(folder / "there")
    export_flava(net, params, folder / "back")
    there, back = (store.read_file(folder / way / f"{STEM}.safetensors") for way in ("there", "back"))
    assert there.keys() == back.keys()
    assert all(there[name].tobytes() == back[name].tobytes() for name in there)
    written = json.loads((folder / "back" / "config.json").read_text())
    read = json.loads((folder / "there" / "config.json").read_text())
    assert written.items() <= read.items()
    again, information = transformers.FlavaImageCodebook.from_pretrained(folder / "back", output_loading_info=True)
    assert not any(information.values())
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


def test_published_sizes():
    config = transformers.FlavaImageCodebookConfig()
    with torch.device("meta"):
        model = transformers.FlavaImageCodebook(config)
        decoder = Part((8192, 128, 1), (2048, 1024, 512, 256), 2, (1, 3, 3, 3), torch.nn.Upsample(scale_factor=2), 6)
    shapes = abstract_params(DalleVae())
    for part, theirs, count in (("encoder", model, 53_786_240), ("decoder", decoder, 43_829_766)):
        leaves = jax.tree.leaves(shapes[part])
        assert sum(np.prod(leaf.shape) for leaf in leaves) == count == sum(v.numel() for v in theirs.parameters())
        assert len(leaves) == len(list(theirs.parameters()))


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Tiny modules as OpenAI's, pickled whole in torch's legacy format under the names of its package."""
    torch.manual_seed(0)
    up, widths = torch.nn.Upsample(scale_factor=2), (16, 32)
    encoder = Part((3, 16, 7), widths, 2, (3, 3, 3, 1), torch.nn.MaxPool2d(2), 12)
    decoder = Part((12, 8, 1), widths[::-1], 2, (1, 3, 3, 3), up, 6)
    folder = tmp_path_factory.mktemp("published")
    package = types.ModuleType("dall_e.modules")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "dall_e", types.ModuleType("dall_e"))
        patch.setitem(sys.modules, "dall_e.modules", package)
        for kind in (Conv2d, Block, Part):
            setattr(package, kind.__name__, kind)
            patch.setattr(kind, "__module__", "dall_e.modules")
        for part, module in (("encoder", encoder), ("decoder", decoder)):
            torch.save(module, folder / f"{part}.pkl", _use_new_zipfile_serialization=False)
    return encoder, decoder, folder


def run_script(*arguments):
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_openais_pickles_are_converted_and_read(published):
    encoder, decoder, folder = published
    done = run_script(folder / "encoder.pkl", folder / "decoder.pkl", folder / "there")
    assert done.returncode == 0, done.stderr
    net, params = import_openai(folder / "there", image_size=16)
    assert net == DalleVae(image_size=16, channels=16, multipliers=(1, 2), depth=2, codes=12, bottleneck=8)
    x = jax.random.uniform(jax.random.key(0), (2, 16, 16, 3), minval=-1)
    z = jax.nn.one_hot(jax.random.randint(jax.random.key(1), (2, 8, 8), 0, 12), 12)

    @jax.jit
    def both(params):
        return [net.apply({"params": params}, given, method=way) for given, way in ((x, "encode"), (z, "decode"))]

    logits, pictures = both(params)
    with torch.no_grad():
        compare(logits, encoder(0.8 * (channels_first(x) + 1) / 2 + 0.1))
        compare(pictures, decoder(channels_first(z)))
    assert pictures.shape == (2, 16, 16, 6)
    assert pictures.dtype == jnp.float32

    export_openai(net, params, folder / "back")
    for part, module in (("encoder", encoder), ("decoder", decoder)):
        tensors = store.read_file(folder / "back" / f"{part}.safetensors")
        module.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()})
        there = folder / "there" / f"{part}.safetensors"
        assert (folder / "back" / f"{part}.safetensors").read_bytes() == there.read_bytes()


class Attack:
    """What a pickle can do."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_pickles_that_name_anything_else_are_refused(tmp_path):
    torch.save(Attack(tmp_path / "made"), tmp_path / "bad.pkl", _use_new_zipfile_serialization=False)
    torch.save(torch.nn.Linear(2, 2), tmp_path / "other.pkl")
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps([1, 2]))
    for name, message in (("bad", "it names "), ("other", "is no part of OpenAI's dVAE"), ("plain", "is not read")):
        done = run_script(tmp_path / f"{name}.pkl", tmp_path / f"{name}.pkl", tmp_path / "out")
        assert done.returncode == 2
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "made").exists()
    assert not list((tmp_path / "out").iterdir())
