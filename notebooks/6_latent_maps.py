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
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/flaxgen/blob/main/notebooks/6_latent_maps.ipynb)
#
# # Autoencoders, and maps of their latents
#
# An autoencoder squeezes a picture into a few numbers, its latents, and draws the picture again from them. The numbers are
# worth a look: pictures that are alike lie side by side, and there is a way from one picture to another. We train a small
# variational autoencoder on handwritten digits, walk through its latents, and draw a map of them. At the end there is one
# whose latents are not numbers but codes.

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
# Each digit, 64 pixels, becomes 8 numbers. The bottleneck says what these are like: `Gaussian` asks for numbers that
# look like draws from a bell curve, so that new ones can be drawn later.

# %%
import flaxgen
from flaxgen import verbs
from flaxgen.data import Data
from flaxgen.nets.dense_autoencoder import DenseAutoencoder
from flaxgen.train.optim import Optimizer
from flaxgen.zoo.autoencoder import Config, Gaussian, Reconstruction

config = Config(
    seed=0,
    steps=1500,
    batch_size=64,
    preview_every=0,
    data=Data(source="digits", image_size=8, channels=1, threads=2),
    net=DenseAutoencoder(
        image_size=8, in_channels=1, out_channels=2, widths=(256, 128), latent_channels=8, moments=True
    ),
    bottleneck=Gaussian(),
    reconstruction=Reconstruction(loss="logistic", levels=17),
    optimizer=Optimizer(learning_rate=2e-3, decay="cosine"),
)

# %% [markdown]
# On an accelerator take [`experiments/kl_f8.py`](../experiments/kl_f8.py), the autoencoder of Stable Diffusion, with
# pictures of your own: `data=Data(source="folder", path="PICTURES", image_size=256)`.

# %%
verbs.train(config, "runs/vae")
vae = flaxgen.load("runs/vae")

# %% [markdown]
# ## Reconstruct
#
# Digits that training never saw: on the left as they come back, on the right as they were. The note has the figures.

# %%
from flaxgen.zoo.autoencoder.requests import Reconstruct

back = vae.perform(Reconstruct(num=25))
print(back.note)
back

# %% [markdown]
# ## Draw
#
# Numbers from a bell curve become digits. Some are between two digits, because a bell curve has no gaps where there is no
# digit. A diffusion model on the latents would know where the digits are; that is what Stable Diffusion does.

# %%
vae.sample(num=40, seed=1)

# %% [markdown]
# ## Walk
#
# Between two digits there is a straight line in the latents. Each row goes from one test digit to another: 0 to 4, 4 to 3,
# and 3 to 6.

# %%
import numpy as np

from flaxgen.data import open_source
from flaxgen.family.pictures import Pictures
from flaxgen.family.sheets import grid

test = open_source(Data(source="digits", split="test", image_size=8, channels=1))
first_of = {test[i]["label"].item(): test[i]["image"] for i in reversed(range(len(test)))}
walk = vae.interpolate(np.stack([first_of[digit] for digit in (0, 4, 3, 6)]), frames=34, once=True).images
Pictures(grid(np.concatenate([walk[11 * leg : 11 * leg + 12] for leg in range(3)]), columns=12)[None])

# %% [markdown]
# The same line through the pixels would only fade one digit out and the other in. Above it is the model's way from 0 to 4,
# below the pixels'.

# %%
first, last = walk[0].astype(float), walk[11].astype(float)
fade = [np.round((1 - share) * first + share * last).astype(np.uint8) for share in np.linspace(0, 1, 12)]
Pictures(grid(np.concatenate([walk[:12], np.stack(fade)]), columns=12)[None])

# %% [markdown]
# ## A map
#
# `map` puts digits where their latents are, on the plane in which they differ most, with a frame in the colour of their
# label. The second picture is what the decoder draws at every place of that plane, so you can see what lies between.

# %%
vae.map(num=300)

# %% [markdown]
# Two of eight directions are a narrow view, and the axes say how much of the spread they hold. `method="tsne"` bends the
# plane, so that neighbours stay neighbours; it has no way back to pictures, and its distances mean little.

# %% [markdown]
# ## What is unusual?
#
# What an autoencoder has never seen comes back badly. Here are five test digits, and their negatives. The score
# is the share of training digits of which less is lost: near 1 is suspicious. Each picture shows what went in, what came
# back, and the difference.

# %%
usual = back.beside[:5]
strange = vae.anomaly(np.concatenate([usual, 255 - usual]))
print("as they are: ", [round(score, 2) for score in strange.scores[:5]])
print("as negatives:", [round(score, 2) for score in strange.scores[5:]])
strange

# %% [markdown]
# ## Codes instead of numbers
#
# A VQ-VAE keeps a table of vectors, and writes each place of its map as the number of the nearest one: a picture becomes a
# page of text. flaxgen comes with one for the pictures of notebook 1, with a page of 8 x 8 codes out of 256.

# %%
codec = flaxgen.load("scene-codes")
scenes = codec.perform(Reconstruct(num=8))
print(scenes.note)
scenes

# %%
codes = codec.encode_codes(scenes.beside)
print(codes.shape)
codes[0]

# %% [markdown]
# A code says something about its own corner of the picture and little about the rest. So pages can be cut and pasted: the
# left half of one picture with the right half of another.

# %%
pasted = np.concatenate([codes[:, :, :4], np.roll(codes, 1, axis=0)[:, :, 4:]], axis=2)
Pictures(np.round((codec.decode_codes(pasted) + 1) * 127.5).clip(0, 255).astype(np.uint8))

# %% [markdown]
# A transformer that has learned which pages are likely draws new ones: that is DALL-E 1, and
# `flaxgen.load("dalle-scenes").draw("a red circle")` is a small one. `docs/codes.md` has all kinds of autoencoders, their
# priors, and what was measured.
