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
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/flaxgen/blob/main/notebooks/4_unclip.ipynb)
#
# # unCLIP from nothing, on your captions
#
# Notebook 1 draws with a model like DALL-E 2 that somebody trained. Here we train one, from nothing, on pictures with
# captions. It has three stages, and each learns one thing:
#
# 1. **CLIP** learns which caption belongs to which picture. It turns both into a few numbers, an embedding.
# 2. The **prior** learns to guess a picture's embedding from a caption.
# 3. The **decoder** learns to draw a picture that has a given embedding.
#
# Everything is tiny, so that it takes a minute or two on a CPU. The stages, and the commands, are those of the real thing.

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
# ## Pictures with captions
#
# A data set is a folder of pictures, and a file `metadata.jsonl` with a line for each: its name and its caption. We draw
# ourselves one: three shapes in four colours. Two combinations are left out on purpose, a green triangle and a blue circle.
# Will the model draw what it has never seen?
#
# If you have a folder of your own, put its path into `PICTURES` and skip this cell.

# %%
import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

PICTURES = Path("pictures")
COLOURS = {"red": (222, 36, 40), "green": (44, 160, 60), "blue": (32, 64, 220), "yellow": (242, 204, 32)}
SHAPES = ("circle", "square", "triangle")
NEVER = ("green triangle", "blue circle")

PICTURES.mkdir(exist_ok=True)
rng, lines = np.random.default_rng(0), []
kinds = [(colour, shape) for colour in COLOURS for shape in SHAPES if f"{colour} {shape}" not in NEVER]
for i in range(400):
    colour, shape = kinds[i % len(kinds)]
    picture = Image.new("RGB", (64, 64), (236, 236, 236))
    draw, (x, y), r = ImageDraw.Draw(picture), rng.integers(28, 37, 2), rng.integers(18, 23)
    if shape == "circle":
        draw.ellipse((x - r, y - r, x + r, y + r), COLOURS[colour])
    elif shape == "square":
        draw.rectangle((x - r, y - r, x + r, y + r), COLOURS[colour])
    else:
        draw.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], COLOURS[colour])
    picture.save(PICTURES / f"{i:03}.png")
    lines.append(json.dumps({"file_name": f"{i:03}.png", "text": f"a {colour} {shape}"}))
(PICTURES / "metadata.jsonl").write_text("\n".join(lines))

# %%
from flaxgen.data import Data, open_source
from flaxgen.family.pictures import Pictures

SIZE = 16
data = Data(source="folder", path=str(PICTURES), image_size=SIZE, threads=2)
source = open_source(data)
shown = [source[i] for i in range(10)]
print([one["text"] for one in shown])
Pictures(np.stack([one["image"] for one in shown]), layout="strip")

# %% [markdown]
# ## Stage 1: CLIP
#
# In every batch CLIP has to find the caption of each picture among all captions of the batch, and the other way round. Its
# tokenizer is trained on your captions first.

# %%
import flaxgen
from flaxgen import verbs
from flaxgen.nets.clip import CLIP, TextTower, VisionTower
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.zoo import clip

DIM, WIDTH, CONTEXT, TOKENS = 32, 64, 12, 300
adam = Optimizer(name="adamw", learning_rate=2e-3, weight_decay=0.01, warmup=20, decay="cosine")
common = {"seed": 0, "data": data, "optimizer": adam, "ema": Ema(decay=0.98), "log_every": 25, "preview_every": 0}

clip_config = clip.Config(
    **common,
    steps=120,
    batch_size=32,
    net=CLIP(
        vision=VisionTower(image_size=SIZE, patch=4, width=WIDTH, depth=2, heads=4, position_std=0.5),
        text=TextTower(
            vocab_size=TOKENS, context=CONTEXT, width=WIDTH, depth=1, heads=4, token_std=0.5, position_std=0.5
        ),
        embedding_dim=DIM,
    ),
    vocabulary=clip.Vocabulary(size=TOKENS),
)
state = verbs.train(clip_config, "runs/clip")

# %% [markdown]
# What has it learned? Each row is a picture, each column a caption, and bright means that CLIP finds they belong together.
# Rows and columns are in the same order, so the diagonal should shine.

# %%
import matplotlib.pyplot as plt

trained = flaxgen.load("runs/clip")
names = [one["text"] for one in shown]
cosines = trained.similarity(np.stack([one["image"] for one in shown]), names)
plt.figure(figsize=(4, 4))
plt.imshow(cosines)
plt.xticks(range(len(names)), names, rotation=90)
plt.yticks(range(len(names)), names)
plt.show()

every = [source[i] for i in range(len(source))]
found = trained.retrieval(np.stack([one["image"] for one in every]), [one["text"] for one in every])
print(f"of {len(every)} pictures find their caption: {found:.0%}")

# %% [markdown]
# ## Stage 2: the prior
#
# A diffusion model, but of embeddings instead of pictures. The embeddings of all pictures and captions are computed once and
# kept on disk beside the CLIP.

# %%
from dataclasses import replace

from flaxgen.family.denoising import Objective
from flaxgen.family.process import Process
from flaxgen.family.sampling import Sampling
from flaxgen.nets.prior import DiffusionPrior
from flaxgen.zoo import prior

prior_config = prior.Config(
    **common,
    steps=250,
    batch_size=64,
    clip="runs/clip",
    net=DiffusionPrior(embedding_dim=DIM, text_dim=WIDTH, context=CONTEXT, width=64, depth=2, heads=4),
    objective=Objective(condition_dropout=0.1),
    sampling=Sampling(sampler="ddpm", steps=25, grid="linspace", limit=10.0, guidance=2.0, batch=64),
)
state = verbs.train(prior_config, "runs/prior")

# %% [markdown]
# ## Stage 3: the decoder
#
# A diffusion model of pictures that is told a CLIP embedding, and sometimes the caption. A little noise on the embeddings
# teaches it to put up with what the prior guesses.

# %%
from flaxgen.nets.attention import TokenAttention
from flaxgen.nets.decoder import Decoder
from flaxgen.nets.unet import UNet
from flaxgen.zoo import decoder

unet = UNet(
    image_size=SIZE,
    patch=4,
    positions=True,
    channels=96,
    multipliers=(1,),
    depth=1,
    attention=(TokenAttention(head_channels=32),),
    middle="none",
    time_channels=64,
    scale_shift=True,
    added=True,
    token_dim=WIDTH,
)
decoder_config = decoder.Config(
    **{**common, "optimizer": replace(adam, learning_rate=1.5e-3)},
    steps=320,
    batch_size=32,
    clip="runs/clip",
    net=Decoder(unet=unet, embedding_dim=DIM, text_dim=WIDTH, null_text=True),
    context=CONTEXT,
    process=Process(schedule="cosine", prediction="x0"),
    objective=Objective(weight="snr_plus_one"),
    text_dropout=0.5,
    embedding_noise=0.3,
    sampling=Sampling(sampler="ddim", steps=20, guidance=2.0, batch=32),
)
state = verbs.train(decoder_config, "runs/decoder")

# %% [markdown]
# ## Put together, and draw
#
# `compose` makes one model directory of the three.

# %%
verbs.compose("models/mine", {name: Path("runs") / name for name in ("clip", "prior", "decoder")})
model = flaxgen.load("models/mine")
seen = model.draw(("a red circle", "a blue square", "a yellow triangle", "a green square"), num=6, seed=0)
seen

# %% [markdown]
# And now the two that it has never seen:

# %%
novel = model.draw(("a green triangle", "a blue circle"), num=12, seed=0)
novel

# %% [markdown]
# When we ran it, the triangles came out green or yellow-green, and the circles became blue triangles. With ten kinds of
# pictures CLIP need not know colour and shape apart: "blue triangle" can be one thing to it. More kinds help against that,
# more steps do not. The model of notebook 1 has seen thousands of kinds, and draws most of those that it never met
# (`docs/unclip.md`).
#
# Which stage is to blame if one is wrong? `through="text"` leaves the prior out and tells the decoder the caption's own embedding.
# If that is right and the other wrong, it was the prior.

# %%
model.draw(("a green triangle", "a blue circle"), num=12, seed=0, through="text")

# %% [markdown]
# ## At size
#
# The model of notebook 1 was trained like this, with two upsamplers more, in some ten hours on two cores. Its
# experiments are in [`experiments/unclip_scenes/`](../experiments/unclip_scenes), and the sizes of the paper in
# [`experiments/unclip/`](../experiments/unclip). With pictures of your own:
#
# ```
# DATA="data.source=folder data.path=PICTURES"
# flaxgen train experiments/unclip_scenes/clip.py --workdir runs/clip --set $DATA false_captions=0
# flaxgen train experiments/unclip_scenes/prior.py --workdir runs/prior --set $DATA clip=runs/clip
# flaxgen train experiments/unclip_scenes/decoder.py --workdir runs/decoder --set $DATA clip=runs/clip
# flaxgen train experiments/unclip_scenes/upsampler_64.py --workdir runs/up1 --set $DATA
# flaxgen compose models/mine clip=runs/clip prior=runs/prior decoder=runs/decoder upsampler_1=runs/up1 --half
# ```
#
# | | here | scenes | DALL-E 2 |
# |---|---|---|---|
# | CLIP, batch and steps | 32 x 120 | 128 x 3,656 | 32,768 x 390,625 |
# | prior | 64 x 250 | 256 x 2,200 | 4,096 x 600,000 |
# | decoder | 32 x 320 | 64 x 31,700 | 2,048 x 800,000 |
#
# On several devices add `--parallel mesh` (notebook 8). `docs/unclip.md` tells what helped and what did not.
