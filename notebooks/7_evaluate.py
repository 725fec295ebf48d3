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
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/flaxgen/blob/main/notebooks/7_evaluate.ipynb)
#
# # Evaluate honestly
#
# Numbers such as FID decide which paper is better, and they are easy to get wrong. Here we take sets of handwritten digits
# whose quality we know, because we made them, and look at what the numbers say of them. Then we check a model for copying
# its training data, and see what a CLIP score can and cannot tell.

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
# ## Bias: the same quality, another number
#
# Take two sets of real digits without a digit in common. Both are perfect, so a distance between them should be 0. We measure
# FID and KID for sets of different sizes, a few times each, on plain pixels. Papers measure on the features of a net; the
# arithmetic is the same.

# %%
import matplotlib.pyplot as plt
import numpy as np

from flaxgen.data import Data, open_source
from flaxgen.metrics import fid, mmd, moments, prdc

splits = [open_source(Data(source="digits", split=split, image_size=8, channels=1)) for split in ("train", "test")]
train, test = (np.stack([source[i]["image"] for i in range(len(source))]) for source in splits)
labels = np.array([splits[0][i]["label"] for i in range(len(splits[0]))])


def features(images):
    return images.reshape(len(images), -1).astype(np.float32) / 255


def distance(a, b):
    return fid.frechet_distance(moments.of([a]), moments.of([b]))


everything, rng = features(np.concatenate([train, test])), np.random.default_rng(0)
sizes, measured = [100, 200, 400, 800], {"FID": [], "KID": []}
for size in sizes:
    pairs = [rng.permutation(everything)[: 2 * size].reshape(2, size, -1) for _ in range(5)]
    measured["FID"].append([distance(a, b) for a, b in pairs])
    measured["KID"].append([mmd.polynomial_mmd(a, b) for a, b in pairs])

figure, panels = plt.subplots(1, 2, figsize=(9, 3))
for axes, (name, values) in zip(panels, measured.items(), strict=True):
    axes.plot(sizes, values, ".", color="0.6")
    axes.plot(sizes, np.mean(values, axis=1), "o-")
    axes.axhline(0, color="0.8")
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, sizes)
    axes.set_title(f"{name} between perfect sets")
    axes.set_xlabel("pictures in each set")
figure.tight_layout()
plt.show()
for size, values in zip(sizes, measured["FID"], strict=True):
    print(f"{size:4} pictures: FID {np.mean(values):.3f}, times their number {size * np.mean(values):.0f}")

# %% [markdown]
# FID falls about as 1 / n: its product with the number of pictures hardly changes. So two FIDs compare only at one number of
# pictures. KID has no such bias, but for few pictures its values scatter around 0.

# %% [markdown]
# ## Two failures, one number
#
# A model can fail in two ways: its pictures look wrong, or it draws only some kinds of them. FID is one number and does not
# say which. Precision is the share of drawn pictures that look real, recall the share of real ones that the model could
# draw. We make four "models" of 400 digits each:
#
# - **real**: other real digits,
# - **noisy**: real digits with noise on them,
# - **few kinds**: real digits, but no 5, 6, 7, 8 or 9,
# - **copies**: the same 20 digits again and again, with a little noise.

# %%
reference = features(test[:400])


def with_noise(images, amount):
    return np.clip(images + amount * rng.standard_normal(images.shape), 0, 255).astype(np.uint8)


models = {
    "real": train[:400],
    "noisy": with_noise(train[:400], 60),
    "few kinds": train[labels < 5][:400],
    "copies": with_noise(np.repeat(train[:20], 20, axis=0), 12),
}

print("             FID    precision  recall  density  coverage")
for name, images in models.items():
    drawn = features(images)
    pr, dc = prdc.precision_recall(reference, drawn), prdc.density_coverage(reference, drawn)
    print(
        f"{name:10} {distance(reference, drawn):6.2f}  {pr.precision:9.2f} {pr.recall:7.2f} {dc.density:8.2f}"
        f" {dc.coverage:9.2f}"
    )

# %%
from flaxgen.family.pictures import Pictures
from flaxgen.family.sheets import grid

Pictures(grid(np.concatenate([images[::20][:12] for images in models.values()]), columns=12)[None])

# %% [markdown]
# One row each, in the order of the table. The line of the real digits is what a perfect model would get: not 0 and not 1.
# Put that line beside every number of your own. And no column is safe alone: noise spreads the drawn digits so far apart
# that they seem to reach every real one, and the copies are all precise.

# %% [markdown]
# ## Is it only copying?
#
# A model that repeats its training data gets splendid numbers. The check is simple: for each drawn picture find the nearest
# training picture. New pictures of the same kind, such as the test set, say how near is normal. We train a small
# autoencoder that can draw, and compare it with a cheat that hands out training digits with a little noise.

# %%
import flaxgen
from flaxgen import verbs
from flaxgen.nets.dense_autoencoder import DenseAutoencoder
from flaxgen.train.optim import Optimizer
from flaxgen.zoo.autoencoder import Config, Gaussian, Reconstruction

config = Config(
    seed=0,
    steps=800,
    batch_size=64,
    preview_every=0,
    data=Data(source="digits", image_size=8, channels=1, threads=2),
    net=DenseAutoencoder(image_size=8, in_channels=1, out_channels=2, widths=(256, 128), moments=True),
    bottleneck=Gaussian(),
    reconstruction=Reconstruction(loss="logistic", levels=17),
    optimizer=Optimizer(learning_rate=2e-3, decay="cosine"),
)
verbs.train(config, "runs/vae")
drawn = flaxgen.load("runs/vae").sample(num=400, seed=0).images
cheat = with_noise(train[:400], 12)


# %%
def nearest(images):
    """The number of the nearest training picture of each, and how far it is."""
    a, b = features(images), features(train)
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    return squares.argmin(1), np.sqrt(np.maximum(squares.min(1), 0))


plt.figure(figsize=(7, 3))
for name, images in (("test set", test[:400]), ("autoencoder", drawn), ("cheat", cheat)):
    distances = nearest(images)[1]
    plt.hist(distances, bins=30, alpha=0.6, label=name)
    print(f"{name:12} median distance {np.median(distances):.2f}")
plt.xlabel("distance to the nearest training digit")
plt.legend()
plt.show()

# %% [markdown]
# The cheat sits far to the left of the test set: nearer than real new digits are. That is the alarm. To be sure, look: above
# drawn pictures, below the nearest training digit of each; six of the autoencoder, then six of the cheat.

# %%
chosen = np.concatenate([drawn[:6], cheat[:6]])
Pictures(grid(np.concatenate([chosen, train[nearest(chosen)[0]]]), columns=12)[None])

# %% [markdown]
# ## What a CLIP score can tell
#
# For pictures with captions, a CLIP score says how well the two go together: 100 times the cosine of their embeddings. The
# model from notebook 1 has a CLIP. We score true captions, captions with the two objects swapped, and captions of other
# pictures.

# %%
from flaxgen.metrics.clip_score import clip_scores

clip = flaxgen.load().parts["clip"]
scenes = open_source(Data(source="scenes", split="seen", image_size=32, size=2000))
pairs = [scenes[i] for i in range(200)]
pairs = [pair for pair in pairs if " left of " in pair["text"] or " above " in pair["text"]][:64]
pictures, captions = np.stack([pair["image"] for pair in pairs]), [pair["text"] for pair in pairs]
turned = [c.replace(" left of ", " right of ").replace(" above ", " below ") for c in captions]

embedded = clip.encode_image(pictures)
kinds = {"true": captions, "relation turned round": turned, "another picture's": captions[1:] + captions[:1]}
for name, said in kinds.items():
    scores = np.asarray(clip_scores(embedded, np.asarray(clip.encode_text(said).embedding)))
    print(f"{name:22} {scores.mean():5.1f}    for example: {said[0]}")

Pictures(pictures[:6], layout="strip")

# %% [markdown]
# This CLIP was trained to know left from right (`docs/unclip.md` tells how hard that was). Most published ones do not, and
# give a turned caption nearly the same score. And a CLIP that chose the pictures, as `candidates` does, must not be the one
# that grades them.
#
# ## On a real accelerator
#
# Papers use 50,000 pictures and Inception features. The command does it, on all devices, and goes on where it was stopped:
#
# ```
# flaxgen eval RUN --data own --metrics fid,kid,prec_recall --features inception:FILE --num 50000 --parallel mesh
# ```
#
# `docs/evaluation.md` says what each number means, and which of them compare with papers.
