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
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/flaxgen/blob/main/notebooks/1_draw.ipynb)
#
# # Draw, vary, blend, edit
#
# flaxgen comes with a small model that draws coloured shapes from a caption. It is built like DALL-E 2: CLIP reads the
# caption, a prior guesses what a picture of it looks like to CLIP, a decoder draws that picture at 32 pixels, and two
# upsamplers bring it to 128. It is small enough for a laptop, and everything below works the same with a large model.

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
# ## Draw
#
# `flaxgen.load()` gives the model that comes along. What it can be asked are its methods, and `help(model.draw)` explains
# every argument of one. The first call compiles, which takes a while; later ones of the same size are quick.

# %%
import flaxgen

model = flaxgen.load()
model

# %%
circle = model.draw("a red circle above a blue square", num=4, seed=0)
circle

# %% [markdown]
# The seed decides what you get: the same seed gives the same pictures, and picture 2 of four is also picture 2 of twenty.
# What comes back behaves like a list. `circle[0]` is one picture, `circle.images` holds the pixels, and `circle.scores`
# says how well CLIP thinks each picture fits the caption, 1 being best.

# %%
print(circle.images.shape, circle.images.dtype)
print("CLIP:", circle.scores)

# %% [markdown]
# ## Guidance
#
# Guidance pushes the decoder towards the caption. At 1 there is none. More makes the caption hold more often, and makes the
# pictures more alike. Here is one caption without guidance and with much of it.

# %%
caption = "a small green ring to the left of a large purple cross"
weak = model.draw(caption, num=4, seed=1, guidance=1.0)
weak

# %%
strong = model.draw(caption, num=4, seed=1, guidance=6.0)
strong

# %% [markdown]
# With shapes we need not trust our eyes alone: `scene_oracle` finds the shapes in a picture and checks a caption. Four
# pictures are too few to say which guidance is better; `docs/unclip.md` has the curve for many.

# %%
from flaxgen.metrics import scene_oracle

for name, drawn in (("guidance 1", weak), ("guidance 6", strong)):
    right = sum(scene_oracle.holds(image, caption) for image in drawn.images)
    print(f"{name}: the caption holds in {right} of {len(drawn)}")

# %% [markdown]
# ## Candidates
#
# If a caption is hard, draw several pictures and keep the best. `candidates=4` draws four, lets CLIP choose, and gives you
# that one.

# %%
best = model.draw(caption, num=1, candidates=4, seed=2)
print("CLIP:", best.scores)
best

# %% [markdown]
# ## Vary
#
# Take any picture, and draw others that mean the same to CLIP. A file name, an array or a PIL image will do; here it is the
# first picture from above.

# %%
varied = model.vary(circle[0], num=4, seed=3)
varied

# %%
kept = sum(scene_oracle.holds(image, "a red circle above a blue square") for image in varied.images)
print(f"still a red circle above a blue square: {kept} of {len(varied)}")

# %% [markdown]
# Where it is not, colours and shapes have changed partners: an embedding says better what is there than what belongs to
# what. `invert=True, eta=0.5` starts from the picture's own noise and stays nearer to it, and `candidates=2` helps again.

# %% [markdown]
# ## Blend
#
# Two pictures have a way between them. Both ends are real pictures, what lies between is drawn.

# %%
triangle = model.draw("one big yellow triangle", num=4, seed=0)
model.blend(circle[0], triangle[0], num=4)

# %% [markdown]
# ## Edit with words
#
# Say what the picture shows, and what it should show instead. The difference of the two captions moves the picture. From
# left to right the edit gets stronger.

# %%
model.edit(triangle[0], caption_from="a yellow triangle", caption_to="a green triangle", num=4)

# %% [markdown]
# ## Inpaint
#
# Paint a mask, white where something new shall be, and say what belongs there. Every pixel outside the mask stays as it is.
# We cover the lower half, where the blue square is.

# %%
import numpy as np

mask = np.zeros((128, 128, 1), np.uint8)
mask[64:] = 255
painted = model.inpaint(circle[0], mask, "a red circle above a green cross", whole=True, num=4, seed=4)
painted

# %%
outside = mask[..., 0] == 0
print("pixels changed outside the mask:", int((painted.images[:, outside] != circle.images[0][outside]).sum()))

# %% [markdown]
# ## A picture knows how it was made
#
# A saved picture carries its whole request inside the file, with the model and a hash of its weights. `model.again` reads
# that and draws it once more, the same to the last pixel. On the command line these are `flaxgen show` and `flaxgen again`.

# %%
from flaxgen.family.pictures import read_about

path = circle.save("circle.png", force=True)
print(read_about(path)["request"])
print("the same pixels:", bool((model.again(path).images == circle.images).all()))

# %% [markdown]
# ## What it does not know
#
# The model was shown about 40 words: six colours, five shapes, two sizes, and where things are. Everything else is noise to
# it. It draws something all the same, so ask first which words it has never met. Numbers and plurals are among them.

# %%
for caption in ("a corgi in a top hat", "two green circles"):
    print(caption, "-> never seen:", ", ".join(model.unseen_words(model.verbs["draw"](captions=caption))) or "none")

model.draw(("a corgi in a top hat", "two green circles"), num=2, seed=0)

# %% [markdown]
# ## On a real accelerator
#
# Nothing above has to change. What does change is how much you can ask for at once: on a TPU v5e or a GPU try
# `num=256`, or `candidates=32`. With several devices, spread the pictures over them:
#
# ```python
# from flaxgen import parallel
#
# model = flaxgen.load(plan=parallel.make_plan("mesh"))
# model.draw("a red circle above a blue square", num=1024)
# ```
#
# Next: notebook 4 trains such a model on your captions, and notebook 5 loads Stable Diffusion.
