"""Folders of diffusers' DiTPipeline: imported, run beside it on the same noise, and exported again."""

import json
import shutil

import numpy as np
import pytest
from test_stable_diffusion import close, noise_of

import flaxgen
from flaxgen.cli import main
from flaxgen.family.drawing import choose_labels
from flaxgen.weights import store

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
stable = pytest.importorskip("stable_folder")

SEED, STEPS, CLASSES = 7, 5, 1000
NAMES = {str(i): f"thing {i}, number {i}" for i in range(CLASSES)}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Their pipeline, ours of its folder, and where that is; diffusers knows 1000 classes alone."""
    place = tmp_path_factory.mktemp("dit")
    torch.manual_seed(0)
    net = diffusers.DiTTransformer2DModel(
        num_attention_heads=4,
        attention_head_dim=8,
        num_layers=2,
        sample_size=stable.SIDE,
        num_embeds_ada_norm=CLASSES,
        out_channels=8,
    )
    places = net.pos_embed.pos_embed.clone()
    stable.shake(net)
    with torch.no_grad():
        net.pos_embed.pos_embed.copy_(places)
        for block in net.transformer_blocks[1:]:
            block.norm1.emb.load_state_dict(net.transformer_blocks[0].norm1.emb.state_dict())
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    theirs = diffusers.DiTPipeline(net, stable.vae(), scheduler, id2label=NAMES)
    theirs.save_pretrained(place / "folder")
    index = json.loads((place / "folder" / "model_index.json").read_text())
    (place / "folder" / "model_index.json").write_text(json.dumps({**index, "id2label": NAMES}))
    assert main(["import", str(place / "folder"), str(place / "model")]) == 0
    theirs.set_progress_bar_config(disable=True)
    return theirs, flaxgen.load(place / "model"), place


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_classes_are_drawn_the_same(both, guidance, monkeypatch):
    theirs, ours, _ = both
    module = __import__("diffusers.pipelines.dit.pipeline_dit", fromlist=["randn_tensor"])
    monkeypatch.setattr(module, "randn_tensor", lambda shape, **_: noise_of(shape[0]))
    labels = np.asarray(choose_labels(CLASSES, 207, range(2))["label"])
    given = {"guidance_scale": guidance, "num_inference_steps": STEPS, "output_type": "np"}
    wanted = theirs(list(map(int, labels)), **given).images
    close(ours.sample(label=207, num=2, seed=SEED, steps=STEPS, guidance=guidance).images, wanted)


def test_what_is_exported_is_what_was_imported(both, tmp_path):
    place = both[2]
    assert main(["export", str(place / "model"), str(tmp_path / "back"), "--layout", "diffusers"]) == 0
    for file in (place / "folder").rglob("*.safetensors"):
        name = file.relative_to(place / "folder")
        assert file.read_bytes() == (tmp_path / "back" / name).read_bytes(), name
    index = json.loads((tmp_path / "back" / "model_index.json").read_text())
    assert index["id2label"] == NAMES
    again = diffusers.DiTPipeline.from_pretrained(tmp_path / "back")
    assert type(again.scheduler) is diffusers.DDIMScheduler
    assert again.scheduler.config.beta_end == 0.02


def test_a_folder_as_it_was_before_the_class_had_a_name(both, tmp_path):
    """Published folders say Transformer2DModel, with keys of other nets."""
    _, ours, place = both
    shutil.copytree(place / "folder", tmp_path / "old")
    file = tmp_path / "old" / "transformer" / "config.json"
    config = {**store.read_json(file), "_class_name": "Transformer2DModel", "cross_attention_dim": None}
    config |= {"num_vector_embeds": None, "only_cross_attention": False, "use_linear_projection": False}
    file.write_text(json.dumps(config))
    assert main(["import", str(tmp_path / "old"), str(tmp_path / "model")]) == 0
    assert flaxgen.load(tmp_path / "model").parts["denoiser"].config.net == ours.parts["denoiser"].config.net
    file.write_text(json.dumps({**config, "cross_attention_dim": 12}))
    assert main(["import", str(tmp_path / "old"), str(tmp_path / "other")]) == 2


def test_unknown_classes(both, tmp_path, capsys):
    place = both[2]
    assert main(["sample", str(place / "model"), "--class", "1000", "--out", str(tmp_path / "a.png")]) == 2
    assert "label=1000: expected a class from 0 to 999" in capsys.readouterr().err
