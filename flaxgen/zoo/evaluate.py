"""How good are these pictures? Samples or a folder of pictures against real ones, in features named in the result."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flaxgen import parallel
from flaxgen.metrics import fid, inception_score, mmd, prdc
from flaxgen.train.config import require
from flaxgen.zoo.features import Extractor
from flaxgen.zoo.picture_sets import Pictures
from flaxgen.zoo.process import choose
from flaxgen.zoo.statistics import CAPTIONS, CLASSES, FEATURES, Request, Statistics, gather

MOST_SHARED = 0.01
"""The share of pictures that two stored sets may have in common: data sets hold some pictures twice."""
Results = dict[str, float | int | str]


@dataclass(frozen=True)
class Evaluation:
    """What is measured: the names of METRICS, on `num` pictures against `num_real` real ones (0: all there are).

    `seed` orders the real ones and draws the subsets of KID and the splits of the Inception Score.
    `precision_neighbours` and `density_neighbours` are k of precision and recall and of density and coverage. At most
    `batch` pictures are looked at together; what is gathered is saved every `save_seconds`.
    """

    metrics: tuple[str, ...]
    num: int
    seed: int
    num_real: int = 0
    batch: int = 64
    precision_neighbours: int = 3
    density_neighbours: int = 5
    kid_subsets: int = 100
    kid_subset_size: int = 1000
    splits: int = 10
    allow_shared: bool = False
    save_seconds: float = 60.0

    def __post_init__(self):
        require(bool(self.metrics), f"metrics: expected one or more of {', '.join(METRICS)}")
        for name in self.metrics:
            choose("metrics", name, METRICS)
        least = 2 if {"fid", "kid"} & set(self.metrics) else 1
        require(self.num >= least, f"num={self.num}: {', '.join(self.metrics)} need {least} or more pictures")
        require(self.num_real >= 0, f"num_real={self.num_real}: expected 1 or more, or 0 for all")
        for name in ("batch", "precision_neighbours", "density_neighbours", "kid_subsets", "splits"):
            require(getattr(self, name) >= 1, f"{name}={getattr(self, name)}: expected 1 or more")
        require(
            "is" not in self.metrics or self.splits <= self.num,
            f"splits={self.splits}: expected no more than the {self.num} pictures",
        )


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
    wanted = [METRICS[name] for name in evaluation.metrics]
    _check(real, extractor, evaluation, wanted)
    request = Request(
        evaluation.num,
        evaluation.seed,
        kept=frozenset(what for metric in wanted for what in metric.kept),
        batch=evaluation.batch,
        splits=evaluation.splits,
        save_seconds=evaluation.save_seconds,
    )
    against, shared = None, 0
    if real is not None:
        of_real = request._replace(num=_num_real(real, evaluation), kept=request.kept & {FEATURES})
        against = gather(real, extractor, of_real, plan, reference)
    found = gather(fake, extractor, request, plan, progress)
    if real is not None and against is not None:
        shared = _count_shared(real, fake, against, found, evaluation)
        if against.size != found.size:
            _say(f"the real pictures are {_times(against.size)}, the others {_times(found.size)}: sharpness counts too")
    results: Results = {}
    for metric in wanted:
        results |= metric.measure(against, found, evaluation)
    results |= {"features": extractor.name, "num": evaluation.num, "seed": evaluation.seed}
    results["size"] = _times(found.size)
    if against is not None:
        results |= {"num_real": against.moments.count, "size_real": _times(against.size), "shared": shared}
    return results


def _times(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))


def _num_real(real: Pictures, evaluation: Evaluation) -> int:
    count = evaluation.num_real or real.count
    require(count is not None, "num_real=0: the real pictures are without end, say how many to take")
    return count or 0


def _check(real: Pictures | None, extractor: Extractor, evaluation: Evaluation, wanted: list["Metric"]) -> None:
    """What can be said before anything is drawn."""
    for name, metric in zip(evaluation.metrics, wanted, strict=True):
        require(real is not None or not metric.compares, f"{name} compares with real pictures, and there are none")
        require(
            CLASSES not in metric.kept or extractor.has_classes,
            f"{name} needs features with classes, inception:FILE or classifier:MODEL, not {extractor.name}",
        )
        require(
            not metric.of_clip or extractor.name.startswith("clip:"),
            f"{name} is defined on features=clip:MODEL, not {extractor.name}",
        )
    fewest = min(evaluation.num, _num_real(real, evaluation)) if real is not None else evaluation.num
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
        "expected two sets, or allow_shared",
    )
    if shared:
        _say(f"{shared} of {found.moments.count} pictures are copies of real ones, pixel by pixel")
    return shared


def _say(text: str) -> None:
    if parallel.process_index() == 0:
        print(text, file=sys.stderr)


class Metric(NamedTuple):
    """`measure(real, fake, evaluation)` gives the figures; `kept` is what it needs beside moments. It may compare with
    real pictures, or be defined on CLIP embeddings only."""

    measure: Callable[[Any, Statistics, Evaluation], Results]
    kept: tuple[str, ...] = ()
    compares: bool = True
    of_clip: bool = False


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


METRICS: dict[str, Metric] = {
    "fid": Metric(_fid),
    "kid": Metric(_kid, (FEATURES,)),
    "is": Metric(_inception_score, (CLASSES,), compares=False),
    "prec_recall": Metric(_prec_recall, (FEATURES,)),
    "density_coverage": Metric(_density_coverage, (FEATURES,)),
    "cmmd": Metric(_cmmd, (FEATURES,), of_clip=True),
    "clip_score": Metric(_clip_score, (CAPTIONS,), compares=False, of_clip=True),
}
"""What can be measured, by name."""
