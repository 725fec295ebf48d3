"""The FID Inception beside torch-fidelity's own extractor, with random weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torchvision_stub

from flaxgen.nets.inception import FEATURES, Inception
from flaxgen.parallel import make_plan
from flaxgen.weights import store
from flaxgen.weights.inception import abstract_params, export_inception, import_inception

torch = pytest.importorskip("torch")
with torchvision_stub.installed():
    extractor = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
]


def random_params():
    """He-normal kernels and no statistic where it would start, so that no wrong rule can pass unseen."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        name = path[-1].key
        if name == "kernel":
            std = np.sqrt((2 if len(leaf.shape) == 4 else 1) / np.prod(leaf.shape[:-1]))
            return rng.normal(0, std, leaf.shape).astype(np.float32)
        low, high = (0.5, 1.5) if name in ("scale", "variance") else (-0.2, 0.2)
        return rng.uniform(low, high, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, abstract_params())


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    """Both extractors, `images -> {name: features}`, of the same weights; torch-fidelity's loads ours strictly."""
    folder, params = tmp_path_factory.mktemp("weights"), random_params()
    export_inception(params, folder / "ours.safetensors")
    tensors = store.read_file(folder / "ours.safetensors")
    torch.save({name: torch.from_numpy(value) for name, value in tensors.items()}, folder / "theirs.pth")
    net = extractor.FeatureExtractorInceptionV3("inception", list(FEATURES), str(folder / "theirs.pth"))
    imported = import_inception(folder / "theirs.pth")
    jax.tree.map(np.testing.assert_array_equal, imported, params)
    compiled = make_plan("jit").compile_map(lambda params, images: Inception().apply({"params": params}, images))

    def theirs(images):
        with torch.no_grad():
            found = net(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
        return {name: value.numpy() for name, value in zip(FEATURES, found, strict=True)}

    return lambda images: jax.tree.map(np.asarray, compiled(imported, jnp.asarray(images))), theirs


def pictures(rng, number, height, width):
    """Noise on coarse patches of colour."""
    coarse = rng.integers(0, 256, (number, 4, 4, 3))
    rows, columns = (np.arange(n) * 4 // n for n in (height, width))
    return np.clip(coarse[:, rows][:, :, columns] + rng.normal(0, 20, (number, height, width, 3)), 0, 255).astype(
        np.uint8
    )


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 64), (299, 299), (375, 500), (500, 375)])
def test_features_are_those_of_torch_fidelity(sides, height, width):
    images = pictures(np.random.default_rng(height), 2, height, width)
    ours, theirs = (side(images) for side in sides)
    for name, expected in theirs.items():
        assert 0.1 < np.abs(expected).max() < 100, "a net that is dead or explodes shows nothing"
        assert np.abs(expected[0] - expected[1]).max() > 0.01
        assert np.abs(ours[name] - expected).max() <= 1e-3, name


def frechet(one, two):
    """|mean difference|^2 + tr(S1 + S2 - 2 (S1 S2)^1/2), the last from the singular values of the centred features.

    With S = A^T A the eigenvalues of (S1 S2)^1/2 are the singular values of A1 A2^T: exact, and as small as the sets.
    """
    centred = [(x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (one, two)]
    cross = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum()
    means = np.square(one.mean(0) - two.mean(0)).sum()
    return means + sum(np.square(a).sum() for a in centred) - 2 * cross


def test_fid_of_two_small_sets(sides):
    """Patches of colour and the same at half the contrast, on both sides' features."""
    images = pictures(np.random.default_rng(0), 24, 32, 32)
    sets = images[:12], images[12:] // 2 + 64
    ours, theirs = ([np.asarray(side(images)["2048"], np.float64) for images in sets] for side in sides)
    expected = frechet(*theirs)
    assert expected > 1
    assert frechet(*ours) == pytest.approx(expected, rel=1e-3)


def test_frechet_is_the_formula():
    """Against the square root of a matrix, where there are more pictures than features."""
    linalg = pytest.importorskip("scipy.linalg")
    one, two = np.random.default_rng(0).standard_normal((2, 50, 4)) * np.arange(1, 5) + [[[0.0]], [[0.3]]]
    s1, s2 = np.cov(one, rowvar=False), np.cov(two, rowvar=False)
    root = linalg.sqrtm(s1 @ s2).real
    expected = np.square(one.mean(0) - two.mean(0)).sum() + np.trace(s1 + s2 - 2 * root)
    assert frechet(one, two) == pytest.approx(expected, rel=1e-6)
