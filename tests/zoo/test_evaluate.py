"""The evaluation engine on small pictures and their pixels: the figures themselves are checked in tests/metrics."""

import dataclasses
import logging

import numpy as np
import pytest
from PIL import Image

from flaxgen import parallel
from flaxgen.data import Data, DataError
from flaxgen.family.evaluation import Evaluation
from flaxgen.measure.evaluate import evaluate
from flaxgen.measure.features import Extractor, make_extractor
from flaxgen.measure.picture_sets import of_data, of_draw
from flaxgen.metrics import fid, mmd, moments, prdc

PIXELS = make_extractor("pixels")
JIT = parallel.make_plan("jit")


def picture(number: int, brightness: int, size: int = 4) -> np.ndarray:
    rng = np.random.default_rng((number, brightness))
    return np.clip(rng.integers(0, 150, (size, size, 1)) + brightness, 0, 255).astype(np.uint8)


def drawn(brightness: int, **about):
    """Picture i follows from i alone."""
    return of_draw(
        lambda numbers: {"image": np.stack([picture(i, brightness) for i in numbers])}, {"of": brightness, **about}
    )


def without_end(pictures, count: int):
    return pictures._replace(count=count)


REAL, FAKE = without_end(drawn(40), 90), drawn(60)
ALL = Evaluation(("fid", "kid", "prec_recall", "density_coverage"), num=70, seed=0, batch=16, kid_subset_size=30,
                 kid_subsets=5, save_seconds=0.0)  # fmt: skip


@pytest.fixture(scope="module")
def expected():
    return evaluate(REAL, FAKE, PIXELS, ALL, JIT)


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-6)), key


def flat(brightness: int, count: int) -> np.ndarray:
    images = np.stack([picture(i, brightness) for i in range(count)])
    return images.reshape(count, -1).astype(np.float32) / 127.5 - 1


def test_figures_are_those_of_the_metrics(expected):
    real, fake = flat(40, 90), flat(60, 70)
    assert expected["fid"] == pytest.approx(fid.frechet_distance(moments.of([real]), moments.of([fake])), rel=1e-5)
    found = mmd.kid(real, fake, seed=0, subsets=5, subset_size=30)
    assert (expected["kid"], expected["kid_std"]) == pytest.approx(found, rel=1e-4)
    precision, recall = prdc.precision_recall(real[:70], fake)
    assert (expected["precision"], expected["recall"]) == (precision, recall)
    density, coverage = prdc.density_coverage(real[:70], fake)
    assert (expected["density"], expected["coverage"]) == (density, coverage)
    told = {"features": "pixels", "num": 70, "num_real": 90, "seed": 0, "size": "4x4x1", "size_real": "4x4x1"}
    assert {key: expected[key] for key in told} == told
    assert expected["shared"] == 0
    assert all(isinstance(value, int | float | str) for value in expected.values())


@pytest.mark.parametrize("name", ["pmap", "mesh"])
def test_eight_devices_are_one(name, expected):
    found = evaluate(REAL, FAKE, PIXELS, ALL, parallel.make_plan(name))
    assert_close(found, expected)


def test_the_batch_does_not_show(expected):
    found = evaluate(REAL, FAKE, PIXELS, dataclasses.replace(ALL, batch=40), JIT)
    assert_close(found, expected)


def test_an_interrupted_evaluation_goes_on(tmp_path, expected):
    """The second run draws what is left, and gives the same numbers."""
    asked = []

    def draw(numbers):
        asked.append(numbers)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return {"image": np.stack([picture(i, 60) for i in numbers])}

    paths = {"reference": tmp_path / "real.npz", "progress": tmp_path / "fake.npz"}
    fake = of_draw(draw, {"of": 60})
    with pytest.raises(KeyboardInterrupt):
        evaluate(REAL, fake, PIXELS, ALL, JIT, **paths)
    assert evaluate(REAL, fake, PIXELS, ALL, JIT, **paths) == expected
    assert [numbers.start for numbers in asked] == [0, 16, 32, 48, 48, 64]
    # what is whole is not drawn again, and serves for less
    assert evaluate(REAL, fake, PIXELS, ALL, JIT, **paths) == expected
    less = dataclasses.replace(ALL, metrics=("fid",))
    assert evaluate(REAL, fake, PIXELS, less, JIT, **paths)["fid"] == expected["fid"]
    assert len(asked) == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fake.npz", "real.npz"]


def test_progress_that_ends_within_a_batch_is_begun_again(tmp_path, expected):
    paths = {"progress": tmp_path / "fake.npz"}
    stopping = of_draw(lambda numbers: {} if numbers.start else FAKE_BATCH(numbers), {"of": 60})
    with pytest.raises(KeyError):
        evaluate(REAL, stopping, PIXELS, ALL, JIT, **paths)
    found = evaluate(REAL, FAKE, PIXELS, dataclasses.replace(ALL, batch=24), JIT, **paths)
    assert_close(found, expected)


def FAKE_BATCH(numbers):
    return {"image": np.stack([picture(i, 60) for i in numbers])}


def test_a_cache_of_something_else_is_refused(tmp_path):
    path, only_fid = tmp_path / "real.npz", dataclasses.replace(ALL, metrics=("fid",))
    evaluate(REAL, FAKE, PIXELS, only_fid, JIT, reference=path)
    doubled = Extractor(
        "doubled", {}, lambda params, inputs: {"features": 2 * PIXELS.apply(params, inputs)["features"]}
    )
    for real, extractor, settings, message in (
        (REAL, doubled, only_fid, "with features='pixels', asked for is 'doubled'"),
        (without_end(drawn(41), 90), PIXELS, only_fid, "with of=40, asked for is 41: delete it, or name another"),
        (without_end(drawn(40, image_size=8), 90), PIXELS, only_fid, "with image_size=None, asked for is 8"),
        (REAL, PIXELS, dataclasses.replace(only_fid, num_real=80), "with num=90, asked for is 80"),
        (REAL, PIXELS, ALL, "was made without features"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate(real, FAKE, extractor, settings, JIT, reference=path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"real\.npz is damaged"):
        evaluate(REAL, FAKE, PIXELS, only_fid, JIT, reference=path)


def test_fewer_pictures_than_features_are_measured_and_said(caplog):
    few = Evaluation(("fid",), num=5, seed=0)
    with caplog.at_level(logging.WARNING):
        assert np.isfinite(evaluate(REAL, FAKE, PIXELS, few, JIT)["fid"])
    assert "5 pictures for 16 features" in caplog.text


def test_a_picture_that_is_not_finite_is_named():
    def draw(numbers):
        images = np.zeros((len(numbers), 4, 4, 1), np.float32)
        images[[i for i, number in enumerate(numbers) if number in (19, 30)]] = np.nan
        return {"image": images}

    with pytest.raises(FloatingPointError, match="2 of 16 pictures are not finite, the first is number 19"):
        evaluate(REAL, of_draw(draw, {}), PIXELS, ALL, JIT)


def test_sizes_that_differ_from_batch_to_batch_are_refused():
    growing = of_draw(
        lambda numbers: {"image": np.stack([picture(i, 0, 4 + (numbers.start > 0)) for i in numbers])}, {}
    )
    with pytest.raises(ValueError, match="a picture of 5x5x1 among ones of 4x4x1: set image_size"):
        evaluate(REAL, growing, PIXELS, ALL, JIT)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metrics": ("fid", "fod")}, "metrics='fod' is not known: expected one of fid, kid"),
        ({"metrics": ()}, "expected one or more of"),
        ({"num": 1}, "num=1: fid, kid, prec_recall, density_coverage need 2 or more"),
        ({"metrics": ("is",), "num": 9}, "splits=10: expected no more than the 9"),
        ({"batch": 0}, "batch=0: expected 1 or more"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(ALL, **settings)


@pytest.mark.parametrize(
    ("real", "settings", "message"),
    [
        (REAL, {"metrics": ("is",)}, "is needs features with classes"),
        (REAL, {"metrics": ("cmmd",)}, "cmmd is defined on features=clip:MODEL, not pixels"),
        (None, {}, "fid compares with real pictures, and there are none"),
        (REAL, {"num_real": 91}, "num=91: there are 90 pictures"),
        (FAKE, {}, "without end, say how many"),
        (REAL, {"num": 3}, "prec_recall looks at 3 neighbours: expected more than 3"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_drawn(real, settings, message):
    never = of_draw(lambda numbers: pytest.fail("drawn"), {})
    with pytest.raises(ValueError, match=message):
        evaluate(real, never, PIXELS, dataclasses.replace(ALL, **settings), JIT)


def folder(path, numbers, brightness: int = 40):
    path.mkdir()
    for i in numbers:
        Image.fromarray(picture(i, brightness)[..., 0]).save(path / f"{i}.png")
    return Data("folder", path=str(path), channels=1, threads=1)


def test_folders(tmp_path):
    """The same pictures in any order have the same moments; two sets that share pictures are refused, and counted."""
    real, fake = folder(tmp_path / "a", range(40)), folder(tmp_path / "b", range(38, 78))
    settings = Evaluation(("fid",), num=40, seed=0, batch=16)
    with pytest.raises(ValueError, match="2 of the 40 pictures are among the real ones"):
        evaluate(of_data(real, 0), of_data(fake, 0), PIXELS, settings, JIT)
    allowed = dataclasses.replace(settings, allow_shared=True)
    found = evaluate(of_data(real, 0), of_data(fake, 1), PIXELS, allowed, JIT)
    assert found["shared"] == 2
    a, b = flat(40, 78)[:40], flat(40, 78)[38:]
    assert found["fid"] == pytest.approx(fid.frechet_distance(moments.of([a]), moments.of([b])), rel=1e-5)
    itself = evaluate(of_data(real, 0), of_data(real, 1), PIXELS, allowed, JIT)
    assert itself["fid"] == pytest.approx(0, abs=1e-5)
    assert itself["shared"] == 40


def test_what_a_folder_is_told_by(tmp_path):
    """Where it lies does not count; what lies in it and what is made of it do."""
    data = folder(tmp_path / "a", range(6))
    about = of_data(data, 0).about
    (tmp_path / "a").rename(tmp_path / "c")
    moved = dataclasses.replace(data, path=str(tmp_path / "c"))
    assert of_data(moved, 0).about == about
    assert of_data(dataclasses.replace(moved, image_size=3), 0).about != about
    assert of_data(moved, 1).about != about
    Image.fromarray(picture(77, 0)[..., 0]).save(tmp_path / "c" / "3.png")
    assert of_data(moved, 0).about != about


def test_a_folder_of_mixed_sizes_is_refused(tmp_path):
    data = folder(tmp_path / "a", range(9))
    Image.fromarray(picture(0, 0, 7)[..., 0]).save(tmp_path / "a" / "odd.png")
    with pytest.raises(DataError, match="in one batch: set"):
        evaluate(of_data(data, 0), FAKE, PIXELS, Evaluation(("fid",), num=20, seed=0, batch=10), JIT)


def test_pictures_of_a_million_features_have_no_covariance():
    wide = of_draw(lambda numbers: {"image": np.zeros((len(numbers), 80, 80, 3), np.uint8)}, {})
    with pytest.raises(ValueError, match="19200 features a picture are more than 16384"):
        evaluate(wide._replace(count=9), FAKE, PIXELS, Evaluation(("fid",), num=9, seed=0, batch=8), JIT)
