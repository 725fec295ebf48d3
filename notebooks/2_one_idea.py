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
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/flaxgen/blob/main/notebooks/2_one_idea.ipynb)
#
# # Train a diffusion model, and change one idea
#
# A researcher's afternoon in a few minutes: train a small DDPM on handwritten digits, then change one idea at a time. First
# the sampler, then what the loss pays attention to, then guidance. In flaxgen each of these is a function, and you put your
# own where the old one was.

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
# ## Train
#
# A run is a config: data, net, noise process, optimizer. `verbs.train` trains it in a directory and writes checkpoints and
# `metrics.jsonl` there. Run the cell again and it goes on where it stopped.

# %%
import flaxgen
from flaxgen import verbs
from flaxgen.data import Data
from flaxgen.family.denoising import Objective
from flaxgen.family.process import Process
from flaxgen.family.sampling import Sampling
from flaxgen.nets.unet import UNet
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.zoo.diffusion import Config

config = Config(
    seed=0,
    steps=600,
    batch_size=64,
    log_every=50,
    preview_every=0,
    data=Data(source="digits", image_size=8, channels=1, threads=2),
    net=UNet(
        image_size=8,
        in_channels=1,
        out_channels=1,
        channels=32,
        multipliers=(1,),
        depth=1,
        attention=(None,),
        middle="none",
        norm_groups=8,
        num_classes=11,  # ten digits, and a row that says "no digit"
    ),
    process=Process(schedule="cosine", timesteps=1000),
    objective=Objective(condition_dropout=0.1),
    optimizer=Optimizer(learning_rate=3e-3, warmup=50, decay="cosine"),
    ema=Ema(decay=0.99),
    sampling=Sampling(sampler="unipc", steps=25),
)

# %% [markdown]
# These sizes are for two CPU cores and one minute. On an accelerator take
# [`experiments/ddpm_digits.py`](../experiments/ddpm_digits.py) for good digits (2,000 steps), or
# [`experiments/ddpm_cifar10.py`](../experiments/ddpm_cifar10.py) for the DDPM paper's net.

# %%
state = verbs.train(config, "runs/digits")

# %%
from pathlib import Path

import matplotlib.pyplot as plt

from flaxgen.measure.curves import read_run

loss = read_run(Path("runs/digits")).curves["loss"]
plt.figure(figsize=(6, 2.5))
plt.plot(loss.steps, loss.values)
plt.xlabel("step")
plt.ylabel("loss")
plt.show()

# %% [markdown]
# The model was told which digit to draw: 0 to 9 in turn, and so in every row. `guidance` makes it listen more closely.

# %%
from flaxgen.family.pictures import Pictures
from flaxgen.family.sheets import grid

model = flaxgen.load("runs/digits")
drawn = model.sample(num=40, seed=0, guidance=2.0)
Pictures(grid(drawn.images, columns=10)[None])

# %% [markdown]
# ## Idea 1: a sampler of your own
#
# A sampler is a way to walk from noise to a picture. It has two functions: `init` makes its state from noise, and `step`
# goes from time `t` to the cleaner time `s`. The model comes as an argument, `denoise(x, t).x0`, so a step may ask it as
# often as it likes.
#
# DDIM takes a whole step by what the model says at its beginning. Our own takes half a step, asks the model there, and then
# takes the whole step by that second answer: the midpoint rule.

# %%
import jax
import jax.numpy as jnp

from flaxgen.diffusion import guidance, samplers, times
from flaxgen.types import Sampler


def midpoint(schedule):
    ddim = samplers.ddim(schedule)

    def step(denoise, state, t, s, key):
        first_key, second_key = jax.random.split(key)
        middle = (t + s) / 2
        half = ddim.step(denoise, state, t, middle, first_key)
        answer = denoise(half.x, middle)
        return ddim.step(lambda x, t: answer, state, t, s, second_key)

    return Sampler(ddim.init, step)


# %% [markdown]
# Is it better? All three samplers below follow the same path from the same noise, so with enough steps they end at the
# same pictures. DDIM finds these in 500 steps, and we measure how far from them the others are. Our step asks the model
# twice, so it gets half as many steps.

# %%
import numpy as np

schedule, denoise = model.schedule, guidance.clip_x0(model.denoiser())
noise = jax.random.normal(jax.random.key(0), (20, 8, 8, 1))


def runner(sampler):
    draw = jax.jit(lambda x, grid: samplers.sample(sampler, denoise, x, grid, jax.random.key(1)))
    return lambda steps: np.asarray(draw(noise, samplers.make_grid(times.trailing(steps, 1000), room=512)))


draw = {
    "DDIM": runner(samplers.ddim(schedule)),
    "DPM-Solver++ 2M": runner(samplers.dpmpp_2m(schedule)),
    "our midpoint": runner(midpoint(schedule)),
}
exact = draw["DDIM"](500)

calls = np.array([4, 8, 16, 32])
for name, one in draw.items():
    steps = calls // 2 if name == "our midpoint" else calls
    errors = [np.sqrt(np.mean((one(int(n)) - exact) ** 2)) for n in steps]
    print(f"{name:16} " + "  ".join(f"{error:.4f}" for error in errors))
    plt.loglog(calls, errors, "o-", label=name)
plt.xticks(calls, calls)
plt.minorticks_off()
plt.xlabel("calls of the net")
plt.ylabel("distance to the exact pictures")
plt.legend()
plt.show()

# %% [markdown]
# A line that lies lower is nearer for the same work. It is one small model and twenty pictures, so try your own before you
# believe it. From top to bottom, with 4 calls of the net: DDIM, DPM-Solver++, ours; and below them the exact pictures.

# %%
few = [draw["DDIM"](4), draw["DPM-Solver++ 2M"](4), draw["our midpoint"](2), exact]
Pictures(grid(np.concatenate([one[:10] for one in few]), columns=10)[None])

# %% [markdown]
# ## Idea 2: what the loss pays attention to
#
# Training draws a time, adds that much noise, and squares the error. A weight says how much each time counts. Ours counts
# pictures that are almost all noise more, where it is decided which digit it will be, and almost clean ones less.
#
# A fair test needs a control: we train on from the same weights twice, as long, on the same data, once with the usual
# weight and once with ours.

# %%
import optax

from flaxgen.data import Order, batches, open_source, unit_range
from flaxgen.diffusion import losses, weighting
from flaxgen.family.denoising import make_apply
from flaxgen.family.process import make_prediction, make_time_input
from flaxgen.train.state import init_state, make_train_step

apply, prediction, time_input = make_apply(config.net), make_prediction(config.process), make_time_input(config.process)


def noisy_matters(prediction, alpha, sigma):
    return 4 * sigma**8


def tune(weight, steps=80):
    loss = losses.denoising_loss(
        apply,
        schedule,
        prediction,
        time_input,
        sample_time=weighting.table_time(1000),
        objective=losses.weighted_mse(prediction, weight),
        inputs=lambda batch, key: (unit_range(batch["image"]), {"label": batch["label"]}),
    )
    tx = optax.adam(3e-4)
    step = jax.jit(make_train_step(losses.per_example(loss), tx, ema_decay=lambda n: jnp.float32(0.95)))
    state = init_state(model.params, tx)
    data = batches(open_source(config.data), Order(1, 64), start_step=0, fields=("image", "label"))
    for _ in range(steps):
        state, _ = step(state, next(data), jax.random.key(2))
    return state.ema_params


usual, ours = tune(weighting.simple), tune(noisy_matters)

# %% [markdown]
# The error on digits that training has never seen, for each amount of noise, as a share of the control's error. Below 1 our
# weight helped, above 1 it cost.

# %%
test = open_source(Data(source="digits", split="test", image_size=8, channels=1))
shown = [test[i] for i in range(256)]
x0 = unit_range(jnp.stack([jnp.asarray(one["image"]) for one in shown]))
label = jnp.asarray([one["label"] for one in shown])


@jax.jit
def error(params, t):
    noised = losses.add_noise(x0, schedule, t, jax.random.key(3))
    out = apply(params, noised.x, losses.net_time(time_input, noised), {"label": label}, None)
    return jnp.mean((out - noised.eps) ** 2)


levels = np.linspace(0.1, 1.0, 10, dtype=np.float32)
share = [float(error(ours, t) / error(usual, t)) for t in levels]
plt.figure(figsize=(6, 2.5))
plt.plot(levels, share, "o-")
plt.axhline(1, color="0.7")
plt.xlabel("time: 0 is clean, 1 is all noise")
plt.ylabel("our error / usual")
plt.show()

# %% [markdown]
# ## Idea 3: guidance
#
# Guidance makes a denoiser of a denoiser. The usual one leads away from "no digit in particular". Ours leads away from one
# other digit: draw a 3 that is not an 8. It is four lines.


# %%
def rather_than(wanted, unwanted, scale):
    def guided(x, t):
        a, b = wanted(x, t), unwanted(x, t)
        return a._replace(x0=a.x0 + scale * (a.x0 - b.x0))

    return guided


@jax.jit
def threes(scale):
    guided = guidance.clip_x0(rather_than(model.denoiser(label=3), model.denoiser(label=8), scale))
    sampler = samplers.dpmpp_2m(schedule)
    return samplers.sample(sampler, guided, noise[:10], times.trailing(20, 1000), jax.random.key(4))


rows = [np.asarray(threes(scale)) for scale in (0.0, 1.0, 3.0)]
Pictures(grid(np.concatenate(rows), columns=10)[None])

# %% [markdown]
# The first row is without guidance, the next two with more and more. Too much of it makes every 3 the same.
#
# `docs/guide.md` has the same ideas in short, with edits and losses, and `docs/design.md` says why functions are all there
# is.
