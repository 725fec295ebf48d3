# @title Run this first: it installs flaxgen on Colab, and does nothing where flaxgen is installed
import glob
import importlib.util
import os
import subprocess
import sys

REPOSITORY = "OWNER/flaxgen"  # there is no public repository yet: name yours here, or a wheel in FLAXGEN_SOURCE
has_tpu = glob.glob("/dev/accel*") + glob.glob("/dev/vfio/[0-9]*")
backend = "tpu" if has_tpu else "gpu" if glob.glob("/dev/nvidia[0-9]*") else "cpu"  # what this machine has
extra = {"tpu": "demo,tpu", "gpu": "demo,cuda12", "cpu": "demo"}[backend]
source = os.environ.get("FLAXGEN_SOURCE", f"git+https://github.com/{REPOSITORY}")

if importlib.util.find_spec("flaxgen") is None:
    if "/OWNER/" in source:
        raise ValueError("flaxgen has no public repository yet: set REPOSITORY, or FLAXGEN_SOURCE=file:///A_WHEEL")
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", f"flaxgen[{extra}] @ {source}"], check=True)
    print("Installed. The runtime now restarts, with the new JAX: then run this cell once more, and all others.")
    get_ipython().kernel.do_shutdown(restart=True)
elif "google.colab" in sys.modules:
    import jax

    if jax.default_backend() != backend:
        raise RuntimeError(
            f"JAX runs on the {jax.default_backend()} of a machine with a {backend}: choose Runtime > Disconnect and "
            "delete runtime, and run this cell again"
        )
    print(f"flaxgen runs on {jax.device_count()} {jax.devices()[0].device_kind}")
