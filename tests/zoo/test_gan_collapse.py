"""A game that loses modes says so in its log."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from flaxgen import parallel, verbs
from flaxgen.data.toys import CLUSTER_STD
from flaxgen.zoo.gan import Regularizers

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "gan_8gaussians.py"
ANGLES = np.arange(8) * np.pi / 4
CENTRES = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)
SAMPLES = 4000


def play(r1, workdir):
    """Wasserstein's game with momentum and a discriminator ten times as fast: how many of the eight modes have 1% of
    the samples, or more, within three deviations, and the last ten `diversity` and `spread` of the log."""
    config = verbs.read_experiment(EXPERIMENT)
    slow, fast = (
        dataclasses.replace(config.generator_optimizer, beta1=0.5, learning_rate=rate) for rate in (1e-3, 1e-2)
    )
    config = dataclasses.replace(
        config,
        steps=600,
        log_every=20,
        preview_every=0,
        loss="wasserstein",
        generator_optimizer=slow,
        discriminator_optimizer=fast,
        regularizers=Regularizers(r1=r1),
    )
    state = verbs.train(config, workdir, parallel.make_plan("jit"))
    z = jax.random.normal(jax.random.key(1), (SAMPLES, config.generator.latent_dim))
    points = np.asarray(jax.jit(config.generator.apply)(state.generator.variables, z))
    distances = np.linalg.norm(points[:, None] - CENTRES[None], axis=-1)
    covered = ((distances < 3 * CLUSTER_STD).mean(0) >= 0.01).sum()
    log = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return int(covered), *(np.mean([line[name] for line in log[-10:]]) for name in ("diversity", "spread"))


@pytest.mark.slow  # two runs of 600 steps
def test_lost_modes_are_seen_in_the_log(tmp_path):
    """Without a penalty the discriminator is no Lipschitz function and the generator runs after it; R1 keeps both."""
    lost, diversity_of_lost, _ = play(0.0, tmp_path / "none")
    kept, diversity_of_kept, _ = play(1.0, tmp_path / "r1")
    assert kept == 8
    assert lost <= 5
    assert diversity_of_kept > 0.55
    assert diversity_of_lost < diversity_of_kept / 2
