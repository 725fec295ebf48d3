"""How well does a model of emoji draw? A classifier names the things of its pictures.

python -m benchmarks.emoji renders --reader DIR --emoji DIR               # real pictures: what the reader gets right
python -m benchmarks.emoji codes --reader DIR --emoji DIR --model DIR     # the same, behind an autoencoder
python -m benchmarks.emoji draw --reader DIR --emoji DIR --model DIR      # captions, seen and novel, that hold
python -m benchmarks.emoji speed --model DIR                              # seconds for 4 pictures, the second call

--reader is a run of experiments/emoji/reader.py and --emoji the folder it was trained on. All take --num N (512) and
--seed N (0), and print JSON; draw also takes --guidance, --steps and --candidates N (1), of which CLIP keeps the best.
A caption holds if as many things as it has stand in its row, each of the name that it has there.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Sequence

import jax
import numpy as np

import flaxgen
from flaxgen.data import to_pixels
from flaxgen.data.emoji import ORDER, EmojiPictures
from flaxgen.family.extractor import Extractor
from flaxgen.metrics.emoji_oracle import find_things, names_in_order
from flaxgen.metrics.picture import psnr
from flaxgen.scenes.emoji import Row

DATA_SEED = 1
"""Pictures of another seed than the models were trained on."""
SIDE, READ_SIDE = 128, 32
SETTINGS = {"guidance": float, "steps": int, "candidates": int}


def renders(reader: Extractor, emoji: str, num: int, seed: int) -> dict:
    """What the reader gets right of close-ups, and of whole pictures."""
    closeups = EmojiPictures(emoji, "closeups", DATA_SEED + seed, num, READ_SIDE)
    named = _classify(reader, np.stack([closeups[i]["image"] for i in range(num)]))
    right = np.mean([ORDER[closeups[i]["label"]] == name for i, name in enumerate(named)])
    result: dict = {"closeups": float(right)}
    for split in ("seen", "novel"):
        images, rows, _ = examples(emoji, split, num, seed)
        result[split] = shares(reader, images, rows)
    return result


def codes(reader: Extractor, model, emoji: str, num: int, seed: int) -> dict:
    """What it gets right of pictures that went through an autoencoder, and their PSNR."""
    images, rows, _ = examples(emoji, "seen", num, seed)
    drawn = np.concatenate([to_pixels(model.autoencode(part)) for part in np.array_split(images, -(-num // 32))])
    quality = np.mean(psnr(drawn, images, data_range=255))
    return {"psnr": float(quality), **shares(reader, drawn, rows)}


def draw(reader: Extractor, model, emoji: str, num: int, seed: int, **settings: float) -> dict:
    """The shares of captions that hold, and the seconds that a picture takes."""
    result = {}
    for split in ("seen", "novel"):
        _, rows, captions = examples(emoji, split, num, seed)
        start = time.perf_counter()
        drawn = model.draw(captions, num=1, seed=seed, **settings).images
        seconds = (time.perf_counter() - start) / num
        result[split] = {**shares(reader, drawn, rows), "seconds": seconds}
    return result


def speed(model) -> float:
    """Seconds for four pictures, at the second call."""
    for seed in range(2):
        start = time.perf_counter()
        model.draw("a cat to the left of a pizza", num=4, seed=seed)
    return time.perf_counter() - start


def examples(emoji: str, split: str, num: int, seed: int) -> tuple[np.ndarray, list[Row], list[str]]:
    """Pictures, what their captions say, and the captions."""
    source = EmojiPictures(emoji, split, DATA_SEED + seed, num, SIDE)
    made = [source[i] for i in range(num)]
    return np.stack([one["image"] for one in made]), [source.row(i) for i in range(num)], [one["text"] for one in made]


def shares(reader: Extractor, images: np.ndarray, rows: Sequence[Row]) -> dict:
    """By how many things there are, the share of captions that hold, and of pictures that have so many things."""
    found = [find_things(image, len(row.things), names_in_order(row)[1], READ_SIDE) for image, row in
             zip(images, rows, strict=True)]  # fmt: skip
    counted, held = Counter(), Counter()
    names = iter(_classify(reader, np.concatenate([views for views in found if views is not None])))
    total = Counter(len(row.things) for row in rows)
    for views, row in zip(found, rows, strict=True):
        if views is not None:
            counted[len(row.things)] += 1
            held[len(row.things)] += tuple(next(names) for _ in views) == names_in_order(row)[0]
    words = {1: "one", 2: "two", 3: "three"}
    result: dict = {
        words[n]: {"holds": held[n] / total[n], "counted": counted[n] / total[n], "captions": total[n]}
        for n in sorted(total)
    }
    return {**result, "all": sum(held.values()) / len(rows)}


def _classify(reader: Extractor, views: np.ndarray) -> list[str]:
    apply = jax.jit(lambda params, image: reader.apply(params, {"image": image})["logits"].argmax(-1))
    labels = [apply(reader.params, part) for part in np.array_split(views, -(-len(views) // 128))]
    return [ORDER[int(label)] for label in np.concatenate(labels)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("renders", "codes", "draw", "speed"))
    parser.add_argument("--reader")
    parser.add_argument("--emoji")
    parser.add_argument("--model")
    parser.add_argument("--num", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    for name, kind in SETTINGS.items():
        parser.add_argument(f"--{name}", type=kind)
    asked = parser.parse_args()
    model = flaxgen.load(asked.model) if asked.model else None
    if asked.what == "speed":
        found = {"seconds": speed(model)}
    else:
        reader = flaxgen.load(asked.reader).extractor
        rest = (asked.emoji, asked.num, asked.seed)
        settings = {name: value for name in SETTINGS if (value := getattr(asked, name)) is not None}
        if asked.what == "renders":
            found = renders(reader, *rest)
        elif asked.what == "codes":
            found = codes(reader, model, *rest)
        else:
            found = draw(reader, model, *rest, **settings)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
