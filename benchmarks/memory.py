"""Peak memory of a process that draws with a model of Stable Diffusion's published shapes, whole and a part at a time.

    python -m benchmarks.memory [--shape v1|xl] [--size 512] [--steps 1] [--json FILE]

The model is written into a temporary folder with weights of zeros, in half precision as people have them: what memory
holds follows from shapes and not from values, and the picture is grey. Each figure is the largest resident set of one
process of `flaxgen draw`, as the system counts it, with weights, programs and the interpreter. The same draw runs once
before without being counted, so that what is counted compiles nothing. "parts" are the weights of each part in float32,
as they are computed with.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flaxgen.data import Data
from flaxgen.data.tokenize import train_bpe
from flaxgen.nets.autoencoder import Autoencoder
from flaxgen.nets.clip import CLIP, TextTower
from flaxgen.nets.published import STABLE_DIFFUSION_1, STABLE_DIFFUSION_XL
from flaxgen.weights.autoencoder_config import Latents
from flaxgen.zoo import autoencoder, clip, latent

GIB = 2**30
CAPTION, CONTEXT = "a red circle", 77
NETS = {"v1": STABLE_DIFFUSION_1, "xl": STABLE_DIFFUSION_XL}
LARGE = CLIP(None, TextTower(), 768, projected=False)
LARGER = CLIP(None, TextTower(width=1280, depth=32, heads=20, activation="gelu"), 1280)
TEXTS = {"v1": (LARGE,), "xl": (LARGE, LARGER)}


def write(shape: str, folder: Path) -> dict[str, float]:
    """Writes the model; the GiB of each part's weights in float32."""
    run: dict[str, Any] = {"seed": 0, "steps": 1, "batch_size": 1, "data": Data(source="folder")}
    tokenizer = {clip.TOKENIZER: train_bpe([CAPTION], 300, CONTEXT).to_json().encode()}
    xl = {"sizes": 6, "text": latent.Text(skip=1, normed=False)} if shape == "xl" else {}
    parts: dict[str, tuple] = {
        "autoencoder": (
            autoencoder.FAMILY,
            autoencoder.Config(**run, net=Autoencoder(image_size=512), bottleneck=autoencoder.Gaussian(),
                               latents=Latents(scaling_factor=0.18215)),
            {},
        ),
        "denoiser": (latent.FAMILY, latent.Config(**run, net=NETS[shape], context=CONTEXT, **xl), {}),
        **{
            name: (clip.FAMILY, clip.Config(**run, net=net, normalise=False), tokenizer)
            for name, net in zip(("clip", "clip_2"), TEXTS[shape], strict=False)
        },
    }  # fmt: skip
    sizes = {}
    for name, (family, config, files) in parts.items():
        like = family.abstract_params(config)
        zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float16), like)
        family.write_model(folder / name, config, zeros, 0, files)
        sizes[name] = sum(leaf.size for leaf in jax.tree.leaves(like)) * 4 / GIB
    latent.WHOLE.write_index(folder, tuple(parts))
    return sizes


def peak(model: Path, size: int, steps: int, more: tuple[str, ...] = ()) -> float:
    """The most GiB that a process held which drew one picture."""
    command = [sys.executable, "-m", "flaxgen", "draw", CAPTION, "--model", str(model), "--num", "1",
               "--steps", str(steps), "--width", str(size), "--height", str(size),
               "--out", str(model.parent / "drawn.png"), "--force", *more]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: ended with {process.returncode}")
    return used.ru_maxrss * 1024 / GIB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(NETS), default="v1")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        model.mkdir()
        result: dict[str, Any] = {"parts": write(given.shape, model)}
        for name, more in (("whole", ()), ("sequential", ("--sequential",))):
            peak(model, given.size, given.steps, more)
            result[name] = peak(model, given.size, given.steps, more)
    text = json.dumps(result, indent=2)
    print(text)
    if given.json:
        given.json.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
