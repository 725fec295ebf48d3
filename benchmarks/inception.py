"""The FID Inception beside torch-fidelity's extractor on this machine, float32, both sides in turn.

    python -m benchmarks.inception [--batch 16] [--size 32] [--rounds 7] [--json FILE]

Both sides start from the same random weights and uint8 pictures, and give the 2048 features that FID is computed from.
The speed of a side is the median over the rounds; its first call, which compiles, is not counted. The two sides keep
all cores busy in turn, but leave the machine idle: torch's threads wait for each other at every layer and suffer more
from what else runs. CPU seconds tell the work itself; with OMP_NUM_THREADS=1 and `taskset -c 0` nothing waits in them.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch

from flaxgen.nets.inception import Inception
from flaxgen.parallel import make_plan
from flaxgen.types import Params
from flaxgen.weights import store
from flaxgen.weights.inception import abstract_params, export_inception

# a module of the tests, which are no package
sys.path.append(str(Path(__file__).parents[1] / "tests" / "parity"))
import torchvision_stub

with torchvision_stub.installed():
    import torch_fidelity
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

FEATURE = "2048"
Work = Callable[[], np.ndarray]


def random_params() -> Params:
    """He-normal kernels behind neutral batch normalisations."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if leaf.ndim == 1:
            return np.full(leaf.shape, path[-1].key in ("scale", "variance"), np.float32)
        return rng.normal(0, np.sqrt(2 / np.prod(leaf.shape[:-1])), leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, abstract_params())


def flaxgen_work(params: Params, images: np.ndarray) -> Work:
    """As an evaluation runs it: through a plan, from host arrays to host arrays."""

    def features(params, images) -> Any:
        return Inception().apply({"params": params}, images)[FEATURE]

    compiled = make_plan("jit").compile_map(features)
    placed = jax.device_put(params)
    return lambda: np.asarray(compiled(placed, images))


def torch_work(params: Params, images: np.ndarray) -> Work:
    """torch-fidelity's extractor with the same weights."""
    with tempfile.TemporaryDirectory() as folder:
        export_inception(params, Path(folder) / "ours.safetensors")
        tensors = store.read_file(Path(folder) / "ours.safetensors")
        torch.save({name: torch.from_numpy(value) for name, value in tensors.items()}, Path(folder) / "theirs.pth")
        net: Any = FeatureExtractorInceptionV3("inception", [FEATURE], str(Path(folder) / "theirs.pth"))
    pictures = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())

    @torch.no_grad()
    def work():
        return net(pictures)[0].numpy()

    return work


def measure(sides: dict[str, Work], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds, and CPU seconds, of every round of every side."""
    taken = {side: {"seconds": [], "cpu_seconds": []} for side in sides}
    for run in range(rounds + 1):
        for side, work in sides.items():
            start, cpu_start = time.perf_counter(), time.process_time()
            work()
            if run:
                taken[side]["seconds"].append(time.perf_counter() - start)
                taken[side]["cpu_seconds"].append(time.process_time() - cpu_start)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description="the FID Inception beside torch-fidelity's")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=32, help="of the pictures, before both sides resize them to 299")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    images = np.random.default_rng(0).integers(0, 256, (options.batch, options.size, options.size, 3), np.uint8)
    params = random_params()
    sides = {"flaxgen": flaxgen_work(params, images), "torch-fidelity": torch_work(params, images)}
    outputs = [work() for work in sides.values()]
    print(f"largest difference of a feature: {np.abs(outputs[0] - outputs[1]).max():.1e}")
    taken = measure(sides, options.rounds)
    medians = {side: {name: statistics.median(of) for name, of in found.items()} for side, found in taken.items()}
    for side, median in medians.items():
        speed, work = options.batch / median["seconds"], median["cpu_seconds"] / options.batch
        rounds = [round(seconds, 2) for seconds in taken[side]["seconds"]]
        print(f"{side:16}{speed:8.2f} images/s {work:8.3f} CPU s/image  rounds {rounds}")
    ratios = {name: medians["torch-fidelity"][name] / of for name, of in medians["flaxgen"].items()}
    versions = {"jax": jax.__version__, "torch": torch.__version__, "torch-fidelity": torch_fidelity.__version__}
    print(f"ratio {ratios['seconds']:.2f}, of CPU seconds {ratios['cpu_seconds']:.2f}")
    print(f"{versions}, {jax.devices()[0].platform}, {torch.get_num_threads()} torch threads")
    if options.json:
        found = {"batch": options.batch, "size": options.size, "taken": taken, "ratios": ratios, "versions": versions}
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
