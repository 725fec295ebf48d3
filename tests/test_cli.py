"""The command line as a user meets it: what works works in one command, what is wrong is one line and exit code 2."""

import io
import shutil

import jax
import numpy as np
import pytest
from PIL import Image
from saving import write_model

from flaxgen import parallel, verbs
from flaxgen.cli import main
from flaxgen.data import Data
from flaxgen.family.pictures import read_about
from flaxgen.nets.classifier import NoisyClassifier
from flaxgen.train import loop
from flaxgen.zoo import classifier

EXPERIMENT = """
from flaxgen.data import Data
from flaxgen.nets.unet import UNet
from flaxgen.zoo.diffusion import Config
from flaxgen.family.denoising import Objective
from flaxgen.family.process import Process
from flaxgen.family.sampling import Sampling

def get_config():
    return Config(
        seed=0, steps=2, batch_size=4, log_every=1, preview_every=2, checkpoint_every=1,
        data=Data(source="folder", path="{path}", image_size=8, threads=0),
        net=UNet(image_size=8, channels=8, multipliers=(1,), depth=1, attention=(), norm_groups=4,
                 middle="none", num_classes=3),
        process=Process(schedule="cosine", timesteps=8),
        objective=Objective(condition_dropout=0.1),
        sampling=Sampling(steps=2, batch=4),
    )
"""

POINTS = """
from flaxgen.data import Data
from flaxgen.nets.mlp import MLP
from flaxgen.zoo.diffusion import Config

def get_config():
    return Config(
        seed=0, steps=40, batch_size=4, log_every=1, preview_every=0, data=Data("moons"), net=MLP(2, width=8, depth=1)
    )
"""


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """An experiment on a folder of two classes."""
    folder = tmp_path_factory.mktemp("data")
    for i in range(8):
        (folder / f"class{i % 2}").mkdir(exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"class{i % 2}" / f"{i}.png")
    path = folder.parent / "tiny.py"
    path.write_text(EXPERIMENT.replace("{path}", str(folder)))
    return path


@pytest.fixture(scope="module")
def run(experiment, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "tiny"
    assert main(["train", str(experiment), "--workdir", str(workdir)]) == 0
    return workdir


def test_a_run_whose_data_changed_is_one_line_with_the_way_out(experiment, run, tmp_path, capsys, monkeypatch):
    workdir, changed = tmp_path / "run", tmp_path / "data" / "class0" / "new.png"
    shutil.copytree(run, workdir)
    shutil.copytree(verbs.read_experiment(experiment).data.path, tmp_path / "data")
    command = [
        "train",
        str(experiment),
        "--workdir",
        str(workdir),
        "--steps",
        "3",
        "--set",
        f"data.path={tmp_path}/data",
    ]
    Image.new("RGB", (8, 8)).save(changed)
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "trained on other data up to step 2: 8 examples then and 9 now" in error
    assert error.count("\n") == 1
    asked = []
    monkeypatch.setattr(loop, "run", lambda *given: asked.append(given[-1]))
    assert main(command) == main([*command, "--accept-new-data"]) == 0
    assert [extras.accept_new_data for extras in asked] == [False, True]
    assert asked[0].data["count"] == 9


@pytest.mark.smoke
def test_sample_writes_a_grid_that_knows_how_it_was_made(run, tmp_path, capsys):
    out = tmp_path / "grid.png"
    assert main(["sample", str(run), "--num", "3", "--class", "1", "--guidance", "2.0", "--out", str(out)]) == 0
    assert f"wrote {out}" in capsys.readouterr().out
    request = read_about(out)["request"]
    assert (request["seed"], request["label"], request["guidance"]) == (0, 1, 2.0)
    with Image.open(out) as image:
        assert image.size[0] > 2 * 64


def test_sample_says_what_it_compiles_for_once(run, tmp_path, capsys):
    arguments = ["sample", str(run), "--num", "2", "--steps", "3", "--out", str(tmp_path / "a.npz")]
    assert main(arguments) == 0
    assert "compiling ddim, 3 steps" in capsys.readouterr().err
    assert main([*arguments, "--seed", "1"]) == 0
    assert "compiling" not in capsys.readouterr().err
    assert np.load(tmp_path / "a.npz")["samples"].shape == (2, 8, 8, 3)


@pytest.mark.smoke
def test_export_then_info(run, tmp_path, capsys):
    assert main(["export", str(run), str(tmp_path / "model")]) == 0
    assert main(["info", str(tmp_path / "model")]) == 0
    assert "net.channels = 8" in capsys.readouterr().out


def test_beside_data(run, tmp_path):
    plain, beside = tmp_path / "plain.png", tmp_path / "beside.png"
    main(["sample", str(run), "--num", "2", "--out", str(plain)])
    main(["sample", str(run), "--num", "2", "--out", str(beside), "--beside-data"])
    with Image.open(plain) as narrow, Image.open(beside) as wide:
        assert wide.size[0] > 2 * narrow.size[0]


TRAIN = ["train", "{experiment}", "--workdir", "{tmp}/new"]
SAMPLE = ["sample", "{run}", "--out", "{tmp}/out.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*TRAIN, "--set", "net.chanels=3"], "net.chanels is not a field of UNet: the nearest is net.channels"),
        ([*TRAIN, "--set", "steps=abc"], "steps=abc: expected an integer"),
        ([*TRAIN, "--steps", "0"], "steps=0 is out of range"),
        ([*TRAIN, "--set", "process.schedule=cosin"], "'cosin' is not known: expected one of linear"),
        ([*TRAIN, "--set", "net.multipliers=1,2,2,2,2"], "image size 8x8 cannot be divided"),
        ([*TRAIN, "--set", "data.path="], "data.path is not set"),
        ([*TRAIN, "--set", "data.path=/nowhere"], "/nowhere does not exist"),
        ([*TRAIN, "--set", "data.path={tmp}"], "{tmp}"),
        ([*TRAIN, "--set", "net.image_size=16"], "the data has images of shape (8, 8, 3), the net is for (16, 16, 3)"),
        ([*TRAIN, "--set", "batch_size=6", "--parallel", "pmap"], "batch_size=6 is not divisible by the 8 devices"),
        ([*TRAIN, "--parallel", "mesh", "--mesh", "data=0"], "data=0: expected 1 or more"),
        ([*TRAIN, "--mesh", "data=2"], "needs --parallel mesh"),
        ([*TRAIN, "--parallel", "mesh", "--mesh", "data=3,fsdp=4"], "needs 12 devices, found 8"),
        ([*TRAIN, "--num-processes", "2"], "go together"),
        (["train", "{experiment}", "--workdir", "{run}", "--set", "net.channels=16"], "holds another experiment"),
        (["train", "missing.py", "--workdir", "{tmp}/new"], "experiment missing.py does not exist"),
        ([*SAMPLE, "--sampler", "dimm"], "sampler='dimm' is not known: expected one of ddpm, ddim"),
        ([*SAMPLE, "--steps", "0"], "--steps 0: expected 1 or more"),
        ([*SAMPLE, "--steps", "9"], "steps=9 is more than the schedule's 8 timesteps"),
        ([*SAMPLE, "--class", "2"], "label=2: expected a class from 0 to 1"),
        ([*SAMPLE, "--num", "0"], "--num 0: expected 1 or more"),
        (["sample", "{run}", "--out", "{tmp}/out.bmp"], "--out {tmp}/out.bmp: expected a name that ends in .png, "),
        ([*SAMPLE, "--classifier-scale", "2"], "--classifier-scale 2.0 needs --classifier"),
        (
            [*SAMPLE, "--classifier", "{run}"],
            "is of type Diffusion: expected a run or model directory of type Classifier",
        ),
        ([*SAMPLE, "--data", "{tmp}"], "give both or none"),
        (
            [*SAMPLE, "--beside-data", "--data", "{tmp}/no"],
            "data.path {tmp}/no does not exist: give another with --data",
        ),
        (["sample", "{run}", "--beside-data", "--out", "{tmp}/a.npz"], "expected --out to end in .png"),
        (["sample", "{run}", "--out", "{experiment}/a.png"], "{experiment}"),
        (["sample", "{tmp}"], "is no run or model directory"),
        (["export", "{run}", "{run}"], "not empty"),
        (["import", "{tmp}", "{tmp}/model"], "config.json"),
        (["info", "{tmp}/nothing"], "is no run or model directory"),
        (["models", "{tmp}/nothing"], "{tmp}/nothing is no folder of runs and models"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, message, experiment, run, tmp_path, capsys):
    places = {"{experiment}": str(experiment), "{run}": str(run), "{tmp}": str(tmp_path)}

    def fill(text):
        for name, value in places.items():
            text = text.replace(name, value)
        return text

    assert main([fill(argument) for argument in arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"flaxgen {arguments[0]}: error: ")
    assert fill(message) in lines[0]
    assert not (tmp_path / "new").exists()


def test_some_broken_images_are_skipped_and_counted_many_stop(experiment, tmp_path, capsys):
    good = io.BytesIO()
    Image.new("RGB", (8, 8)).save(good, "PNG")
    for share, name in ((5, "few"), (60, "many")):
        folder = tmp_path / name / "a"
        folder.mkdir(parents=True)
        for i in range(100):
            (folder / f"{i:03d}.png").write_bytes(good.getvalue() if i % 100 >= share else b"broken")
    train = ["train", str(experiment), "--set", "steps=30", "preview_every=0", "checkpoint_every=30"]
    few, many = ([f"data.path={tmp_path / n}", "--workdir", str(tmp_path / f"run-{n}")] for n in ("few", "many"))
    assert main([*train, *few]) == 0
    assert '"skipped_images": 5' in (tmp_path / "run-few" / "metrics.jsonl").read_text().splitlines()[-1]
    capsys.readouterr()
    assert main([*train, *many]) == 2
    assert "000.png" in capsys.readouterr().err


@pytest.fixture
def failing(monkeypatch):
    """`train` fails with the error that is put into the list."""

    def make(error):
        def fail(*arguments, **options):
            raise error

        monkeypatch.setattr(verbs, "train", fail)

    return make


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (KeyboardInterrupt(), 130, "flaxgen train: interrupted"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory\nmore"), 1, "flaxgen train: error: out of memory"),
    ],
)
def test_an_interrupt_and_a_full_memory_are_one_line(error, code, line, failing, experiment, tmp_path, capsys):
    failing(error)
    assert main(["train", str(experiment), "--workdir", str(tmp_path / "run")]) == code
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(line)


def test_a_bug_ends_one_of_several_at_once_and_is_shown(failing, experiment, tmp_path, monkeypatch, capsys):
    failing(TypeError("a bug"))
    left = []
    monkeypatch.setattr(parallel, "leave", left.append)
    train = ["train", str(experiment), "--workdir", str(tmp_path / "run")]
    with pytest.raises(TypeError, match="a bug"):
        main(train)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(parallel, "is_distributed", lambda: True)
    with pytest.raises(TypeError, match="a bug"):
        main(train)
    assert "TypeError: a bug" in capsys.readouterr().err
    assert left == [1, 1]


def test_data_that_moved_are_shown_beside(run, experiment, tmp_path):
    (tmp_path / "moved").symlink_to(experiment.parent / "data0")
    out = tmp_path / "deep" / "beside.png"
    moved = ["--beside-data", "--data", str(tmp_path / "moved"), "--out", str(out)]
    assert main(["sample", str(run), "--num", "2", *moved]) == 0
    assert out.is_file()


def test_a_classifier_draws_nothing(tmp_path, capsys):
    small = {"channels": 8, "multipliers": (1,), "depth": 1, "head_channels": 8, "norm_groups": 4}
    net = NoisyClassifier(num_classes=2, image_size=8, attention_resolutions=(), **small)
    config = classifier.Config(seed=0, steps=1, batch_size=4, data=Data(source="folder"), net=net)
    params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), verbs.family_of(config).abstract_params(config))
    write_model(tmp_path / "model", config, params, 1)
    assert main(["sample", str(tmp_path / "model"), "--out", str(tmp_path / "a.png")]) == 2
    assert "is a classifier: it draws nothing" in capsys.readouterr().err


def test_a_nan_loss_stops_with_exit_code_1(tmp_path, capsys):
    (tmp_path / "points.py").write_text(POINTS)
    poison = ["--set", "optimizer.learning_rate=1e30", "optimizer.clip=0"]
    assert main(["train", str(tmp_path / "points.py"), "--workdir", str(tmp_path / "run"), *poison]) == 1
    assert "lower the learning rate" in capsys.readouterr().err.splitlines()[-1]
