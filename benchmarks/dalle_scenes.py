"""How well does a DALL-E 1 of scenes draw? The scene oracle reads what its codes keep, and what it drew.

python -m benchmarks.dalle_scenes codes --model DIR    # an autoencoder: what is left of scenes after their codes
python -m benchmarks.dalle_scenes draw --model DIR     # captions that hold, seen and unseen: best of 1, 8, 32 by CLIP

All take --num N (512) and --seed N (0), and print JSON. `draw` takes a run of the transformer or a composed model;
without a CLIP it draws one candidate. It also takes --temperature, --top-p and --guidance, by default the model's own,
and --candidates 1 8 32.
"""

import argparse
import json
import time
from collections.abc import Sequence

import numpy as np

import flaxgen
from benchmarks.unclip_scenes import arrangement, scenes
from flaxgen.data import to_pixels
from flaxgen.metrics.scene_oracle import holds
from flaxgen.scenes.captions import parse

CANDIDATES = (1, 8, 32)
SETTINGS = ("temperature", "top_p", "guidance")


def codes(model, num: int, seed: int) -> dict:
    """PSNR and use of codes over pictures that training never met, and of how many the caption still holds."""
    size = model.config.net.image_size
    result = {}
    for split in ("seen", "novel"):
        images, captions = scenes(split, num, size)
        drawn = to_pixels(model.autoencode(images))
        kept, whole = (np.mean([holds(*pair) for pair in zip(x, captions, strict=True)]) for x in (drawn, images))
        result[split] = {**model.measure(images), "holds": float(kept), "holds before": float(whole)}
    return result


def draw(model, num: int, seed: int, numbers: Sequence[int] = CANDIDATES, **settings: float) -> dict:
    """Share of captions that hold, for each number of candidates, and the seconds that a picture takes."""
    result = {}
    for split in ("seen", "novel"):
        captions = scenes(split, num, 16)[1]
        for candidates in numbers if _has_clip(model) else (1,):
            start = time.perf_counter()
            drawn = model.draw(captions, num=1, seed=seed, candidates=candidates, **settings).images
            seconds = (time.perf_counter() - start) / num
            held = np.array([holds(image, caption) for image, caption in zip(drawn, captions, strict=True)])
            single = np.array([len(parse(caption).things) == 1 for caption in captions])
            figures = {"all": held.mean(), "one object": held[single].mean(), "two objects": held[~single].mean()}
            result[f"{split}, best of {candidates}"] = {**figures, **arrangement(drawn, captions), "seconds": seconds}
    return result


def _has_clip(model) -> bool:
    return "clip" in getattr(model, "parts", {}) or bool(getattr(getattr(model, "config", None), "clip", ""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("codes", "draw"))
    parser.add_argument("--model", required=True)
    parser.add_argument("--num", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    for name in SETTINGS:
        parser.add_argument(f"--{name.replace('_', '-')}", type=float)
    parser.add_argument("--candidates", type=int, nargs="+", default=CANDIDATES)
    parsed = parser.parse_args()
    model = flaxgen.load(parsed.model)
    if parsed.what == "codes":
        found = codes(model, parsed.num, parsed.seed)
    else:
        asked = {name: value for name in SETTINGS if (value := getattr(parsed, name)) is not None}
        found = draw(model, parsed.num, parsed.seed, parsed.candidates, **asked)
    print(json.dumps(found, indent=2, default=float))


if __name__ == "__main__":
    main()
