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

GIB = 2**30
SHAPES = ("v1", "xl")
CAPTION, CONTEXT = "a red circle", 77


def write(shape: str, folder: Path) -> dict[str, float]:
    """Writes the model; the GiB of each part's weights in float32."""
    import jax
    import numpy as np

    from flaxgen.data import Data
    from flaxgen.data.tokenize import train_bpe
    from flaxgen.nets.autoencoder import Autoencoder
    from flaxgen.nets.clip import CLIP, TextTower
    from flaxgen.nets.published import STABLE_DIFFUSION_1, STABLE_DIFFUSION_XL
    from flaxgen.weights.autoencoder_config import Latents
    from flaxgen.zoo import autoencoder, clip, latent

    run: dict[str, Any] = {"seed": 0, "steps": 1, "batch_size": 1, "data": Data(source="folder")}
    own = {"bottleneck": autoencoder.Gaussian(), "latents": Latents(scaling_factor=0.18215)}
    texts = [CLIP(None, TextTower(), 768, projected=False)]
    net, more = STABLE_DIFFUSION_1, {}
    if shape == "xl":
        texts.append(CLIP(None, TextTower(width=1280, depth=32, heads=20, activation="gelu"), 1280))
        net, more = STABLE_DIFFUSION_XL, {"sizes": 6, "text": latent.Text(skip=1, normed=False)}
    tokenizer = {clip.TOKENIZER: train_bpe([CAPTION], 300, CONTEXT).to_json().encode()}
    parts: dict[str, tuple] = {
        "autoencoder": (autoencoder.FAMILY, autoencoder.Config(**run, net=Autoencoder(image_size=512), **own), {}),
        "denoiser": (latent.FAMILY, latent.Config(**run, net=net, context=CONTEXT, **more), {}),
        **{
            name: (clip.FAMILY, clip.Config(**run, net=text, normalise=False), tokenizer)
            for name, text in zip(("clip", "clip_2"), texts, strict=False)
        },
    }
    sizes = {}
    for name, (family, config, files) in parts.items():
        like = family.abstract_params(config)
        zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float16), like)
        family.write_model(folder / name, config, zeros, 0, files)
        sizes[name] = sum(leaf.size for leaf in jax.tree.leaves(like)) * 4 / GIB
    latent.WHOLE.write_index(folder, tuple(parts))
    return sizes


def peak(model: Path, size: int, steps: int, more: tuple[str, ...] = ()) -> float:
    """The most GiB that a process held which drew one picture; this one has to be small, as a child begins with what
    its parent holds."""
    command = [sys.executable, "-m", "flaxgen", "draw", CAPTION, "--model", str(model), "--num", "1",
               "--steps", str(steps), "--width", str(size), "--height", str(size),
               "--out", str(model.parent / "drawn.png"), "--force", *more]  # fmt: skip
    programs = {"FLAXGEN_CACHE": str(model.parent / "programs")}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, **programs})
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: ended with {process.returncode}")
    return used.ru_maxrss * 1024 / GIB


def measure(shape: str, size: int, steps: int) -> dict[str, Any]:
    """The GiB of the parts, and the peaks of a process that has all of them and of one that has one at a time."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        model.mkdir()
        written = [sys.executable, "-m", "benchmarks.memory", "--shape", shape, "--write", str(model)]
        result: dict[str, Any] = {"parts": json.loads(subprocess.run(written, check=True, capture_output=True).stdout)}
        for name, more in (("whole", ()), ("sequential", ("--sequential",))):
            peak(model, size, steps, more)
            result[name] = peak(model, size, steps, more)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="v1")
    parser.add_argument("--size", type=int, default=512, help="pixels of a side of the picture (512)")
    parser.add_argument("--steps", type=int, default=1, help="steps that are drawn (1)")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    parser.add_argument("--write", type=Path, help="writes the model into this folder, and no more")
    given = parser.parse_args()
    found = write(given.shape, given.write) if given.write else measure(given.shape, given.size, given.steps)
    text = json.dumps(found, indent=2)
    print(text)
    if given.json:
        given.json.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
