"""What FID, KID, precision and recall say of two sets of n pictures of one and the same kind, against n.

    python -m benchmarks.metric_bias 'CIFAR10/*.tar' --out docs/metric_bias.png
    python -m benchmarks.metric_bias scenes --out scenes.png

Both sets are drawn from one data set without a picture in common, so a metric without bias gives 0 (FID, KID) whatever
n, and what it gives beside that is bias. Features are the pictures' own pixels, at two sizes: 48 and 192 of them.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure

from flaxgen.data import Data, Order, batches, open_source
from flaxgen.metrics import fid, mmd, moments, prdc

READ, SIDES = 16, (4, 8)
SIZES = (100, 200, 500, 1000, 2000, 5000, 10_000)
REPEATS = 3
MOST_NEIGHBOURS = 1000
"""Precision and recall compare all pairs, so they are measured up to here."""
Figures = dict[str, list[float]]


def read(named: str, num: int) -> UInt8[np.ndarray, "N H W 3"]:
    """`num` different pictures, in any order, of READ pixels a side."""
    source = "scenes" if named == "scenes" else "webdataset" if named.endswith(".tar") else "folder"
    opened = open_source(Data(source, path="" if named == "scenes" else named, image_size=READ, size=num))
    if len(opened) < num:
        raise ValueError(f"{named} has {len(opened)} pictures: expected {num} or more")
    stream = batches(opened, Order(0, 500), start_step=0, fields=("image",))
    images = np.concatenate([next(stream)["image"] for _ in range(-(-num // 500))])[:num]
    stream.close()
    return images


def pixels(images: UInt8[np.ndarray, "N H W 3"], side: int) -> Float[np.ndarray, "N D"]:
    """In [-1, 1], averaged to `side` pixels a side."""
    num, factor = len(images), images.shape[1] // side
    parts = images.reshape(num, side, factor, side, factor, 3)
    return (parts.mean((2, 4), dtype=np.float32) / 127.5 - 1).reshape(num, -1)


def measure(one: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """All figures of two sets of one size."""
    found = {
        "fid": fid.frechet_distance(moments.of([one]), moments.of([other])),
        "kid": mmd.polynomial_mmd(one[:1000], other[:1000]),
    }
    if len(one) <= MOST_NEIGHBOURS:
        found |= prdc.precision_recall(one, other, neighbours=3)._asdict()
    return found


def curves(features: np.ndarray) -> dict[int, Figures]:
    """By n: the figures of REPEATS pairs of sets, which have pictures in common with other pairs only."""
    rng, found = np.random.default_rng(0), {}
    for n in SIZES:
        rows: list[dict[str, float]] = []
        for _ in range(REPEATS):
            order = rng.permutation(len(features))
            rows.append(measure(features[order[:n]], features[order[n : 2 * n]]))
        found[n] = {name: [row[name] for row in rows] for name in rows[0]}
    return found


def at_infinity(found: dict[int, Figures]) -> tuple[float, float]:
    """FID where 1/n is 0, and what it gains a unit of 1/n: the line through the three largest n [Chong20]."""
    sizes = sorted(found)[-3:]
    slope, value = np.polyfit([1 / n for n in sizes], [np.mean(found[n]["fid"]) for n in sizes], 1)
    return float(value), float(slope)


def draw(by_width: dict[int, dict[int, Figures]], path: Path, title: str) -> None:
    """Three panels: FID, KID, precision and recall, with the range over the repeats."""
    figure = Figure(figsize=(11, 3.4), dpi=110, layout="tight")
    axes = figure.subplots(1, 3)
    panels = (("FID", ("fid",)), ("KID", ("kid",)), ("precision, recall (dashed), k=3", ("precision", "recall")))
    for panel, (label, names) in zip(axes, panels, strict=True):
        for (width, found), colour in zip(by_width.items(), ("tab:blue", "tab:orange"), strict=True):
            for name, style in zip(names, ("o-", "s--"), strict=False):
                sizes = [n for n in found if name in found[n]]
                values = np.array([found[n][name] for n in sizes])
                panel.plot(sizes, values.mean(1), style, color=colour, ms=4, label=f"{width} features")
                panel.fill_between(sizes, values.min(1), values.max(1), color=colour, alpha=0.2)
        panel.set_xscale("log")
        panel.set_xlabel("pictures of each set")
        panel.set_title(label)
    axes[0].set_yscale("log")
    axes[1].axhline(0, color="0.6", lw=1)
    axes[2].set_ylim(0, 1)
    axes[0].legend()
    figure.suptitle(title)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description="bias of metrics with the number of pictures")
    parser.add_argument("data", help="`scenes`, a folder of pictures, or a glob of .tar shards")
    parser.add_argument(
        "--out", type=Path, required=True, help="the picture; its figures are written beside it as JSON"
    )
    parser.add_argument("--title", default="two sets of one kind")
    options = parser.parse_args()
    by_width, images = {}, read(options.data, 2 * max(SIZES))
    for side in SIDES:
        found = curves(pixels(images, side))
        by_width[3 * side**2] = found
        value, slope = at_infinity(found)
        print(f"{3 * side**2} features: FID {value:.4g} at infinity, and {slope:.3g} / n more")
        for n, figures in found.items():
            print(f"{n:>7}", *(f"{name} {np.mean(of):.4g} +- {np.std(of):.2g}" for name, of in figures.items()))
    draw(by_width, options.out, options.title)
    options.out.with_suffix(".json").write_text(json.dumps(by_width, indent=1) + "\n")


if __name__ == "__main__":
    main()
