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
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/flaxgen/blob/main/notebooks/5_stable_diffusion.ipynb)
#
# # Stable Diffusion from the Hub, with a LoRA
#
# flaxgen reads Stable Diffusion 1, 2, XL and 3 as they lie on the Hugging Face Hub, without torch, and draws with them on a
# TPU or GPU. This notebook loads version 1.5, draws, varies and inpaints, then trains a LoRA: a small addition to the model
# that learns from a few pictures of yours.
#
# On Colab choose a TPU v5e or a GPU, under Runtime > Change runtime type. On a CPU it would take hours; there the notebook
# uses a **stand-in** of the same parts, so small that it draws blots of colour at 32 pixels. The code is the same, and what
# each step does can be seen; the pictures are not.

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

# %%
import os

import jax

STAND_IN = jax.default_backend() == "cpu" or "FLAXGEN_STAND_IN" in os.environ
SOURCE = "stable-diffusion-v1-5/stable-diffusion-v1-5"  # a Hub id, or a pipeline's folder
print("this is the stand-in" if STAND_IN else f"this is {SOURCE}, on a {jax.devices()[0].device_kind}")

# %% [markdown]
# ## Load
#
# `import_model` fetches only the files that it reads, about 2 GB with the half-precision variant, and writes a model directory.
# Its parts are a text encoder, an autoencoder and the denoiser. The stand-in gets the text encoder and the autoencoder of
# the drawn scenes that come with flaxgen (the latter without its codes), and a denoiser of random weights that is trained
# for 120 steps. You can skip how it is made.

# %%
from dataclasses import replace
from pathlib import Path

import flaxgen
from flaxgen import verbs
from flaxgen.data import Data
from flaxgen.family.denoising import Objective
from flaxgen.family.process import Process
from flaxgen.family.sampling import Sampling
from flaxgen.nets.attention import SpatialTransformer
from flaxgen.nets.unet import UNet
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.zoo.autoencoder import Bottleneck
from flaxgen.zoo.latent import Config, Text


def make_stand_in(target):
    codec = flaxgen.load("scene-codes")
    plain = replace(codec.config, bottleneck=Bottleneck())
    weights = {name: codec.params[name] for name in ("encoder", "decoder")}
    verbs.family_of(plain).write_model(Path("models/vae"), plain, weights, codec.step)
    reads = SpatialTransformer(heads=4, norm_groups=16)
    net = UNet(
        image_size=8,
        in_channels=64,
        out_channels=64,
        channels=64,
        multipliers=(1,),
        depth=1,
        attention=(reads,),
        middle="none",
        norm_groups=16,
        token_dim=128,
    )
    config = Config(
        seed=0,
        steps=120,
        batch_size=32,
        preview_every=0,
        data=Data(source="scenes", split="lesson1", image_size=32, size=512, threads=2),
        net=net,
        autoencoder="models/vae",
        clip=str(verbs.find("scenes") / "clip"),
        cache="cache",
        context=24,
        text=Text(masked=True),
        process=Process(schedule="cosine", prediction="v"),
        sampling=Sampling(steps=20, guidance=2.0, threshold="none", batch=4),
        optimizer=Optimizer(name="adamw", learning_rate=2e-3, warmup=20, decay="cosine"),
        ema=Ema(decay=0.97),
    )
    verbs.train(config, "runs/stand_in")
    parts = {"denoiser": "runs/stand_in", "autoencoder": config.autoencoder, "clip": config.clip}
    verbs.compose(target, {name: Path(path) for name, path in parts.items()})


if not Path("models/sd").exists():
    make_stand_in("models/sd") if STAND_IN else verbs.import_model(SOURCE, "models/sd", variant="fp16")
model = flaxgen.load("models/sd")
model

# %% [markdown]
# ## Draw
#
# The first picture compiles, which takes a minute or two with the large model. Steps, guidance, seeds and captions are then
# free to change.

# %%
CAPTION = "a big red circle" if STAND_IN else "a lighthouse on a cliff, evening light, oil painting"
first = model.draw(CAPTION, num=4, seed=0)
first

# %% [markdown]
# `negative` says what you do not want, `(word:1.4)` gives a word more weight, as in A1111's web interface, and `sampler`
# and `steps` are what they are called there. Another sampler is another program, and compiles.

# %%
more = {} if STAND_IN else {"negative": "blurry, text", "sampler": "dpmpp_2m_karras", "steps": 25}
model.draw(CAPTION.replace("red", "(red:1.4)").replace("lighthouse", "(lighthouse:1.4)"), num=4, seed=0, **more)

# %% [markdown]
# ## Vary
#
# `vary` puts noise on a picture and draws from there. `strength` is how far it may go: here a little, and much.

# %%
OTHER = "a big blue circle" if STAND_IN else "a lighthouse on a cliff, heavy snow, oil painting"
little = model.vary(first[0], caption=OTHER, strength=0.4, num=4, seed=1)
little

# %%
model.vary(first[0], caption=OTHER, strength=0.9, num=4, seed=1)

# %% [markdown]
# How much they differ from the picture they come from, in levels of 0 to 255:

# %%
import numpy as np

source = first.images[0].astype(float)
for strength in (0.4, 0.6, 0.9):
    varied = model.vary(first[0], caption=OTHER, strength=strength, num=4, seed=1).images
    print(f"strength {strength}: {np.abs(varied - source).mean():.1f}")

# %% [markdown]
# ## Train a LoRA
#
# A LoRA adds a small product of two thin matrices to the kernels of the denoiser's attention, and trains these alone. For
# version 1.5 that is 797,184 numbers beside 860 million. A folder with a `metadata.jsonl` of captions is all it needs; ten to
# thirty pictures of one style or one thing are usual. The pictures of this example are made here, and all of them are cyan.

# %%
import json

from PIL import Image

from flaxgen.data import open_source

PICTURES = Path("pictures")  # put your own folder here
if not PICTURES.exists():
    PICTURES.mkdir()
    scenes = open_source(Data(source="scenes", split="lesson1", image_size=512 if not STAND_IN else 32, size=3000))
    chosen = [one for one in map(scenes.__getitem__, range(3000)) if "cyan" in one["text"]][:24]
    for i, one in enumerate(chosen):
        Image.fromarray(one["image"]).save(PICTURES / f"{i:02}.png")
    lines = [{"file_name": f"{i:02}.png", "text": one["text"].replace("cyan", "red")} for i, one in enumerate(chosen)]
    (PICTURES / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))

# %% [markdown]
# We called every cyan thing red. So if the LoRA has learned from them, "red" becomes cyan.

# %%
from flaxgen.zoo.latent.lora import Lora, LoraConfig

base = model.parts["denoiser"].config
inherited = {name: getattr(base, name) for name in ("context", "text", "sizes", "process", "sampling")}
dtype = "float32" if STAND_IN else "bfloat16"
lora_config = LoraConfig(
    **inherited,
    seed=0,
    steps=60 if STAND_IN else 500,
    batch_size=8 if STAND_IN else 4,
    log_every=10,
    preview_every=0,
    base="models/sd/denoiser",
    autoencoder="models/sd/autoencoder",
    clip="models/sd/clip",
    cache="cache",
    lora=Lora(rank=8, alpha=8.0) if STAND_IN else Lora(rank=4, alpha=4.0),
    data=Data(source="folder", path=str(PICTURES), image_size=32 if STAND_IN else 512, threads=2),
    net=replace(base.net, dtype=dtype, remat=not STAND_IN),
    objective=Objective(),
    optimizer=Optimizer(name="adamw", learning_rate=1e-2 if STAND_IN else 1e-4, weight_decay=1e-2, decay="cosine"),
    ema=Ema(decay=0.0),
)
state = verbs.train(lora_config, "runs/lora")
verbs.export("runs/lora", "loras/mine", layout="peft")

# %% [markdown]
# The export is a file that diffusers reads too. It is given by name, with its strength; strengths compile nothing. The
# same seed, with the LoRA at 0, 0.5 and 1:

# %%
FILE = "loras/mine/pytorch_lora_weights.safetensors"
from flaxgen.family.pictures import Pictures

rows = [model.draw(CAPTION, num=4, seed=0, lora=f"{FILE}:{strength}").images for strength in (0.0, 0.5, 1.0)]
Pictures(np.concatenate(rows), layout="rows", captions=("LoRA 0", "LoRA 0.5", "LoRA 1"))

# %%
for strength, images in zip((0.0, 0.5, 1.0), rows, strict=True):
    print(f"LoRA {strength}: mean red, green, blue are", images.mean((0, 1, 2)).round().astype(int))

# %% [markdown]
# ## What to use where
#
# | machine | memory | what fits |
# |---|---|---|
# | Colab T4 | 16 GB | version 1.5: drawing, and a LoRA with `batch_size=1` |
# | Colab TPU v5e-1 | 16 GB | the same, in bfloat16 |
# | L4, A100, v5e-8 | 24 GB and more | XL, and `num=16` at once; several devices with `flaxgen.load(..., plan=parallel.make_plan("mesh"))` |
#
# These are sizes by their parameters, and were not run by us on those machines. `docs/latent.md` has ControlNets, the refiner,
# inpainting, training from nothing, and what was compared with diffusers.
