"""How well does an unCLIP of scenes draw? The scene oracle reads what it drew.

python -m benchmarks.unclip_scenes clip          # its CLIP: retrieval, and captions with two words swapped
python -m benchmarks.unclip_scenes draw          # seen and unseen compositions
python -m benchmarks.unclip_scenes given         # what the decoder is given [Ramesh22, sec. 5.1], three seeds
python -m benchmarks.unclip_scenes guidance      # accuracy against diversity; --plot FILE draws it
python -m benchmarks.unclip_scenes vary          # variations, and whether they keep the objects
python -m benchmarks.unclip_scenes edit          # text diffs, and whether they arrive
python -m benchmarks.unclip_scenes inpaint       # pixels that changed outside the mask
python -m benchmarks.unclip_scenes insert        # another object in a box, told its own caption alone
python -m benchmarks.unclip_scenes upsample      # real renders made small: the oracle's accuracy and PSNR
python -m benchmarks.unclip_scenes speed         # seconds for 4 pictures at the second call, by stage

All take --model DIR (the shipped one), --num N (512) and --seed N (0), and print JSON; draw, given, guidance, vary and
insert also take --candidates N (1), of which CLIP keeps the best. What draw is given is one of GIVEN, --through
(diffusion); with --same-length what a prior draws is brought to the length sqrt(D) of the embeddings that a decoder is
trained with.
"""

import argparse
import dataclasses
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import flaxgen
from flaxgen.data import Data, open_source, to_pixels
from flaxgen.metrics.picture import psnr
from flaxgen.metrics.scene_oracle import accuracy, arrange, holds, read, relation, spread
from flaxgen.scenes.captions import COLOURS, FALSE, OPPOSITE, SHAPES, Thing, parse
from flaxgen.zoo import prior, unclip, upsampler
from flaxgen.zoo.unclip.drawing import PRIORS, Drawing
from flaxgen.zoo.unclip.family import DrawUnclip

DATA_SEED = 1
"""Scenes of another seed than the models were trained on."""
GIVEN = ("nothing", "text", "diffusion", "autoregressive")
WAYS = (("fresh noise", False, None), ("inverted, eta 0.5", True, 0.5), ("inverted, eta 1", True, 1.0))
"""Of varying: its name, whether from inverted noise, and with which eta."""
OWN_SIZE, BOX = 160, 0.4
"""Of inserting: pixels of a side of the pictures, and the side of the box in shares of it."""
SCALES = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)


def scenes(split: str, num: int, size: int) -> tuple[np.ndarray, list[str]]:
    """Pictures and captions that training never met."""
    known = examples(split, num, size)
    return np.stack([example["image"] for example in known]), [example["text"] for example in known]


def examples(split: str, num: int, size: int) -> list[Mapping]:
    """The same with all that the source says of them."""
    source = open_source(Data("scenes", split=split, seed=DATA_SEED, size=num, image_size=size))
    return [source[i] for i in range(num)]


def clip(model: unclip.Model, num: int, seed: int, candidates: int) -> dict:
    """recall@1, and how often a picture is nearer to its caption than to the same one with two words swapped, and than
    to each of its false captions."""
    stage = model.parts["clip"]
    known = examples("seen", num, stage.config.net.vision.image_size)
    images, captions = np.stack([example["image"] for example in known]), [example["text"] for example in known]

    def told(things: int) -> float:
        chosen = [i for i, caption in enumerate(captions) if len(parse(caption).things) == things]
        texts = [text for i in chosen for text in (captions[i], *known[i]["false_texts"])]
        embedded = stage.encode_text(texts).embedding.reshape(len(chosen), 1 + FALSE, -1)
        cosines = (embedded * stage.encode_image(images[chosen])[:, None]).sum(-1)
        return float((cosines[:, 0] > cosines[:, 1:].max(1)).mean())

    def prefers(swapped: list[str]) -> dict:
        changed = [i for i, (a, b) in enumerate(zip(captions, swapped, strict=True)) if a != b]
        embedded = stage.encode_image(images[changed])
        own, other = (stage.encode_text([each[i] for i in changed]).embedding for each in (captions, swapped))
        return {"share": float((((own - other) * embedded).sum(-1) > 0).mean()), "captions": len(changed)}

    colours = [{thing.colour for thing in parse(caption).things} for caption in captions]
    swaps = {
        "colours": [_swap(c, *pair) if len(pair) == 2 else c for c, pair in zip(captions, colours, strict=True)],
        "sizes": [_swap(_swap(c, "small", "large"), "little", "big") for c in captions],
        "left and right": [_swap(c, "left", "right") for c in captions],
        "above and below": [
            _swap(_swap(_swap(c, "above", "below"), "over", "under"), "top", "bottom") for c in captions
        ],
    }
    return {
        "recall@1": stage.retrieval(images, captions),
        "nearer than six false captions": {"one object": told(1), "two objects": told(2)},
    } | {name: prefers(swap) for name, swap in swaps.items()}


def _swap(caption: str, a: str, b: str) -> str:
    return caption.replace(a, "\0").replace(b, a).replace("\0", b)


def draw(
    model: unclip.Model, num: int, seed: int, candidates: int, through: str = "diffusion", same_length: bool = False
) -> dict:
    """Share of captions that hold, at the size drawn, and what becomes of those of two objects."""
    if same_length:
        parts = {name: _of_same_length(part) if name in PRIORS.values() else part for name, part in model.parts.items()}
        model = dataclasses.replace(model, parts=parts)
    result = {}
    for split in ("seen", "novel"):
        captions = scenes(split, num, 16)[1]
        drawn = model.draw(captions, seed=seed, num=1, through=through, candidates=candidates).images
        held = np.array([holds(image, caption) for image, caption in zip(drawn, captions, strict=True)])
        single = np.array([len(parse(caption).things) == 1 for caption in captions])
        result[split] = {"all": held.mean(), "one object": held[single].mean(), "two objects": held[~single].mean()}
        result[split] |= arrangement(drawn, captions)
    return result


def _of_same_length(stage: prior.Model) -> prior.Model:
    """The prior, whose embeddings are all of length sqrt(D)."""

    class Scaled(prior.Model):
        def draw_embeddings(self, *given, **more):
            drawn = super().draw_embeddings(*given, **more)
            return drawn * (drawn.shape[1] ** 0.5 / np.linalg.norm(drawn, axis=1, keepdims=True))

    return Scaled(**{field.name: getattr(stage, field.name) for field in dataclasses.fields(stage)})


def arrangement(images: np.ndarray, captions: list[str]) -> dict:
    """Of captions of two objects how many have both; of these how many have them side by side or one above the other as
    said; and of those how many in the order said."""
    seen = []
    for image, caption in zip(images, captions, strict=True):
        said = parse(caption)
        if len(said.things) == 2:
            pair = arrange(read(image), said._replace(relation=None))
            seen.append((pair and relation(*pair), said.relation))
    both = [(shown, wanted) for shown, wanted in seen if shown]
    along = [(shown, wanted) for shown, wanted in both if shown in (wanted, OPPOSITE[wanted])]
    ordered = [shown == wanted for shown, wanted in along]
    return {
        "pairs": len(seen),
        "both objects": len(both) / max(len(seen), 1),
        "axis": len(along) / max(len(both), 1),
        "order": sum(ordered) / max(len(ordered), 1),
    }


def given(model: unclip.Model, num: int, seed: int, candidates: int) -> dict:
    """The same by what the decoder is given, on seen compositions: mean and deviation of three seeds."""
    captions = scenes("seen", num, 16)[1]
    result = {}
    for through in GIVEN:
        drawn = (model.draw(captions, seed=seed + i, num=1, through=through, candidates=candidates) for i in range(3))
        shares = [accuracy(drawn_once.images, captions) for drawn_once in drawn]
        result[through] = {"mean": np.mean(shares), "deviation": np.std(shares, ddof=1), "seeds": shares}
    return result


def guidance(model: unclip.Model, num: int, seed: int, candidates: int) -> dict:
    """Accuracy over captions, and the mean distance of places where 16 pictures of one caption put its objects."""
    captions = scenes("seen", num, 16)[1]
    few = captions[:16]
    result = {}
    for scale in SCALES:
        scaled = {"guidance": scale, "candidates": candidates}
        several = model.draw(few, seed=seed, num=16, **scaled).images
        several = several.reshape(len(few), 16, *[model.image_size] * 2, 3)
        spreads = [spread(images, caption) for images, caption in zip(several, few, strict=True)]
        result[str(scale)] = {
            "accuracy": accuracy(model.draw(captions, seed=seed, num=1, **scaled).images, captions),
            "spread": float(np.nanmean(spreads)),
        }
    return result


def vary(model: unclip.Model, num: int, seed: int, candidates: int) -> dict:
    """Variations of real scenes: whether the source's caption holds, and how far they are from the source."""
    images, captions = scenes("seen", num // 4, model.image_size)
    result = {}
    for name, invert, eta in WAYS:
        held, distance = [], []
        for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
            drawn = model.vary(image, seed=seed + i, num=4, invert=invert, eta=eta, candidates=candidates).images
            held += [holds(picture, caption) for picture in drawn]
            distance += [np.abs(picture.astype(float) - image).mean() for picture in drawn]
        result[name] = {"holds": np.mean(held), "mean absolute difference": np.mean(distance)}
    return result


def edit(model: unclip.Model, num: int, seed: int, candidates: int) -> dict:
    """Single objects of one kind to another, 7 pictures on the way: whether any holds, and how often each does."""
    rng = np.random.default_rng(seed)
    images, captions = scenes("seen", 4 * num, model.image_size)
    chosen = [i for i, caption in enumerate(captions) if len(parse(caption).things) == 1][: num // 4]
    there, strengths = [], np.linspace(0, 1, 7)
    for i in chosen:
        thing = parse(captions[i]).things[0]
        colour = rng.choice([c for c in COLOURS if c != thing.colour])
        shape = rng.choice([s for s in SHAPES if s != thing.shape])
        source, target = f"a {thing.colour} {thing.shape}", f"a {colour} {shape}"
        settings = {"caption_from": source, "caption_to": target, "seed": seed, "num": 7, "strength": 1.0}
        drawn = model.edit(images[i], **settings).images
        there.append([holds(picture, target) for picture in drawn])
    by_strength = {
        f"strength {strength:.2f}": share for strength, share in zip(strengths, np.mean(there, 0), strict=True)
    }
    return {"any holds": np.any(there, 1).mean(), "edits": len(chosen)} | by_strength


def inpaint(model: unclip.Model, num: int, seed: int, candidates: int) -> dict:
    """The right half of scenes drawn anew by the caption of the whole: pixels of the left half that changed."""
    images, captions = scenes("seen", num // 16, model.image_size)
    mask = np.zeros(images.shape[1:3], bool)
    mask[:, model.image_size // 2 :] = True
    drawn = [
        model.inpaint(image, mask, caption, whole=True, seed=seed, num=1).images[0]
        for image, caption in zip(images, captions, strict=True)
    ]
    changed = sum(int((one != image)[~mask].any(-1).sum()) for one, image in zip(drawn, images, strict=True))
    return {"pixels changed outside the mask": changed, "pictures": len(images)}


def insert(model: unclip.Model, num: int, seed: int, candidates: int) -> dict:
    """Pictures of one object, not of the model's size, and the caption of another in a box beside it: how often the
    oracle finds both and nothing else, by colour and shape (what is drawn in a window is smaller than in a picture),
    and in how many the new one is there."""
    both, new, changed, rng = 0, 0, 0, np.random.default_rng(seed)
    cases = _boxes(num, rng)
    for i, (image, mask, there, thing) in enumerate(cases):
        asked = {"seed": seed + i, "num": 1, "candidates": candidates}
        drawn = model.inpaint(image, mask, f"a {thing.colour} {thing.shape}", **asked).images[0]
        found = Counter((one.colour, one.shape) for one in read(drawn))
        both += found == Counter((one.colour, one.shape) for one in (there, thing))
        new += (thing.colour, thing.shape) in found
        changed += int((drawn != image)[~mask].any(-1).sum())
    count = len(cases)
    return {"both": both / count, "the new one": new / count, "pixels changed outside": changed, "pictures": count}


def _boxes(num: int, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray, Thing, Thing]]:
    """Pictures of one object, boxes as far from it as they can be, what is there, and what shall come."""
    found: list[tuple[np.ndarray, np.ndarray, Thing, Thing]] = []
    side = round(BOX * OWN_SIZE)
    for example in examples("seen", 6 * num, OWN_SIZE):
        if len(found) == num or len(parse(example["text"]).things) > 1 or len(there := read(example["image"])) != 1:
            continue
        mask = np.zeros((OWN_SIZE, OWN_SIZE), bool)
        top, left = ((OWN_SIZE - side if at < 0.5 else 0) for at in (there[0].y, there[0].x))
        mask[top : top + side, left : left + side] = True
        thing = Thing(str(rng.choice([*COLOURS])), str(rng.choice([*SHAPES])))
        found.append((example["image"], mask, Thing(there[0].colour, there[0].shape), thing))
    return found


def upsample(model: unclip.Model, num: int, seed: int, candidates: int) -> dict:
    """Renders at the final size, made small and enlarged by the upsamplers and by bicubic interpolation."""
    images, captions = scenes("seen", num, model.image_size)
    factor = int(np.prod([stage.config.factor for stage in model.upsamplers]))
    small = np.asarray(upsampler.shrink(images / np.float32(127.5) - 1, factor))
    large = Drawing(model, {"upsamplers": jax.random.key(seed)}, lambda stage: None).enlarge(small)
    bicubic = to_pixels(np.asarray(jnp.clip(jax.image.resize(small, images.shape, "bicubic"), -1, 1)))
    return {
        name: {"accuracy": accuracy(made, captions), "psnr": float(np.mean(psnr(images, made, 255)))}
        for name, made in (("upsamplers", large), ("bicubic", bicubic))
    } | {"small": {"accuracy": accuracy(to_pixels(small), captions)}}


def speed(model: unclip.Model, num: int, seed: int, candidates: int) -> dict:
    """Seconds of 4 pictures, everything compiled, and the share of each stage."""
    began: list[tuple[str, float]] = []
    request = DrawUnclip(captions=("a red circle above a blue square",), seed=seed, num=4)
    for _ in range(2):
        began.clear()
        model.perform(request, lambda stage: began.append((stage, time.perf_counter())))
        began.append(("end", time.perf_counter()))
    total = began[-1][1] - began[0][1]
    shares = {name: (after[1] - at) / total for (name, at), after in itertools.pairwise(began)}
    return {"seconds": total, "shares": shares}


MEASURES: dict[str, Callable[..., dict]] = {
    measure.__name__: measure for measure in (clip, draw, given, guidance, vary, edit, inpaint, insert, upsample, speed)
}


def plot(path: Path, result: dict) -> None:
    """Accuracy against diversity, a point a guidance scale."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4), dpi=120, layout="tight")
    axes = figure.add_subplot()
    points = [(value["spread"], value["accuracy"], scale) for scale, value in result.items()]
    axes.plot([x for x, _, _ in points], [y for _, y, _ in points], marker="o")
    for i, (x, y, scale) in enumerate(points):
        axes.annotate(f"{float(scale):g}", (x, y), textcoords="offset points", xytext=(0, (8, -14, 20)[i % 3]))
    axes.margins(y=0.2)
    axes.set_xlabel("spread of the objects' places (rms, shares of the side)")
    axes.set_ylabel("share of captions that hold")
    figure.savefig(path)


def rounded(value):
    """Numbers to four digits, for reading."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    return round(float(value), 4) if isinstance(value, float | np.floating) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measure", choices=MEASURES)
    parser.add_argument("--model")
    parser.add_argument("--num", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--candidates", type=int, default=1)
    parser.add_argument("--through", choices=GIVEN, default="diffusion")
    parser.add_argument("--same-length", action="store_true")
    parser.add_argument("--plot", type=Path)
    parsed = parser.parse_args()
    measure, model = MEASURES[parsed.measure], flaxgen.load(parsed.model)
    more = {"through": parsed.through, "same_length": parsed.same_length} if measure is draw else {}
    result = rounded(measure(model, parsed.num, parsed.seed, parsed.candidates, **more))
    print(json.dumps({parsed.measure: result}, indent=2))
    if parsed.plot and parsed.measure == "guidance":
        plot(parsed.plot, result)


if __name__ == "__main__":
    main()
