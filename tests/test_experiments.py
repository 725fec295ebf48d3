"""Every file in experiments/: its config builds, survives JSON, and its train step fits together at full size."""

import json
from pathlib import Path

import jax
import pytest

from flaxgen.train import checkpoint
from flaxgen.zoo import directory

FILES = sorted((Path(__file__).parents[1] / "experiments").rglob("*.py"))
RUN_FIELDS = ("seed", "steps", "batch_size", "log_every", "preview_every", "checkpoint_every", "keep_checkpoints")


def test_the_experiments_are_there():
    expected = {"ddpm_scurve", "ddpm_digits", "ddpm_cifar10", "ddpm_cifar10_small", "iddpm_cifar10", "edm_cifar10"}
    assert expected | {"adm_imagenet64"} <= {path.stem for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_experiment(path):
    config = directory.read_experiment(path)
    assert all(hasattr(config, field) for field in RUN_FIELDS)
    assert directory.decode(json.loads(json.dumps(directory.encode(config)))) == config
    family = directory.FAMILIES[type(config)]
    init, make_train_step = family.make_training(config)
    state = jax.eval_shape(init, jax.random.key(0))
    after, metrics = jax.eval_shape(make_train_step(None), state, family.batch_spec(config), jax.random.key(0))
    assert checkpoint.leaf_specs(after) == checkpoint.leaf_specs(state)
    assert metrics["loss"].shape == ()


def test_published_sizes():
    """[Ho20, app. B] 35.7M, diffusers' net of that shape 35,746,307; [Dhariwal21, table 4] 296M for ADM at 64 px."""

    def count(name):
        config = directory.read_experiment(FILES[0].parent / f"{name}.py")
        params = jax.eval_shape(lambda: directory.FAMILIES[type(config)].init_params(config, jax.random.key(0)))
        return sum(x.size for x in jax.tree.leaves(params))

    assert count("ddpm_cifar10") == 35_746_307
    assert count("adm_imagenet64") == pytest.approx(296e6, rel=0.005)
