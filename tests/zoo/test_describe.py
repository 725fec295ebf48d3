"""What `describe` says of runs, models, unCLIPs and experiments, and that it needs no weights to say it."""

import dataclasses

import jax
import numpy as np
import pytest
from saving import write_model

from flaxgen import verbs
from flaxgen.data import Data
from flaxgen.family import directory
from flaxgen.family.describe import LARGEST, MeshShape
from flaxgen.family.process import Process
from flaxgen.nets.mlp import MLP
from flaxgen.nets.unet import UNet
from flaxgen.zoo import unclip, upsampler
from flaxgen.zoo.diffusion import Config
from flaxgen.zoo.unclip.drawing import UPSAMPLERS

CONFIG = Config(
    seed=0, steps=4, batch_size=8, data=Data(source="moons"), net=MLP(features=2, width=64, depth=2),
    process=Process(schedule="cosine", timesteps=8),
)  # fmt: skip
UPSAMPLER = upsampler.Config(
    seed=0, steps=4, batch_size=8, data=Data(source="scenes", image_size=16),
    net=UNet(image_size=16, channels=8, multipliers=(1,), depth=1, attention=(), norm_groups=4,
             low_res=True),
    factor=2, tile=16, overlap=0,
)  # fmt: skip
EXPERIMENT = """
from flaxgen.data import Data
from flaxgen.nets.mlp import MLP
from flaxgen.zoo.diffusion import Config
{constant}
def get_config():
    return Config(seed=0, steps=4000, batch_size=8, data=Data(source="moons"), net=MLP(features=2, width=64, depth=2))
"""


def init(config):
    """Parameters without their numbers, which nothing here depends on."""
    return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), verbs.family_of(config).abstract_params(config))


@pytest.fixture(scope="module")
def params():
    return init(CONFIG)


@pytest.fixture(scope="module")
def model(params, tmp_path_factory):
    """A model directory, whose weights are then lost."""
    path = tmp_path_factory.mktemp("models") / "moons"
    write_model(path, CONFIG, params, 4)
    (path / "model.safetensors").write_bytes(b"lost")
    return path


def experiment(folder, constant=""):
    path = folder / "moons.py"
    path.write_text(EXPERIMENT.replace("{constant}", constant))
    return path


def total(params):
    return sum(x.size for x in jax.tree.leaves(params))


def test_parameters_are_counted_and_the_config_is_shown(model, params):
    lines = verbs.describe(model).splitlines()
    assert lines[0] == f"{model}: diffusion with a MLP, at step 4 of 4"
    assert any(line.startswith(f"parameters  {total(params):,} (") for line in lines)
    largest = max(params, key=lambda name: total(params[name]))
    assert lines[lines.index("config") - LARGEST] == f"  {total(params[largest]):>13,}  {largest}"
    assert "  net.width = 64" in lines
    assert not any(line.startswith(("published", "per device")) for line in lines)


def test_how_far_a_run_is(tmp_path, params):
    directory.claim(tmp_path, verbs.family_of(CONFIG), CONFIG, {})
    assert "nothing saved yet" in verbs.describe(tmp_path)
    (tmp_path / "checkpoints" / "3").mkdir(parents=True)
    assert "at step 3 of 4" in verbs.describe(tmp_path)
    write_model(tmp_path / "model", CONFIG, params, 0)
    assert "with a MLP, imported\n" in verbs.describe(tmp_path / "model")


def test_an_experiment_beside_what_is_published_of_it(tmp_path, params):
    plain = verbs.describe(experiment(tmp_path))
    assert "diffusion with a MLP, for 4,000 steps" in plain
    assert f"parameters  {total(params):,}" in plain
    assert "published" not in plain
    beside = verbs.describe(experiment(tmp_path, f"PUBLISHED = {total(params) * 2}"))
    assert f"published   {total(params) * 2:,} (here -50.0%)" in beside


@pytest.mark.parametrize("value", ["'1B'", "0", "-3", "3.5e9"])
def test_what_is_published_has_to_be_a_count(tmp_path, value):
    with pytest.raises(ValueError, match=r"PUBLISHED=.*, expected a count of parameters"):
        verbs.describe(experiment(tmp_path, f"PUBLISHED = {value}"))


def test_a_mesh_of_one_device_holds_the_whole_state(model, params):
    """Parameters, their average and both moments of Adam, in float32."""
    lines = verbs.describe(model, MeshShape(data=1, fsdp=1)).splitlines()
    size = 4 * total(params)
    for name, bytes_held in (("params", size), ("ema_params", size), ("opt_state", 2 * size + 8)):
        assert f"  {bytes_held / 2**10:>9,.1f} KiB  {name}" in lines
    assert "  data=1, fsdp=1: 1 devices, a batch of 8, 8 on each" in lines


def test_a_larger_fsdp_holds_less_and_a_larger_data_as_much(model):
    def per_device(mesh):
        return next(line for line in verbs.describe(model, mesh).splitlines() if line.startswith("per device"))

    assert per_device(MeshShape(data=1024, fsdp=1)) == per_device(MeshShape(data=1, fsdp=1))
    assert per_device(MeshShape(data=1, fsdp=32)) != per_device(MeshShape(data=1, fsdp=1))
    assert "a batch of 8, which they do not divide" in verbs.describe(model, MeshShape(data=3, fsdp=1))


@pytest.mark.parametrize("mesh", [MeshShape(0, 1), MeshShape(1, 0)])
def test_a_mesh_without_devices(model, mesh):
    with pytest.raises(ValueError, match="expected 1 or more of both"):
        verbs.describe(model, mesh)


@pytest.fixture
def composite(tmp_path):
    """Two upsamplers, one of them with a net for its last step; no other stage."""
    for name, config in zip(UPSAMPLERS, (UPSAMPLER, dataclasses.replace(UPSAMPLER, last_step=True)), strict=True):
        write_model(tmp_path / name, config, init(config), 3)
        (tmp_path / name / "model.safetensors").write_bytes(b"lost")
    unclip.FAMILY.write_index(tmp_path, UPSAMPLERS)
    return tmp_path


def test_a_composite_lists_its_stages_and_what_is_not_there(composite):
    lines, size = verbs.describe(composite).splitlines(), total(init(UPSAMPLER))
    assert lines[0].startswith(f"{composite}: unclip, ")
    assert f"  {size:>13,}  upsampler_1: UNet, step 3" in lines
    assert f"  {2 * size:>13,}  upsampler_2: UNet, step 3" in lines
    gone = [line.split()[1] for line in lines if line.endswith("(missing)")]
    assert gone == [name for name in unclip.FAMILY.parts if name not in UPSAMPLERS]


def test_a_composite_on_a_mesh_leaves_out_what_is_only_imported(composite):
    lines = verbs.describe(composite, MeshShape(data=1, fsdp=2)).splitlines()
    first, second = (next(line for line in lines if name in line) for name in UPSAMPLERS)
    assert first.endswith(" of training state per device")
    assert "per device" not in second
    assert "per device  is not trained here" in verbs.describe(composite / "upsampler_2", MeshShape())
