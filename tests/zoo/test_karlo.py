"""Karlo's folders without torch: written by flaxgen, read back, and refused where they say what is not known here."""

import json
import re
import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest
import safetensors.numpy

from flaxgen import parallel, verbs
from flaxgen.data import Data
from flaxgen.data.tokenize import train_bpe
from flaxgen.family.companions import check_companion
from flaxgen.family.denoising import Objective
from flaxgen.family.process import Process
from flaxgen.family.sampling import Sampling
from flaxgen.interchange import karlo
from flaxgen.nets.attention import TokenAttention
from flaxgen.nets.clip import CLIP, TextTower, VisionTower
from flaxgen.nets.decoder import Decoder
from flaxgen.nets.prior import DiffusionPrior
from flaxgen.nets.unet import UNet
from flaxgen.zoo import clip, decoder, prior, upsampler
from flaxgen.zoo.prior.config import STATISTICS

CONTEXT, DIM = 8, 16
RUN = {"seed": 0, "steps": 1, "batch_size": 1, "data": Data(source="folder")}
COSINE = Process(schedule="cosine", timesteps=50)
ANCESTRAL = Sampling(sampler="ddpm", steps=25, grid="linspace", batch=8)
ATTENTION = TokenAttention(head_channels=8)
UNET = UNet(
    image_size=4, channels=8, multipliers=(1, 2), depth=1, attention=(None, ATTENTION), middle=ATTENTION, norm_groups=4,
    resample="resnet", scale_shift=True, learned_variance=True, added=True, token_dim=8, downsample_padding=(1, 1),
    time_order="cos_sin", time_shift=0, norm_eps=1e-5,
)  # fmt: skip
LARGER = UNET.clone(image_size=16, attention=(), middle="none", scale_shift=False, learned_variance=False,
                    added=False, token_dim=0, low_res=True)  # fmt: skip
CONFIGS = {
    "clip": clip.Config(
        **RUN,
        net=CLIP(None, TextTower(vocab_size=300, context=CONTEXT, width=DIM, depth=1, heads=2), embedding_dim=DIM),
        normalise=False,
    ),
    "prior": prior.Config(
        **RUN,
        net=DiffusionPrior(DIM, DIM, CONTEXT, width=16, depth=1, heads=2),
        process=replace(COSINE, prediction="x0"),
        objective=Objective(condition_dropout=0.2),
        sampling=replace(ANCESTRAL, limit=5.0, guidance=4.0),
        candidates=1,
    ),
    "decoder": decoder.Config(
        **(RUN | {"data": Data(source="folder", image_size=4)}),
        net=Decoder(UNET, embedding_dim=DIM, text_dim=DIM),
        context=CONTEXT,
        process=COSINE,
        objective=Objective(loss="hybrid"),
        text_dropout=0.3,
        sampling=replace(ANCESTRAL, guidance=8.0, variance="learned"),
    ),
    "upsampler_1": upsampler.Config(
        **(RUN | {"data": Data(source="folder", image_size=16)}),
        net=LARGER,
        degrade="none",
        process=COSINE,
        tile=16,
        overlap=0,
        last_step=True,
        sampling=replace(ANCESTRAL, steps=7),
    ),
}
MODULES = {"clip": clip, "prior": prior, "decoder": decoder, "upsampler_1": upsampler}
HERE = parallel.make_plan("jit")


def random_params(name):
    like = jax.eval_shape(lambda: MODULES[name].FAMILY.init_params(CONFIGS[name], jax.random.key(0)))
    rng = np.random.default_rng(len(name))
    return jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), like)


@pytest.fixture(scope="module")
def stages():
    """An unCLIP as Karlo's, but for sizes and the kind of its tokenizer."""
    tokenizer = train_bpe(["a red circle", "a blue square"], 300, CONTEXT)
    params = {name: random_params(name) for name in CONFIGS}
    model = clip.FAMILY.trained(
        CONFIGS["clip"], params["clip"], 0, HERE, {clip.TOKENIZER: tokenizer.to_json().encode()}
    )
    named = check_companion({}, "CLIP", model.fingerprint)
    empty = {f"empty_{k}": v for k, v in model.empty_text().items() if k != "text_ids"}
    fitted = {"mean": np.linspace(-1, 1, DIM, dtype=np.float32), "std": np.linspace(1, 2, DIM, dtype=np.float32)}
    statistics = {STATISTICS: safetensors.numpy.save(fitted | empty)}
    return {
        "clip": model,
        "prior": prior.FAMILY.trained(CONFIGS["prior"], params["prior"], 0, HERE, statistics | named),
        "decoder": decoder.FAMILY.trained(CONFIGS["decoder"], params["decoder"], 0, HERE, named),
        "upsampler_1": upsampler.FAMILY.trained(CONFIGS["upsampler_1"], params["upsampler_1"], 0, HERE),
    }


@pytest.fixture(scope="module")
def written(stages, tmp_path_factory):
    folder = tmp_path_factory.mktemp("karlo") / "folder"
    karlo.export_pipeline(stages, folder)
    return folder


@pytest.fixture
def folder(written, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(written, tmp_path / "folder")


def change(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_what_goes_out_comes_back(stages, written, tmp_path):
    verbs.import_model(str(written), tmp_path / "model")
    model = verbs.load(tmp_path / "model")
    for name in CONFIGS:
        there, back = stages[name], model.parts[name]
        assert replace(back.config, data=there.config.data) == there.config
        jax.tree.map(np.testing.assert_array_equal, back.params, there.params)
    captions = ["a red circle", "", "é🙂", "a blue " * 9]
    for ours, theirs in zip(model.parts["clip"].tokenizer(captions), stages["clip"].tokenizer(captions), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    before, after = (safetensors.numpy.load(s["prior"].files[STATISTICS]) for s in (stages, model.parts))
    assert before.keys() == after.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)
    with pytest.raises(ValueError, match="no vision tower"):
        model.vary(np.zeros((16, 16, 3), np.uint8), seed=0, num=1)
    with pytest.raises(ValueError, match="is of unclip, a model directory already"):
        verbs.export(tmp_path / "model", tmp_path / "again")


@pytest.mark.parametrize(
    ("part", "values"),
    [
        ("prior_scheduler", {"_class_name": "DDIMScheduler"}),
        ("prior_scheduler", {"prediction_type": "v_prediction"}),
        ("prior_scheduler", {"variance_type": "learned_range"}),
        ("prior_scheduler", {"clip_sample_range": 0.0}),
        ("prior_scheduler", {"clip_sample_range": "5"}),
        ("decoder_scheduler", {"beta_schedule": "linear"}),
        ("decoder_scheduler", {"variance_type": "fixed_small_log"}),
        ("decoder_scheduler", {"variance_type": "fixed_large"}),
        ("decoder_scheduler", {"num_train_timesteps": 0}),
        ("super_res_scheduler", {"clip_sample": 1}),
        ("super_res_scheduler", {"timestep_spacing": "trailing"}),
    ],
    ids=str,
)
def test_schedulers_that_are_refused(folder, tmp_path, part, values):
    """The line names the file and the key, and nothing is written."""
    change(folder / part / "scheduler_config.json", **values)
    key, value = next(iter(values.items()))
    said = f"a {value}" if key == "_class_name" else key
    with pytest.raises(ValueError, match=f"{part}.*{said}"):
        verbs.import_model(str(folder), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def without(folder, part):
    shutil.rmtree(folder / part)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda f: without(f, "text_proj"), "without the folder text_proj/"),
        (lambda f: change(f / "model_index.json", prior=["diffusers", "UNet2DModel"]), "the prior of this UnCLIPPip"),
        (lambda f: change(f / "super_res_last/config.json", freq_shift=1), "super_res_first and super_res_last"),
        (lambda f: change(f / "tokenizer/tokenizer_config.json", pad_token="?!"), "pad_token='?!'"),
        (lambda f: (f / "super_res_last/diffusion_pytorch_model.safetensors").write_bytes(b"torn"), "super_res_last"),
    ],
    ids=["part", "class", "nets", "pad", "torn"],
)
def test_folders_that_are_refused(folder, tmp_path, spoil, named):
    """The last fails behind the other stages: they do not stay."""
    spoil(folder)
    with pytest.raises(ValueError, match=re.escape(named)):
        verbs.import_model(str(folder), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def with_config(stages, name, **values):
    stage = stages[name]
    return {**stages, name: replace(stage, config=replace(stage.config, **values))}


def without_part(stages, name):
    return {other: stage for other, stage in stages.items() if other != name}


@pytest.mark.parametrize(
    ("alter", "named"),
    [
        (lambda s: with_config(s, "clip", normalise=True), "clip.normalise=True"),
        (lambda s: with_config(s, "decoder", process=replace(COSINE, schedule="linear")), "process.schedule='linear'"),
        (lambda s: with_config(s, "prior", process=replace(COSINE, prediction="v")), "process.prediction='v'"),
        (lambda s: with_config(s, "decoder", sampling=Sampling(threshold="dynamic")), "threshold=dynamic"),
        (lambda s: s | {"upsampler_2": s["upsampler_1"]}, "'upsampler_2'"),
        (lambda s: s | {"ar_prior": s["prior"]}, "'ar_prior'"),
        (lambda s: without_part(s, "clip"), "'clip'"),
        (lambda s: without_part(s, "upsampler_1"), "'upsampler_1'"),
        (lambda s: without_part(s, "prior"), "needs a prior or a CLIP with a vision tower"),
        (lambda s: without_part(s, "decoder"), "without the part 'decoder'"),
    ],
    ids=["normalise", "schedule", "prediction", "threshold", "upsampler_2", "ar_prior", "no clip", "no upsampler",
         "no prior", "no decoder"],
)  # fmt: skip
def test_models_that_are_not_exported(stages, tmp_path, alter, named):
    with pytest.raises(ValueError, match=re.escape(named)):
        karlo.export_pipeline(alter(stages), tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_an_upsampler_of_one_net_is_written_twice(stages, tmp_path):
    model = stages["upsampler_1"]
    one = replace(model, config=replace(model.config, last_step=False), params=model.params["net"])
    karlo.export_pipeline(stages | {"upsampler_1": one}, tmp_path / "folder")
    name = "diffusion_pytorch_model.safetensors"
    first, last = (tmp_path / "folder" / f"super_res_{which}" / name for which in ("first", "last"))
    assert first.read_bytes() == last.read_bytes()


def test_a_vision_tower_comes_and_goes_beside_a_text_pipeline(stages, tmp_path):
    """No part of UnCLIPPipeline, so that diffusers leaves it alone; with it every verb works."""
    net = CLIP(VisionTower(image_size=16, patch=8, width=16, depth=1, heads=2), CONFIGS["clip"].net.text, DIM,
               mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))  # fmt: skip
    config = replace(CONFIGS["clip"], net=net)
    like = jax.eval_shape(lambda: clip.init_params(config, jax.random.key(0)))
    params = jax.tree.map(lambda x: np.linspace(-1, 1, x.size, dtype=np.float32).reshape(x.shape), like)
    both = stages | {"clip": replace(stages["clip"], config=config, params=params)}
    karlo.export_pipeline(both, tmp_path / "folder")
    assert "image_encoder" not in json.loads((tmp_path / "folder" / "model_index.json").read_text())
    verbs.import_model(str(tmp_path / "folder"), tmp_path / "model")
    back = verbs.load(tmp_path / "model").parts["clip"]
    assert back.config.net == net
    for name in ("vision", "image_projection", "text", "text_projection"):
        jax.tree.map(np.testing.assert_array_equal, back.params[name], params[name])


def test_a_prior_alone(stages, written, tmp_path):
    """Its weights and statistics come; what it needs of a CLIP it asks for."""
    verbs.import_model(str(written / "prior"), tmp_path / "prior")
    model = verbs.load(tmp_path / "prior")
    jax.tree.map(np.testing.assert_array_equal, model.params, stages["prior"].params)
    text = stages["clip"].text_fields(["a red circle"])
    with pytest.raises(ValueError, match="imported alone"):
        model.draw_embeddings(text, jax.random.key(0))
