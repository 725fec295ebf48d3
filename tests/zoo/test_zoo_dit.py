"""A diffusion model whose net is a DiT of pixels: it learns, draws, and is refused where it cannot."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from flaxgen import parallel
from flaxgen.data import Data, Order, batch_at
from flaxgen.family.denoising import Objective
from flaxgen.family.process import Process
from flaxgen.family.sampling import Sampling
from flaxgen.interchange.diffusers import export_diffusers
from flaxgen.nets.dit import DiT
from flaxgen.train.optim import Optimizer
from flaxgen.zoo.diffusion import FAMILY, Config

CONFIG = Config(
    seed=0,
    steps=40,
    batch_size=32,
    data=Data(source="digits", image_size=8, channels=1),
    net=DiT(image_size=8, in_channels=1, out_channels=1, patch=4, width=16, depth=1, heads=2, num_classes=11),
    process=Process(schedule="cosine", timesteps=8, prediction="v"),
    objective=Objective(condition_dropout=0.1),
    optimizer=Optimizer(learning_rate=1e-2),
    sampling=Sampling(steps=2, batch=4),
)


@pytest.fixture(scope="module")
def trained():
    """The model, and its losses on the way."""
    experiment, plan = FAMILY.build(CONFIG, {}), parallel.make_plan("jit")
    step, losses = plan.compile_step(experiment.make_train_step), []
    state = plan.place_state(experiment.init(jax.random.key(0)))
    for i in range(CONFIG.steps):
        batch = batch_at(experiment.source, Order(0, 32, 0, 1), i, fields=experiment.batch_fields)
        state, metrics = step(state, plan.place_batch(batch), jax.random.key(1))
        losses.append(float(metrics["loss"]))
    return FAMILY.trained(CONFIG, plan.single(state).params, CONFIG.steps, plan), losses


def test_the_net_may_be_a_dit(trained):
    model, losses = trained
    assert np.mean(losses[-8:]) < 0.8 * np.mean(losses[:8])
    sampling = dataclasses.replace(CONFIG.sampling, guidance=3.0)
    plain, other = (model.generate(jax.random.key(0), num=4, label=label, sampling=sampling) for label in (1, 2))
    assert plain.shape == (4, 8, 8, 1)
    assert np.abs(plain - other).max() > 1e-3
    assert FAMILY.decode(json.loads(json.dumps(FAMILY.encode(model.config)))) == model.config


def test_a_dit_of_pixels_has_no_pipeline_in_diffusers(trained, tmp_path):
    with pytest.raises(ValueError, match="no pipeline of diffusers draws pixels with a DiT: only with a UNet"):
        export_diffusers(trained[0], tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch": 3}, "image size 8x8 .* patch=3 need a multiple of 3"),
        ({"num_classes": 10}, "the data has 10 classes and the net knows 9"),
        ({"learned_variance": True}, "objective.loss=mse with net.learned_variance=True"),
        ({"token_dim": 4}, "token_dim=4 and needs the condition 'tokens'"),
    ],
)
def test_a_dit_that_cannot_work_is_refused_before_the_run(change, message):
    with pytest.raises(ValueError, match=message):
        FAMILY.build(dataclasses.replace(CONFIG, net=CONFIG.net.clone(**change)), {})
