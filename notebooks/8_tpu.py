# ---
# jupyter:
#   jupytext:
#     formats: py:percent,ipynb
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/flaxgen/blob/main/notebooks/8_tpu.ipynb)
#
# # Many devices: pmap, mesh, bfloat16, profile
#
# A Colab TPU v5e has one chip, a Cloud TPU host has four or eight, and a slice has many hosts. In flaxgen the same run trains on
# all of them: a plan says where things live, and the numbers stay the same. You need no TPU to try it. On a CPU this
# notebook pretends to have eight devices, so you can get the sharding right before you pay for a slice.

# %%
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

# %% [markdown]
# JAX counts its devices when it is imported. So the wish for eight of them comes first, and does nothing on a TPU or GPU.
# If you imported JAX before, restart the kernel.

# %%
import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import jax

print(jax.device_count(), jax.devices()[0].device_kind)

# %% [markdown]
# ## One run, three plans
#
# A plan is one of three:
#
# - `jit`: one device,
# - `pmap`: every device holds the whole state and takes its share of the batch,
# - `mesh`: devices in a grid, `data` times `fsdp`. The batch is split over all, and large arrays of parameters and optimizer
#   are split over `fsdp`, so that a model fits that is too large for one device.

# %%
from flaxgen import parallel, verbs
from flaxgen.data import Data
from flaxgen.family.denoising import Objective
from flaxgen.family.process import Process
from flaxgen.nets.dit import DiT
from flaxgen.train.optim import Optimizer
from flaxgen.zoo.diffusion import Config

config = Config(
    seed=0,
    steps=12,
    batch_size=64,
    log_every=2,
    preview_every=0,
    data=Data(source="digits", image_size=8, channels=1, threads=2),
    net=DiT(image_size=8, in_channels=1, out_channels=1, patch=2, width=64, depth=1, heads=4, num_classes=11),
    process=Process(schedule="cosine"),
    objective=Objective(condition_dropout=0.1),
    optimizer=Optimizer(learning_rate=1e-3),
)

devices = jax.device_count()
fsdp = 2 if devices % 2 == 0 else 1
plans = {
    "jit": parallel.make_plan("jit"),
    "pmap": parallel.make_plan("pmap"),
    "mesh": parallel.make_plan("mesh", data=devices // fsdp, fsdp=fsdp),
}
states = {name: verbs.train(config, f"runs/{name}", plan) for name, plan in plans.items()}

# %% [markdown]
# An example's noise follows from its place in the whole batch, not from its device. So the three runs take the same steps:

# %%
from pathlib import Path

import matplotlib.pyplot as plt

from flaxgen.measure.curves import read_run

losses = {name: read_run(Path("runs") / name).curves["loss"] for name in plans}
plt.figure(figsize=(6, 2.5))
for (name, curve), width in zip(losses.items(), (8, 4, 1), strict=True):
    plt.plot(curve.steps, curve.values, linewidth=width, label=name)
plt.xlabel("step")
plt.ylabel("loss")
plt.legend()
plt.show()
for name, curve in losses.items():
    print(f"{name:5}", "  ".join(f"{value:.6f}" for value in curve.values))

# %% [markdown]
# ## What lies where
#
# Under a mesh, arrays with many numbers are split over `fsdp`; small ones are on every device, as fetching them would cost
# more than keeping them.

# %%
state = states["mesh"]
flat = jax.tree_util.tree_leaves_with_path(state.params)
for path, leaf in sorted(flat, key=lambda item: -item[1].size)[:4] + flat[:1]:
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    print(f"{name:40} {leaf.shape!s:16} {leaf.sharding.spec}")

for count in (1, 2, 4, 8):
    print(f"fsdp={count}: {parallel.bytes_per_device(state, count) / 2**20:.2f} MiB of the state on each device")

# %% [markdown]
# `flaxgen info` says the same of a model that is far too large for this machine, before you rent one that is not:
#
# ```
# flaxgen info experiments/stable_diffusion/v1.py --mesh data=32,fsdp=8
# ```

# %% [markdown]
# ## bfloat16
#
# TPUs and recent GPUs compute in bfloat16 several times as fast as in float32. A net has a `dtype`, in which it computes; its
# parameters and its output stay float32, so that small updates are not lost. It costs a little exactness. How little, on
# the same weights and inputs:

# %%
import jax.numpy as jnp
import numpy as np

params = jax.device_get(state.params)
x, t = jax.random.normal(jax.random.key(0), (32, 8, 8, 1)), jnp.linspace(0, 999, 32)
label = jnp.arange(32) % 10


def predict(dtype):
    return np.asarray(jax.jit(config.net.clone(dtype=dtype).apply)({"params": params}, x, t, label))


exact, rough = predict("float32"), predict("bfloat16")
print(f"relative difference: {np.linalg.norm(rough - exact) / np.linalg.norm(exact):.4f}")
plt.figure(figsize=(3, 3))
plt.plot(exact.ravel(), rough.ravel(), ".", markersize=2)
plt.xlabel("float32")
plt.ylabel("bfloat16")
plt.show()

# %% [markdown]
# ## Profile
#
# Where does the time go? `profile=True` traces five steps of a run. TensorBoard or Perfetto (https://ui.perfetto.dev) open the
# trace. We read it here: which operations took longest, summed over all devices.

# %%
state = verbs.train(config, "runs/profiled", plans["jit"], profile=True)
[trace] = Path("runs/profiled/profile").rglob("*.xplane.pb")
print(trace.name, f"{trace.stat().st_size / 2**20:.1f} MiB")

# %%
from collections import Counter

took = Counter()
for plane in jax.profiler.ProfileData.from_file(str(trace)).planes:
    wanted = "XLA Ops" if plane.name.startswith("/device:") else "XLA"  # on a CPU: the threads that compute
    for line in plane.lines:
        if wanted in line.name:
            for event in line.events:
                if "::" not in event.name:  # what holds other events
                    took[event.name.split(".")[0]] += event.duration_ns / 1e6

names, milliseconds = zip(*took.most_common(12)[::-1], strict=True)
plt.figure(figsize=(7, 4))
plt.barh(names, milliseconds)
plt.xlabel("milliseconds in five steps")
plt.show()

# %% [markdown]
# If matrix products are at the top, the chip is busy with what it is for. If you see copies and waits, look at `input_wait`
# in `metrics.jsonl`, the share of time in which the run waited for data.

# %%
curves = read_run(Path("runs/profiled")).curves
print("images a second:", [round(value) for value in curves["images_per_second"].values])
print("share of time waiting for data:", [round(value, 3) for value in curves["input_wait"].values])

# %% [markdown]
# Eight devices made of two cores are no faster than one, of course. The speed is only real on a real accelerator.
#
# ## Sizes for a real one
#
# | machine | plan | what to change |
# |---|---|---|
# | Colab TPU v5e-1 | `jit` | `net.dtype="bfloat16"`, widths and `batch_size` in multiples of 128 |
# | TPU v5e-8, 8 GPUs | `pmap`, or `mesh` with `data=8` | `batch_size` eight times as large |
# | a slice with several hosts | `mesh`, such as `data=32, fsdp=8` | start the same command on every host |
#
# ```
# flaxgen train experiments/ddpm_cifar10.py --workdir RUN --set data.path=SHARDS net.dtype=bfloat16 --parallel mesh
# ```
#
# The README's "Many devices" says how processes find each other.
