"""A run that measures its own samples as it trains."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from flaxgen import parallel
from flaxgen.family.family import Family
from flaxgen.measure.evaluate import evaluate
from flaxgen.measure.features import make_extractor
from flaxgen.measure.picture_sets import of_data, of_draw
from flaxgen.types import State

PREFIX = "eval/"
FOLDER = "evaluation"


def make_evaluate(
    family: Family, config: Any, workdir: Path, plan: parallel.Plan
) -> Callable[[State], dict[str, float]]:
    """Of a family whose models `generate` pictures by number: from a state of the run to the figures of its averaged
    weights, by names that begin with PREFIX.

    All devices and processes of the plan draw. The same noise is drawn from every time, so figures of one run differ by
    its weights alone; they are those of `flaxgen eval` with the run's seed. Statistics of the real pictures are kept in
    `workdir/evaluation`.

    Raises:
        ValueError, OSError: if the features, the data or the numbers of pictures do not fit together.
    """
    asked = config.evaluation
    evaluation, extractor = asked.evaluation(config.seed), make_extractor(asked.features)
    real = of_data(replace(config.data, split=asked.split or config.data.split), config.seed)
    key = jax.random.key(config.seed)
    seen = json.dumps([dict(real.about), extractor.name, asked.num_real, asked.metrics])
    reference = workdir / FOLDER / f"real-{hashlib.sha256(seen.encode()).hexdigest()[:12]}.npz"

    def measure(state) -> dict[str, float]:
        model = family.trained(config, state.ema_params, 0, plan)
        drawn = of_draw(lambda numbers: {"image": model.generate(key, numbers)}, {})
        found = evaluate(real, drawn, extractor, evaluation, plan, reference=reference)
        return {PREFIX + name: value for name, value in found.items() if isinstance(value, float)}

    return measure
