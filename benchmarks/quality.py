"""How good are the small models? Samples against data that was not trained on.

python -m benchmarks.quality digits RUN     # improved precision and recall, k=3, pixels [Kynk19]
python -m benchmarks.quality s_curve RUN    # energy distance [Szekely13] over that between real sets
"""

import argparse
import dataclasses
import itertools
import json
from pathlib import Path

import jax
import numpy as np

import flaxgen
from flaxgen.data import open_source
from flaxgen.metrics.energy import energy_distance
from flaxgen.metrics.prdc import precision_recall


def examples(data, field: str, num: int) -> np.ndarray:
    """The first `num` examples, flattened; images in [-1, 1]."""
    source = open_source(data)
    values = np.stack([source[i][field] for i in range(min(num, len(source)))])
    values = values / 127.5 - 1 if values.dtype == np.uint8 else values
    return values.reshape(len(values), -1).astype(np.float32)


def digits(model, seed: int) -> dict[str, float]:
    """1,000 samples, all classes in turn, against the 797 held-out digits; real ones against them too."""
    held_out = examples(dataclasses.replace(model.config.data, split="test"), "image", 797)
    drawn = model.generate(jax.random.key(seed), num=1000).reshape(1000, -1)
    of_drawn = precision_recall(held_out, drawn)
    of_real = precision_recall(held_out, examples(model.config.data, "image", 1000))
    return {
        "precision": float(of_drawn.precision),
        "recall": float(of_drawn.recall),
        "real_precision": float(of_real.precision),
        "real_recall": float(of_real.recall),
    }


def s_curve(model, seed: int) -> dict[str, float]:
    """5,000 samples against five held-out sets of 5,000 points, and the ratio to what two such sets have on average."""
    sets = [examples(dataclasses.replace(model.config.data, seed=s, split="test"), "point", 5000) for s in range(5)]
    between_real = np.mean([energy_distance(a, b) for a, b in itertools.combinations(sets, 2)])
    drawn = model.generate(jax.random.key(seed), num=5000)
    to_real = np.mean([energy_distance(drawn, real) for real in sets])
    return {"to_real": float(to_real), "between_real": float(between_real), "ratio": float(to_real / between_real)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=("digits", "s_curve"))
    parser.add_argument("run", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parsed = parser.parse_args()
    measure = {"digits": digits, "s_curve": s_curve}[parsed.data]
    print(json.dumps(measure(flaxgen.load(parsed.run), parsed.seed), indent=2))


if __name__ == "__main__":
    main()
