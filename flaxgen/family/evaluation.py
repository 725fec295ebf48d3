"""What is to be measured, as plain values; `evaluate` measures it."""

from dataclasses import dataclass
from typing import NamedTuple

from flaxgen.family.process import choose
from flaxgen.train.config import require

FEATURES, CLASSES, CAPTIONS = "features", "classes", "captions"


class Needs(NamedTuple):
    """What a metric needs to be kept of the pictures beside moments: their features, their classes, how well captions
    fit. It may compare with real pictures, or be defined on CLIP embeddings only."""

    kept: tuple[str, ...] = ()
    compares: bool = True
    of_clip: bool = False


METRICS: dict[str, Needs] = {
    "fid": Needs(),
    "kid": Needs((FEATURES,)),
    "is": Needs((CLASSES,), compares=False),
    "prec_recall": Needs((FEATURES,)),
    "density_coverage": Needs((FEATURES,)),
    "cmmd": Needs((FEATURES,), of_clip=True),
    "clip_score": Needs((CAPTIONS,), compares=False, of_clip=True),
}
"""What can be measured, by name."""


@dataclass(frozen=True)
class Evaluation:
    """What is measured: the names of METRICS, on `num` pictures against `num_real` real ones (0: all there are).

    `seed` orders the real ones and draws the subsets of KID and the splits of the Inception Score.
    `precision_neighbours` and `density_neighbours` are k of precision and recall and of density and coverage. At most
    `batch` pictures are looked at together; what is gathered is saved every `save_seconds`, and shown by a `bar`.

    Raises:
        ValueError: if a metric is not known, or a number is out of range.
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
    bar: bool = True

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


def check_every(evaluate_every: int, draws_pictures: bool) -> None:
    """Raises ValueError unless a run can be measured every so many steps: only pictures can, and 0 is never."""
    require(evaluate_every >= 0, f"evaluate_every={evaluate_every}: expected 0 or more")
    require(
        not evaluate_every or draws_pictures,
        f"evaluate_every={evaluate_every} measures pictures, and this net draws points: set it to 0",
    )


@dataclass(frozen=True)
class Periodic:
    """What a run measures of its own samples every so many steps: `metrics` of `num` pictures, drawn as its `sampling`
    says, against `num_real` (0: all) of its data, those of `split` ("": the one trained on), in `features` by name
    (pixels, inception:FILE, clip:MODEL or classifier:MODEL). At most `batch` pictures are looked at together."""

    metrics: tuple[str, ...] = ("fid", "kid", "prec_recall")
    features: str = "pixels"
    num: int = 1000
    num_real: int = 0
    split: str = ""
    batch: int = 64

    def __post_init__(self):
        self.evaluation(0)
        captioned = [name for name in self.metrics if CAPTIONS in METRICS[name].kept]
        require(not captioned, f"metrics={','.join(captioned)}: what the run draws has no captions")

    def evaluation(self, seed: int) -> Evaluation:
        """The same in full, without a bar."""
        return Evaluation(
            self.metrics, self.num, seed, num_real=self.num_real, batch=self.batch, allow_shared=True, bar=False
        )
