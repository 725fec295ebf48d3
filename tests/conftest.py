"""Eight fake CPU devices, strict numerics, and errors where JAX would only promote or reuse in silence."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["FLAXGEN_CACHE"] = "off"
# Most of a test's time is compilation: unoptimised code is compiled faster, and the nets here are tiny.
FLAGS = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}"

import jax  # noqa: E402 (reads both when it is imported)

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)

import pytest  # noqa: E402
from filelock import FileLock  # noqa: E402


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    """The unCLIP of `unclip_toy.py`, trained once for all worker processes."""
    import unclip_toy

    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    with FileLock(root / "unclip.lock"):
        return unclip_toy.train_stages(root / "unclip")
