"""What runs told: their curves, as one HTML page that needs nothing else, or as lines of a terminal."""

import base64
import html
import io
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from flaxgen import bounded_json
from flaxgen.family import directory
from flaxgen.family.files import CONFIG
from flaxgen.weights import store

METRICS, PREVIEWS = "metrics.jsonl", "previews"
FIRST = ("loss", "eval/fid")
"""The curves that are shown first, where there are any."""
MOST_PREVIEWS = 6
BARS = "▁▂▃▄▅▆▇█"
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
.curves { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)) }
.curves svg, img { max-width: 100%; height: auto } img { image-rendering: pixelated }
td, th { padding: .2rem .8rem .2rem 0; text-align: left; vertical-align: top }
figure { display: inline-block; margin: 0 1rem 1rem 0 } figcaption { font-size: .85rem; color: #555 }
"""
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>{title}</title><style>{style}</style></head><body><h1>{title}</h1>
{body}
</body></html>
"""


class Curve(NamedTuple):
    """A figure of a run, by steps."""

    steps: list[int]
    values: list[float]


class Told(NamedTuple):
    """What a run directory says: its curves by name, its config as it was written, and the files of its previews."""

    name: str
    curves: Mapping[str, Curve]
    config: Mapping[str, Any]
    previews: Sequence[Path]
    age: float

    @property
    def steps(self) -> int:
        """How many steps the run is to take, 0 if it does not say."""
        steps = self.config.get("steps", 0)
        return steps if isinstance(steps, int) else 0

    @property
    def step(self) -> int:
        """The newest step that it told of."""
        return max(curve.steps[-1] for curve in self.curves.values())

    @property
    def is_done(self) -> bool:
        """Whether it took all its steps."""
        return 0 < self.steps <= self.step


def read_run(run: Path) -> Told:
    """What a run has told so far; a line that is being written is left out.

    Raises:
        ValueError: if it is no run, or has told nothing yet.
    """
    path = run / METRICS
    if not path.is_file() or not (run / CONFIG).is_file():
        raise ValueError(f"{run} is no run directory, which has {CONFIG} and {METRICS}: give what --workdir was")
    curves: dict[str, Curve] = {}
    for line in _rows(path):
        for name, value in line.items():
            if name != "step" and isinstance(value, int | float) and not isinstance(value, bool):
                curve = curves.setdefault(name, Curve([], []))
                curve.steps.append(line["step"])
                curve.values.append(float(value))
    if not curves:
        raise ValueError(f"{path} has no line yet: wait for the first `log_every` steps of the run")
    order = [*(name for name in FIRST if name in curves), *sorted(set(curves) - set(FIRST))]
    found = store.read_json(run / CONFIG).get("config")
    previews = sorted((run / PREVIEWS).glob("step-*.png")) if (run / PREVIEWS).is_dir() else []
    age = time.time() - path.stat().st_mtime
    return Told(str(run), {n: curves[n] for n in order}, found if isinstance(found, dict) else {}, previews, age)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for line in file:
            try:
                row = bounded_json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict) and isinstance(row.get("step"), int):
                yield row


def make_page(runs: Sequence[Told]) -> str:
    """An HTML page: all curves with the runs in the same axes, what their configs differ in, and their previews."""
    names = list(dict.fromkeys(name for run in runs for name in run.curves))
    plots = "".join(_plot(name, runs) for name in names)
    body = [f'<div class="curves">{plots}</div>', _differences(runs), *(_pictures(run) for run in runs)]
    title = html.escape(", ".join(run.name for run in runs))
    return PAGE.format(title=title, style=STYLE, body="\n".join(body))


def _plot(name: str, runs: Sequence[Told]) -> str:
    """An SVG with one line a run."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # text stays text, and the same curves give the same bytes
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure = Figure(figsize=(4.4, 3.0), layout="constrained")
        axes = figure.add_subplot()
        for number, run in enumerate(runs):
            if name in run.curves:
                axes.plot(*run.curves[name], label=run.name, linewidth=1.2, color=f"C{number}")
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
        if len(runs) > 1:
            axes.legend(fontsize=7)
        written = io.StringIO()
        FigureCanvasSVG(figure).print_svg(written, metadata={"Date": None})
    svg = written.getvalue()
    return svg[svg.index("<svg") :]


def _differences(runs: Sequence[Told]) -> str:
    """A table of the fields that not all runs have alike."""
    flat = [{name: json.dumps(value) for name, value in directory.flat(run.config).items()} for run in runs]
    fields = [
        name for name in dict.fromkeys(n for one in flat for n in one) if len({one.get(name) for one in flat}) > 1
    ]
    if not fields:
        return ""
    head = "".join(f"<th>{html.escape(run.name)}</th>" for run in runs)
    rows = []
    for name in fields:
        cells = "".join(f"<td>{html.escape(one.get(name, ''))}</td>" for one in flat)
        rows.append(f"<tr><td>{html.escape(name)}</td>{cells}</tr>")
    return f"<h2>What differs</h2><table><tr><th></th>{head}</tr>{''.join(rows)}</table>"


def _pictures(run: Told) -> str:
    """Previews from the first to the newest, MOST_PREVIEWS at most."""
    count = min(MOST_PREVIEWS, len(run.previews))
    chosen = [run.previews[round(i * (len(run.previews) - 1) / max(1, count - 1))] for i in range(count)]
    if not chosen:
        return ""
    figures = (
        f'<figure><img alt="preview of {path.stem}" src="data:image/png;base64,'
        f'{base64.b64encode(path.read_bytes()).decode()}"><figcaption>{path.stem}</figcaption></figure>'
        for path in chosen
    )
    return f"<h2>{html.escape(run.name)}</h2>{''.join(figures)}"


def make_lines(run: Told, width: int = 40) -> list[str]:
    """The state of a run for a terminal: how far it is, and of every figure the newest value and a curve of bars."""
    step = run.step
    share = min(1.0, step / run.steps) if run.steps else 0.0
    of = f" of {run.steps:,} ({share:.0%})" if run.steps else ""
    lines = [f"{run.name}: step {step:,}{of}, told {_duration(run.age)} ago{_remaining(run, step)}"]
    longest = max(len(name) for name in run.curves)
    lines += [
        f"  {name:{longest}}  {curve.values[-1]:>10.4g}  {bars(curve.values, width)}"
        for name, curve in run.curves.items()
    ]
    return lines


def _remaining(run: Told, step: int) -> str:
    rate, batch = run.curves.get("images_per_second"), run.config.get("batch_size", 0)
    if step >= run.steps or rate is None or not batch or rate.values[-1] <= 0:
        return ""
    return f", {_duration((run.steps - step) * batch / rate.values[-1])} to go"


def _duration(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def bars(values: Sequence[float], width: int) -> str:
    """A curve of `width` letters at most, each the mean of its stretch between the least and the largest of them; what
    is not finite is "?"."""
    count = min(width, len(values))
    stretches = [values[i * len(values) // count : (i + 1) * len(values) // count] for i in range(count)]
    means = [sum(stretch) / len(stretch) for stretch in stretches]
    known = [mean for mean in means if math.isfinite(mean)]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    span = high - low or 1.0
    top = len(BARS) - 1
    return "".join(BARS[round((mean - low) / span * top)] if math.isfinite(mean) else "?" for mean in means)
