"""Commands about the latents of a GAN: interpolate, project."""

from pathlib import Path

from flaxgen.cli.options import RUN_OR_MODEL, add_devices, check_out, check_seed, make_plan, read_picture

FASTEST = 50
"""Pictures a second that programs show of a GIF."""


def add_commands(commands) -> None:
    """Adds them to the parser."""
    walking = commands.add_parser("interpolate", help="walk between samples of a GAN")
    walking.add_argument("model", type=Path, help=RUN_OR_MODEL)
    walking.add_argument(
        "--between", type=int, nargs="+", default=[0, 1, 2, 3], metavar="I",
        help="which samples, by their place in the grid of `flaxgen sample` with this seed (0 1 2 3)",
    )  # fmt: skip
    walking.add_argument("--frames", type=int, default=60, help="how many pictures in all (60)")
    walking.add_argument("--once", action="store_true", help="end at the last sample; else the walk goes back")
    walking.add_argument("--truncation", type=float, help="of a StyleGAN: psi, 1 for all variety, 0 for the mean alone")
    walking.add_argument("--fps", type=float, default=20.0, help="frames a second of a .gif (20)")
    _add_shared(walking, Path("walk.gif"), "a .gif, a .png grid, or a .npz of all pictures")
    add_devices(walking)
    walking.set_defaults(run=_interpolate)

    projecting = commands.add_parser("project", help="find the latent of a GAN that draws a picture best")
    projecting.add_argument("model", type=Path, help=RUN_OR_MODEL)
    projecting.add_argument("image", type=Path, help="its middle square is looked for")
    projecting.add_argument("--steps", type=int, default=1000, help="of the search (1000)")
    projecting.add_argument(
        "--features", metavar="NAME", help="compare by features too: clip:MODEL or classifier:MODEL (pixels alone)"
    )
    projecting.add_argument("--fit-noise", action="store_true", help="of a StyleGAN2: fit the noise of its layers too")
    _add_shared(projecting, Path("projected.png"), "a .png of picture and projection; the latent goes to a .npy beside")
    projecting.set_defaults(run=_project, parallel="jit", mesh=None)


def _add_shared(parser, out: Path, what: str) -> None:
    parser.add_argument("--class", dest="label", type=int, metavar="LABEL", help="the class to draw (all in turn)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed draws the same pictures (0)")
    parser.add_argument("--out", type=Path, default=out, help=f"{what} ({out})")


def _interpolate(parsed) -> int:
    check_out(parsed.out, (".gif", ".png", ".npz"))
    check_seed(parsed.seed)
    if not 0 < parsed.fps <= FASTEST:
        raise ValueError(f"--fps {parsed.fps}: expected a number above 0, at most {FASTEST}")
    import jax

    from flaxgen.zoo import pictures
    from flaxgen.zoo.gan import latents

    model = _load(parsed)
    latents.check_draws_pictures(model.config)
    ends = latents.find_latents(
        model, jax.random.key(parsed.seed), parsed.between, label=parsed.label, truncation=parsed.truncation
    )
    drawn = latents.synthesize(model, latents.interpolate(ends, parsed.frames, loop=not parsed.once))
    between = " ".join(map(str, parsed.between))
    if parsed.out.suffix == ".gif":
        pictures.save_gif(parsed.out, drawn, parsed.fps)
    else:
        about = {"model": parsed.model, "step": model.step, "seed": parsed.seed, "between": between}
        pictures.save(parsed.out, drawn, None, about)
    print(f"wrote {parsed.out}: {len(drawn)} frames between samples {between} of {parsed.model}, seed {parsed.seed}")
    return 0


def _project(parsed) -> int:
    check_out(parsed.out, (".png",))
    check_seed(parsed.seed)
    import jax
    import numpy as np
    from tqdm import tqdm

    from flaxgen.zoo import pictures
    from flaxgen.zoo.features import make_extractor
    from flaxgen.zoo.gan import latents, projection
    from flaxgen.zoo.gan.config import example_shape

    model = _load(parsed)
    latents.check_draws_pictures(model.config)
    target = projection.fit_picture(model, read_picture(parsed.image, example_shape(model.config)[2]))
    extractor = make_extractor(parsed.features) if parsed.features else None
    search = projection.Search(parsed.steps, parsed.label, parsed.fit_noise, extractor)
    with tqdm(total=parsed.steps, unit="step", leave=False, disable=None) as bar:

        def progress(distance: float) -> None:
            bar.set_postfix(distance=f"{distance:.4f}", refresh=False)
            bar.update()

        found = projection.project(model, target, jax.random.key(parsed.seed), search, progress)
    beside = np.stack((target, pictures.to_pixels(found.picture)))
    about = {"model": parsed.model, "step": model.step, "seed": parsed.seed, "source": parsed.image}
    pictures.save_png(parsed.out, pictures.grid(beside, columns=2), about)
    code = parsed.out.with_suffix(".npy")
    np.save(code, found.latents.codes[0])
    first, last = found.distances[0], found.distances[-1]
    print(f"wrote {parsed.out} and {code}: distance {last:.4f} after {parsed.steps} steps, {first:.4f} of the mean")
    return 0


def _load(parsed):
    from flaxgen import zoo
    from flaxgen.zoo import gan

    model = zoo.load(parsed.model, make_plan(parsed))
    if not isinstance(model, gan.Model):
        raise ValueError(f"{parsed.model} is no GAN: expected the run or model directory of one")
    return model
