"""How good are these pictures? Samples or a folder of pictures against real ones, in features named in the result."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from flaxgen import parallel
from flaxgen.family.evaluation import CLASSES, FEATURES, METRICS, Evaluation
from flaxgen.measure.features import Extractor
from flaxgen.measure.picture_sets import Pictures
from flaxgen.measure.statistics import Request, Statistics, gather
from flaxgen.metrics import fid, inception_score, mmd, prdc
from flaxgen.train.config import require

MOST_SHARED = 0.01
"""The share of pictures that two stored sets may have in common: data sets hold some pictures twice."""
TWO_SETS = "give two sets, or allow_shared"
Results = dict[str, float | int | str]


def evaluate(
    real: Pictures | None,
    fake: Pictures,
    extractor: Extractor,
    evaluation: Evaluation,
    plan: parallel.Plan,
    *,
    reference: Path | None = None,
    progress: Path | None = None,
) -> Results:
    """The figures by flat keys (`fid`, `kid`, `kid_std`, `precision` ...), and what they were measured with.

    `real` may be None where no metric needs it. The statistics of the real pictures are cached in `reference`, and what
    is gathered of the others in `progress`: an evaluation that was stopped goes on there, and gives the same numbers.

    Raises:
        ValueError: if pictures, features and metrics do not fit together, the two sets share pictures, or a file is
            that of another evaluation.
        FloatingPointError: if a picture or a feature is not finite.
    """
    _check(real, fake, extractor, evaluation)
    request = Request(
        evaluation.num,
        evaluation.seed,
        kept=frozenset(what for name in evaluation.metrics for what in METRICS[name].kept),
        batch=evaluation.batch,
        splits=evaluation.splits,
        save_seconds=evaluation.save_seconds,
        bar=evaluation.bar,
    )
    if real is None:
        against, found = None, gather(fake, extractor, request, plan, progress)
    else:
        of_real = request._replace(num=_num_real(real, evaluation), kept=request.kept & {FEATURES})
        against = gather(real, extractor, of_real, plan, reference)
        found = gather(fake, extractor, request._replace(width=len(against.moments.mean)), plan, progress)
    measured = {"features": extractor.name, "num": evaluation.num, "seed": evaluation.seed, "size": _times(found.size)}
    measured["replaced"] = found.replaced
    if real is not None and against is not None:
        measured |= {"num_real": against.moments.count, "size_real": _times(against.size)}
        measured |= {"replaced_real": against.replaced, "shared": _count_shared(real, fake, against, found, evaluation)}
        if against.size != found.size:
            _say(f"the real pictures are {measured['size_real']}, the others {measured['size']}: sharpness counts too")
    for name, count in (("real pictures", measured.get("replaced_real")), ("pictures", measured["replaced"])):
        if count:
            _say(f"{count} of the {name} are broken, and others were taken in their place")
    figures: Results = {}
    for name in evaluation.metrics:
        figures |= MEASURES[name](against, found, evaluation)
    return figures | measured


def _times(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))


def _num_real(real: Pictures, evaluation: Evaluation) -> int:
    count = evaluation.num_real or real.count
    require(count is not None, "num_real=0: the real pictures are without end, say how many to take")
    return count or 0


def _check(real: Pictures | None, fake: Pictures, extractor: Extractor, evaluation: Evaluation) -> None:
    """What can be said before anything is drawn."""
    few = f"num={evaluation.num}: there are {fake.count} pictures"
    require(fake.count is None or evaluation.num <= fake.count, few)
    for name in evaluation.metrics:
        needs = METRICS[name]
        require(real is not None or not needs.compares, f"{name} compares with real pictures, and there are none")
        require(
            CLASSES not in needs.kept or extractor.has_classes,
            f"{name} needs features with classes, inception:FILE or classifier:MODEL, not {extractor.name}",
        )
        require(
            not needs.of_clip or extractor.name.startswith("clip:"),
            f"{name} is defined on features=clip:MODEL, not {extractor.name}",
        )
    if real is not None:
        _check_sets(real, fake, evaluation)


def _check_sets(real: Pictures, fake: Pictures, evaluation: Evaluation) -> None:
    same = real.about.get("content", "") == fake.about.get("content")
    require(
        not same or evaluation.allow_shared,
        f"the two sets are one and the same, so it would measure itself: {TWO_SETS}",
    )
    fewest = min(evaluation.num, _num_real(real, evaluation))
    for name in {"fid", "kid"} & set(evaluation.metrics):
        require(fewest > 1, f"{name} compares sets of 2 or more pictures, and one of these has {fewest}")
    for name, neighbours in (
        ("prec_recall", evaluation.precision_neighbours),
        ("density_coverage", evaluation.density_neighbours),
    ):
        require(
            name not in evaluation.metrics or neighbours < fewest,
            f"{name} looks at {neighbours} neighbours: expected more than {fewest} pictures",
        )


def _count_shared(real, fake, against: Statistics, found: Statistics, evaluation: Evaluation) -> int:
    """How many of the fakes are among the reals, pixel by pixel; too many are an error where both were stored."""
    shared = int(np.isin(found.digests, against.digests).sum())
    share = shared / min(found.moments.count, against.moments.count)
    both_stored = real.about["kind"] == fake.about["kind"] == "data"
    require(
        not both_stored or share <= MOST_SHARED or evaluation.allow_shared,
        f"{shared} of the {found.moments.count} pictures are among the real ones, so they would measure themselves: "
        f"{TWO_SETS}",
    )
    if shared:
        _say(f"{shared} of {found.moments.count} pictures are copies of real ones, pixel by pixel")
    return shared


def _say(text: str) -> None:
    if parallel.process_index() == 0:
        print(text, file=sys.stderr)


def _fid(real: Statistics, fake: Statistics, evaluation: Evaluation) -> Results:
    return {"fid": fid.frechet_distance(real.moments, fake.moments)}


def _kid(real: Statistics, fake: Statistics, evaluation: Evaluation) -> Results:
    a, b = _features(real), _features(fake)
    size = min(evaluation.kid_subset_size, len(a), len(b))
    found = mmd.kid(a, b, seed=evaluation.seed, subsets=evaluation.kid_subsets, subset_size=size)
    return {"kid": found.mean, "kid_std": found.std, "kid_subset_size": size}


def _inception_score(real: Any, fake: Statistics, evaluation: Evaluation) -> Results:
    require(fake.classes is not None, "the classes of these pictures were not kept")
    found = inception_score.inception_score(fake.classes)  # pyright: ignore[reportArgumentType]
    return {"is": found.mean, "is_std": found.std}


def _prec_recall(real: Statistics, fake: Statistics, evaluation: Evaluation) -> Results:
    found = prdc.precision_recall(*_equally_many(real, fake), neighbours=evaluation.precision_neighbours)
    return {"precision": found.precision, "recall": found.recall}


def _density_coverage(real: Statistics, fake: Statistics, evaluation: Evaluation) -> Results:
    found = prdc.density_coverage(*_equally_many(real, fake), neighbours=evaluation.density_neighbours)
    return {"density": found.density, "coverage": found.coverage}


def _cmmd(real: Statistics, fake: Statistics, evaluation: Evaluation) -> Results:
    return {"cmmd": mmd.cmmd(_features(real), _features(fake))}


def _clip_score(real: Any, fake: Statistics, evaluation: Evaluation) -> Results:
    return {"clip_score": fake.score / fake.moments.count}


def _features(statistics: Statistics) -> np.ndarray:
    require(statistics.features is not None, "the features of these pictures were not kept")
    return np.asarray(statistics.features)


def _equally_many(real: Statistics, fake: Statistics) -> tuple[np.ndarray, np.ndarray]:
    """The first of each set, which are any of it: neighbours are nearer the more points there are."""
    a, b = _features(real), _features(fake)
    count = min(len(a), len(b))
    return a[:count], b[:count]


MEASURES: dict[str, Callable[[Any, Statistics, Evaluation], Results]] = {
    "fid": _fid,
    "kid": _kid,
    "is": _inception_score,
    "prec_recall": _prec_recall,
    "density_coverage": _density_coverage,
    "cmmd": _cmmd,
    "clip_score": _clip_score,
}
"""From the statistics of the real pictures and of the others to the figures of each of METRICS."""
