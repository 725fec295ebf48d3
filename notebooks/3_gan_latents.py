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
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/flaxgen/blob/main/notebooks/3_gan_latents.ipynb)
#
# # A GAN, and its latents
#
# In a GAN two nets play a game. The generator draws, the discriminator says which pictures are real, and each gets better
# because the other does. A trained generator is quick, one pass a picture, and its latents can be explored: walked through,
# pulled towards the average, mixed, and searched. We train a small StyleGAN2 on pictures of balls and do all four.

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
# ## Pictures
#
# We draw 400 balls ourselves: each has a place, a size and a colour of its own. That is all there is to know, so we can see
# whether the generator finds it out. Nobody tells it of places, sizes or colours.

# %%
import colorsys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw


def ball(x, y, radius, hue):
    picture = Image.new("RGB", (128, 128), (24, 24, 32))
    colour = tuple(round(255 * c) for c in colorsys.hsv_to_rgb(hue, 0.75, 1.0))
    ImageDraw.Draw(picture).ellipse((x - radius, y - radius, x + radius, y + radius), colour)
    return picture


rng, folder = np.random.default_rng(0), Path("balls")
folder.mkdir(exist_ok=True)
for i in range(400):
    x, y = rng.uniform(36, 92, 2)
    ball(x, y, rng.uniform(20, 36), rng.uniform(0, 1)).save(folder / f"{i:03}.png")

# %% [markdown]
# ## Train
#
# StyleGAN2 first turns noise z into a style w, and draws from w. R1, a penalty on the discriminator's slope, keeps the game
# calm.

# %%
import flaxgen
from flaxgen import verbs
from flaxgen.data import Data
from flaxgen.nets.stylegan2 import Generator
from flaxgen.nets.stylegan2_discriminator import Discriminator
from flaxgen.train.optim import Optimizer
from flaxgen.zoo.gan import Config, HalfLife, Regularizers

adam = Optimizer(learning_rate=2.5e-3, beta1=0.0, beta2=0.99, clip=0.0)
config = Config(
    seed=0,
    steps=800,
    batch_size=16,
    log_every=50,
    preview_every=0,
    data=Data(source="folder", path=str(folder), image_size=16, threads=2),
    generator=Generator(image_size=16, latent_dim=32, style_dim=32, mapping_depth=2, channel_base=256, channel_max=32),
    discriminator=Discriminator(image_size=16, channel_base=256, channel_max=32, group=4),
    generator_optimizer=adam,
    discriminator_optimizer=adam,
    regularizers=Regularizers(r1=0.05, interval=16),
    average=HalfLife(images=2_000),
)

# %% [markdown]
# On an accelerator take [`experiments/stylegan2_ada_folder.py`](../experiments/stylegan2_ada_folder.py) with pictures of
# your own; it chooses sizes as NVlabs do. Published networks of theirs can be imported (`docs/gan.md`).

# %%
state = verbs.train(config, "runs/gan")

# %% [markdown]
# A GAN has no loss that falls. What to look at is whether the generator draws all kinds of pictures: `diversity` is about 1
# if it does, and falls towards 0 if it has lost some.

# %%
import matplotlib.pyplot as plt

from flaxgen.measure.curves import read_run

curve = read_run(Path("runs/gan")).curves["diversity"]
plt.figure(figsize=(6, 2.5))
plt.plot(curve.steps, curve.values)
plt.ylim(bottom=0)
plt.xlabel("step")
plt.ylabel("diversity")
plt.show()

# %% [markdown]
# Left: drawn. Right: real.

# %%
model = flaxgen.load("runs/gan")
model.sample(num=40, seed=0, beside_data=True)

# %% [markdown]
# ## A walk
#
# Samples have numbers, counted along the rows from 0. A walk visits some of them and comes back, in a straight line through
# w. In between are balls too, which move and change colour. A fade would show two balls at once.

# %%
walk = model.interpolate(between=(0, 1, 2, 3), frames=40, fps=10)
walk.save("walk.gif", force=True)

import IPython.display

IPython.display.Image(filename="walk.gif", width=160)

# %%
walk

# %% [markdown]
# ## Truncation
#
# Strange pictures come from styles far from the average. Truncation pulls every style towards it: the balls get cleaner
# and more alike. The rows have 1 (none), 0.7, 0.5, 0.3 and 0 of the distance left; the last row is the average itself.

# %%
import jax

from flaxgen.family.pictures import Pictures
from flaxgen.zoo.gan import latents

found = latents.find_latents(model, jax.random.key(0), range(10))
rows = latents.truncation_rows(model, found, (1.0, 0.7, 0.5, 0.3, 0.0))
Pictures(latents.show_rows(rows)[None])

# %% [markdown]
# ## Mixing styles
#
# Every layer gets a style. Take the coarse layers' from one picture and the rest from another: the left column gives the
# fine layers, the top row the coarse ones. Here the coarse layers decide where the ball is, and the fine ones its colour.

# %%
a, b = latents.take(found, range(4)), latents.take(found, range(4, 9))
Pictures(latents.show_rows(latents.mixing_rows(model, a, b, range(3)))[None])

# %% [markdown]
# ## Project
#
# Where in w is a given picture? Start at the average and walk downhill until the drawing looks like it. Left a ball that
# training never saw, right what the generator can do.

# %%
projected = model.project(ball(50, 80, 30, 0.6), steps=150)
print(projected.note)
projected

# %% [markdown]
# A generator cannot come near what it has never learned. So projection is also a test: here are two balls in one picture.

# %%
two = np.maximum(np.asarray(ball(36, 64, 22, 0.0)), np.asarray(ball(92, 64, 22, 0.35)))
stranger = model.project(two, steps=150)
print(stranger.note)
stranger

# %% [markdown]
# The code that was found is a latent like any other. Here is the way from the first ball that we projected to sample 0.

# %%
code = projected.extra["latent"]
ends = latents.Latents(np.stack([code, found.codes[0]]))
way = latents.interpolate(ends, 8, loop=False)
Pictures(latents.show_rows(latents.synthesize(model, way)[None])[None])

# %% [markdown]
# `docs/gan.md` has directions in w, the command line for all of this, and what was measured of the games.
