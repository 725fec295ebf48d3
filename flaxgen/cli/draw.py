"""Commands that draw with an unCLIP: draw, vary, blend, edit, inpaint."""

import math
from pathlib import Path

from flaxgen.cli.options import add_devices, check_out, check_seed, make_plan, read_picture


def add_commands(commands) -> None:
    """Adds them to the parser."""
    drawing = commands.add_parser("draw", help="draw what captions say")
    drawing.add_argument("captions", nargs="+", metavar="caption", help="one, or several for a row each")
    _add_through(drawing)
    _add_candidates(drawing, "caption")
    _add_drawing(drawing, 4, _draw)

    varying = commands.add_parser("vary", help="draw variations of a picture")
    varying.add_argument("image", type=Path)
    varying.add_argument("--invert", action="store_true", help="start from the noise that DDIM takes the picture to")
    varying.add_argument("--eta", type=float, help="with --invert, how far they may differ, 0 to 1 (0)")
    _add_candidates(varying, "image")
    _add_drawing(varying, 8, _vary, guidance="the model's own; with --invert the share eta of it")

    blending = commands.add_parser("blend", help="draw pictures between two")
    blending.add_argument("a", type=Path)
    blending.add_argument("b", type=Path)
    _add_drawing(blending, 7, _blend, guidance="1")

    editing = commands.add_parser("edit", help="move a picture from one caption towards another")
    editing.add_argument("image", type=Path)
    editing.add_argument("--from", dest="caption_from", required=True, metavar="CAPTION", help="what it shows")
    editing.add_argument("--to", dest="caption_to", required=True, metavar="CAPTION", help="what it should show")
    editing.add_argument("--strength", type=float, default=0.5, help="how far the last picture goes, 0 to 1 (0.5)")
    _add_drawing(editing, 7, _edit, guidance="1")

    filling = commands.add_parser("inpaint", help="draw what a mask marks anew")
    filling.add_argument("image", type=Path)
    filling.add_argument("mask", type=Path, help="a picture of the same size, white where it is to be drawn anew")
    filling.add_argument("caption")
    _add_through(filling)
    _add_candidates(filling, "caption")
    _add_drawing(filling, 4, _inpaint)


def _add_through(parser) -> None:
    parser.add_argument(
        "--through", choices=("diffusion", "autoregressive", "text", "nothing"), default="diffusion",
        help="what gives the image embedding: a prior, the caption's own embedding, or nothing (diffusion)",
    )  # fmt: skip
    parser.add_argument("--prior-guidance", type=float, help="guidance of the prior (its own default)")


def _add_candidates(parser, what: str) -> None:
    parser.add_argument(
        "--candidates", type=int, default=1, metavar="N",
        help=f"draw N of each picture and keep the one that CLIP finds nearest to the {what} (1)",
    )  # fmt: skip


def _add_drawing(parser, num: int, run, guidance: str = "the model's own") -> None:
    parser.add_argument("--model", type=Path, help="an unCLIP model directory (the one that comes with flaxgen)")
    parser.add_argument("--num", type=int, default=num, help=f"how many pictures ({num})")
    parser.add_argument("--guidance", type=float, help=f"guidance of the decoder; 1 is none ({guidance})")
    parser.add_argument("--steps", type=int, help="sampling steps of the decoder (the model's own default)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed draws the same pictures (0)")
    parser.add_argument("--out", type=Path, default=Path("out.png"), help="a .png grid, or a .npz of all pictures")
    add_devices(parser)
    parser.set_defaults(run=run)


def _draw(parsed) -> int:
    def draw(model, settings):
        return model.draw(parsed.captions, seed=parsed.seed, num=parsed.num, through=parsed.through, settings=settings)

    return _make(parsed, draw, prompt="\n".join(parsed.captions), through=parsed.through)


def _vary(parsed) -> int:
    if parsed.eta is not None and not parsed.invert:
        raise ValueError(f"--eta {parsed.eta} is for variations from inverted noise: give --invert too")
    image = read_picture(parsed.image)

    def draw(model, settings):
        return model.vary(image, seed=parsed.seed, num=parsed.num, invert=parsed.invert, settings=settings)

    return _make(parsed, draw, source=parsed.image, invert=parsed.invert)


def _blend(parsed) -> int:
    a, b = read_picture(parsed.a), read_picture(parsed.b)
    return _make(
        parsed,
        lambda model, settings: model.blend(a, b, seed=parsed.seed, num=parsed.num, settings=settings),
        source=f"{parsed.a}, {parsed.b}",
    )


def _edit(parsed) -> int:
    image = read_picture(parsed.image)

    def draw(model, settings):
        captions, strength = (parsed.caption_from, parsed.caption_to), parsed.strength
        return model.edit(image, *captions, seed=parsed.seed, num=parsed.num, strength=strength, settings=settings)

    prompt = f"{parsed.caption_from} -> {parsed.caption_to}"
    return _make(parsed, draw, source=parsed.image, prompt=prompt, strength=parsed.strength)


def _inpaint(parsed) -> int:
    image, mask = read_picture(parsed.image), read_picture(parsed.mask, channels=1)[..., 0] > 127

    def draw(model, settings):
        return model.inpaint(
            image, mask, parsed.caption, seed=parsed.seed, num=parsed.num, through=parsed.through, settings=settings
        )

    return _make(parsed, draw, source=parsed.image, prompt=parsed.caption, through=parsed.through)


def _make(parsed, draw, **about) -> int:
    """Loads the model, draws with a bar over its stages, and writes the pictures with what made them."""
    _check(parsed)
    from tqdm import tqdm

    from flaxgen import zoo
    from flaxgen.zoo import pictures, unclip

    if parsed.model is None and not unclip.is_composite(unclip.SHIPPED):
        raise ValueError("this installation comes without a model: name one with --model DIR")
    model = zoo.load(parsed.model or unclip.SHIPPED, make_plan(parsed))
    if not isinstance(model, unclip.Model):
        raise ValueError(f"{parsed.model} is no unCLIP: expected a directory of `flaxgen compose` or `flaxgen import`")
    settings = unclip.Settings(
        guidance=parsed.guidance,
        prior_guidance=getattr(parsed, "prior_guidance", None),
        steps=parsed.steps,
        eta=getattr(parsed, "eta", None),
        candidates=getattr(parsed, "candidates", 1),
    )
    with tqdm(total=model.num_stages(parsed.command), unit="stage", leave=False, disable=None) as bar:
        drawn = draw(model.reporting(_shown_in(bar)), settings)
    chosen = {name: value for name, value in settings._asdict().items() if value is not None}
    told = {"verb": parsed.command, **about, "num": parsed.num, "seed": parsed.seed, **chosen}
    told |= {"model": parsed.model or "shipped"}
    captions = getattr(parsed, "captions", ())
    if len(captions) > 1 and parsed.out.suffix == ".png":
        pictures.save_png(parsed.out, pictures.captioned(drawn, captions), told)
    else:
        pictures.save(parsed.out, drawn, None, told)
    print(f"wrote {parsed.out}: {len(drawn)} pictures of {drawn.shape[2]}x{drawn.shape[1]}, seed {parsed.seed}")
    return 0


def _shown_in(bar):
    """Names the stage that runs, and counts those that have."""
    begun = []

    def progress(stage: str) -> None:
        bar.set_description(stage)
        bar.update(len(begun[-1:]))
        begun.append(stage)

    return progress


def _check(parsed) -> None:
    """What can be said before anything is loaded."""
    check_out(parsed.out)
    check_seed(parsed.seed)
    for name in ("num", "candidates"):
        if getattr(parsed, name, 1) < 1:
            raise ValueError(f"--{name} {getattr(parsed, name)}: expected 1 or more")
    for name in ("guidance", "prior_guidance"):
        value = getattr(parsed, name, None)
        if value is not None and not 0 <= value < math.inf:
            raise ValueError(f"--{name.replace('_', '-')} {value}: expected 0 or more, 1 for none")
    through = getattr(parsed, "through", "")
    if through in ("text", "nothing") and parsed.prior_guidance is not None:
        raise ValueError(f"--prior-guidance {parsed.prior_guidance} needs a prior: --through {through} has none")
