"""Eight fake CPU devices, strict numerics, and errors where JAX would only promote or reuse in silence."""

import gc
import os
from importlib import metadata
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["FLAXGEN_CACHE"] = "off"
# Most of a test's time is compilation: unoptimised code is compiled faster, and the nets here are tiny. So is code of
# XLA's older emitters (three train steps: 18 s of the processor, 7 s with them), which jaxlib had until 0.11.
FLAGS = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
if tuple(map(int, metadata.version("jaxlib").split(".")[:2])) < (0, 12):
    FLAGS += " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}"
# What one process compiled is read by all others: the workers of a run, what their tests start, and the next run.
# An entry that is read while another process writes it, or that a killed one left, is compiled again.
COMPILED = Path(__file__).parents[1] / ".pytest_cache" / "compiled"
COMPILED_BYTES = 1 << 30
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(COMPILED)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
os.environ["PYTHONWARNINGS"] = "ignore:Error reading persistent compilation cache:UserWarning"  # of what tests start

# Tracing makes millions of small objects that live: looking for cycles among them takes an eighth of the time.
gc.set_threshold(100_000, 20, 100)

import jax  # noqa: E402 (reads these when it is imported)

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)

import pytest  # noqa: E402
from filelock import FileLock  # noqa: E402


def pytest_configure(config):
    """Removes what was compiled longest ago, so that the cache stays below its size."""
    if hasattr(config, "workerinput"):
        return
    entries = [(entry.stat(), entry) for entry in COMPILED.glob("*-cache")]
    surplus = sum(stat.st_size for stat, _ in entries) - COMPILED_BYTES
    for stat, entry in sorted(entries, key=lambda pair: pair[0].st_mtime):
        if surplus <= 0:
            break
        entry.unlink(missing_ok=True)
        surplus -= stat.st_size


LONGEST = (
    "test_notebooks.py", "test_raster_learning.py", "test_family_page.py", "test_crash.py", "test_studio_processes.py",
    "test_cli_draw.py", "test_cli.py", "test_samplers.py", "test_unclip.py", "test_gan_family.py",
    "test_gan_latents.py", "test_gan_step.py", "test_smoke.py", "test_zoo_decoder.py", "test_experiments.py",
    "test_cli_gan.py", "test_stages.py", "test_cli_eval.py", "test_directory.py", "test_net_stylegan2.py",
    "test_net_unet.py",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    """The files that take longest come first, so that no worker begins with one when the others are done."""
    place = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    """The unCLIP of `unclip_toy.py`, written once for all worker processes."""
    import unclip_toy

    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    with FileLock(root / "unclip.lock"):
        return unclip_toy.write_stages(root / "unclip")
