"""Metrics of the same features against torch-fidelity, and CMMD against its formula in torch, in double precision."""

import numpy as np
import pytest
import torchvision_stub

from flaxgen.metrics import fid, inception_score, mmd, moments, prdc

torch = pytest.importorskip("torch")
with torchvision_stub.installed():
    pytest.importorskip("torch_fidelity")
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

pytestmark = pytest.mark.parity
QUIET = {"verbose": False}


def features(count: int, width: int, seed: int, shift: float = 0.0) -> np.ndarray:
    """Correlated and never negative, about as Inception's."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(99).normal(size=(width, width)) / width**0.5
    return np.maximum(rng.normal(size=(count, width)) @ mix + 0.3 + shift * mix[0], 0).astype(np.float32)


@pytest.mark.parametrize(("real", "fake", "width"), [(700, 500, 64), (60, 45, 128)])
def test_fid(real, fake, width):
    """The second: fewer pictures than features."""
    a, b = features(real, width, 0), features(fake, width, 1, shift=1.0)
    statistics = (fid_features_to_statistics(torch.tensor(x)) for x in (a, b))
    theirs = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    ours = fid.frechet_distance(*(moments.of(np.array_split(x, 5)) for x in (a, b)))
    assert ours == pytest.approx(theirs, rel=1e-4)


def test_kid_of_one_subset():
    """All pictures: nothing is left to chance."""
    a, b = features(300, 64, 0), features(300, 64, 1, shift=1.0)
    settings = {"kid_subsets": 1, "kid_subset_size": 300, **QUIET}
    theirs = kid_features_to_metric(torch.tensor(a), torch.tensor(b), **settings)["kernel_inception_distance_mean"]
    assert mmd.polynomial_mmd(a, b) == pytest.approx(theirs, rel=1e-4)


def test_kid_over_subsets():
    """To the noise of the subsets, which each draws by itself."""
    a, b = features(1000, 64, 0), features(900, 64, 1, shift=1.0)
    theirs = kid_features_to_metric(torch.tensor(a), torch.tensor(b), kid_subsets=100, kid_subset_size=100, **QUIET)
    ours = mmd.kid(a, b, seed=0, subsets=100, subset_size=100)
    noise = ours.std * np.sqrt(2 / 100)
    assert ours.mean == pytest.approx(theirs["kernel_inception_distance_mean"], abs=3 * noise)
    assert ours.std == pytest.approx(theirs["kernel_inception_distance_std"], rel=0.3)


@pytest.mark.parametrize("splits", [1, 10])
def test_inception_score(splits):
    logits = (4 * np.random.default_rng(0).normal(size=(503, 37))).astype(np.float32)
    theirs = isc_features_to_metric(torch.tensor(logits), splits=splits, shuffle=False)
    sums = inception_score.empty(splits, 37)
    ours = inception_score.inception_score(
        inception_score.add(sums, logits, inception_score.assign_splits(503, splits, None))
    )
    assert ours.mean == pytest.approx(theirs["inception_score_mean"], rel=1e-4)
    assert ours.std == pytest.approx(theirs["inception_score_std"], rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("save_cpu_ram", [False, True])
def test_precision_and_recall(save_cpu_ram):
    """Equal but for pictures on the very border of a ball: none here."""
    real, fake = features(400, 32, 0), features(350, 32, 1, shift=2.0)
    settings = {"prc_neighborhood": 3, "prc_batch_size": 100, "save_cpu_ram": save_cpu_ram, **QUIET}
    theirs = prc_features_to_metric(torch.tensor(fake), torch.tensor(real), **settings)
    ours = prdc.precision_recall(real, fake, neighbours=3)
    assert ours.precision == pytest.approx(theirs["precision"], rel=1e-4)
    assert ours.recall == pytest.approx(theirs["recall"], rel=1e-4)
    assert 0.05 < ours.precision < 1


def test_cmmd():
    a, b = features(300, 64, 0), features(200, 64, 1, shift=1.0)
    x, y = (torch.nn.functional.normalize(torch.tensor(z, dtype=torch.float64)) for z in (a, b))

    def mean(p, q):
        return torch.exp(-(torch.cdist(p, q) ** 2) / 200).mean()

    assert mmd.cmmd(a, b) == pytest.approx(float(1000 * (mean(x, x) + mean(y, y) - 2 * mean(x, y))), rel=1e-4)
