"""unCLIP's upsamplers: from a small picture to one `factor` times larger [Ramesh22, sec. 2.1], with no other
condition."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from flaxgen import parallel
from flaxgen.data import Data, to_pixels
from flaxgen.diffusion import degrade
from flaxgen.diffusion.edit import inpaint
from flaxgen.diffusion.samplers import sample
from flaxgen.diffusion.tiles import tiled_bind
from flaxgen.family import sheets
from flaxgen.family.batches import read_batch
from flaxgen.family.denoising import Objective, check_time_embedding, make_apply, make_denoising_loss, make_net_bind
from flaxgen.family.drawing import batch_for, compile_draw, draw_many
from flaxgen.family.family import Family
from flaxgen.family.matching import real_examples
from flaxgen.family.pictures import Pictures
from flaxgen.family.process import Process, make_schedule
from flaxgen.family.requests import Upscale
from flaxgen.family.sampling import Sampling, Subject, make_grid, make_sampler, threshold, walk
from flaxgen.family.trained import Files, Handler, Progress, Trained
from flaxgen.nets.unet import UNet
from flaxgen.train.config import require
from flaxgen.train.optim import Optimizer
from flaxgen.train.run import GradientRun
from flaxgen.types import Bind, Loss, Params, PRNGKey

SHOWN = 16
DEGRADE: dict[str, Callable[[Float[Array, "h w C"], PRNGKey], Float[Array, "h w C"]]] = {
    "none": lambda low, key: low,
    "blur": degrade.blurred,
    "bsr": degrade.bsr,
}
"""What is done to the small pictures in training; with `blur` and `bsr` the net learns not to trust them too far."""


@dataclass(frozen=True, kw_only=True)
class Config(GradientRun):
    """An upsampler's run. Its net sees pictures of `data` (crops of them, with `data.random_crop`) and their means over
    `factor` x `factor` pixels, degraded as `degrade` says and with noise of a level up to `noise_level` in t, which a
    net with `noise_level` reads; in drawing the level is `draw_noise_level`.

    Outputs larger than `tile` pixels are drawn in tiles that overlap by `overlap`. `last_step` gives the last step of
    sampling a net of its own [Karlo]; it is not trained here.
    """

    data: Data
    net: UNet
    factor: int = 4
    degrade: Literal["none", "blur", "bsr"] = "blur"
    noise_level: float = 0.0
    draw_noise_level: float = 0.0
    process: Process = Process(schedule="cosine")
    objective: Objective = Objective()
    optimizer: Optimizer = Optimizer(name="adamw", learning_rate=1.2e-4)
    tile: int = 256
    overlap: int = 64
    last_step: bool = False
    sampling: Sampling = Sampling(steps=27)

    def __post_init__(self):
        super().__post_init__()
        require(self.factor >= 2, f"factor={self.factor}: expected 2 or more")
        require(self.net.low_res, "net.low_res=False: an upsampler's net has to see the small picture, set it true")
        require(
            self.net.noise_level == (self.noise_level > 0),
            f"noise_level={self.noise_level} with net.noise_level={self.net.noise_level}: a net is told the level of "
            "the noise on its small picture if there is any",
        )
        for name in ("noise_level", "draw_noise_level"):
            require(0 <= getattr(self, name) < 1, f"{name}={getattr(self, name)}: expected a time in [0, 1)")
        require(
            self.draw_noise_level <= self.noise_level,
            f"draw_noise_level={self.draw_noise_level} is more than the noise_level={self.noise_level} trained with",
        )
        step = self.factor * self.net.patch * 2 ** (len(self.net.multipliers) - 1)
        require(
            self.tile % step == 0 and self.overlap % step == 0 and 0 <= 2 * self.overlap <= self.tile,
            f"tile={self.tile}, overlap={self.overlap}: expected multiples of {step}, the overlap at most half a tile",
        )
        require(
            self.sampling.guidance == 1, f"sampling.guidance={self.sampling.guidance}: there is nothing to guide by"
        )
        check_time_embedding(self.net.time_embedding, self.process)


def batch_spec(config: Config) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of a batch as the loader gives it."""
    size = config.data.image_size or config.net.image_size
    return {"image": jax.ShapeDtypeStruct((config.batch_size, size, size, config.net.in_channels), jnp.uint8)}


def init_params(config: Config, key: PRNGKey) -> Params:
    """Fresh parameters: of the net, and with `last_step` of the one that takes it."""
    size = config.factor * config.net.patch * 2 ** (len(config.net.multipliers) - 1)
    x = jnp.zeros((1, size, size, config.net.in_channels))
    level = jnp.zeros(1) if config.net.noise_level else None

    def init(key):
        return config.net.init(key, x, jnp.ones(1), low_res=x, level=level)["params"]

    if not config.last_step:
        return init(key)
    first_key, last_key = jax.random.split(key)
    return {"net": init(first_key), "last": init(last_key)}


def make_loss(config: Config, files: Files) -> Loss:
    """The denoising loss of pictures, given what was made of them."""
    schedule = make_schedule(config.process)
    read = read_batch("image")

    def inputs(batch, key):
        x0, _ = read(batch, key)
        degrade_key, level_key, noise_key = jax.random.split(key, 3)
        low = DEGRADE[config.degrade](degrade.downsample(x0[0], config.factor), degrade_key)
        if not config.noise_level:
            return x0, {"low_res": low[None]}
        level = jax.random.uniform(level_key, maxval=config.noise_level)
        return x0, {"low_res": degrade.noise_augment(schedule, low, noise_key, level)[None], "level": level[None]}

    apply = make_apply(config.net)
    return make_denoising_loss(config.process, config.objective, config.net.learned_variance, apply, inputs)


def preview(model: "Model", key: PRNGKey) -> np.ndarray:
    """Enlarged pictures beside those that they were made smaller from."""
    real = real_examples(model.config.data, "image", SHOWN)
    small = np.asarray(shrink(real / np.float32(127.5) - 1, model.config.factor))
    return sheets.beside(sheets.grid(model.upsample(small, key)), sheets.grid(real))


def shrink(images: Float[Array, "N H W C"] | np.ndarray, factor: int) -> Float[Array, "N h w C"]:
    """Means over `factor` x `factor` pixels, after a crop to whole multiples."""
    height, width = (side // factor * factor for side in images.shape[1:3])
    return jax.vmap(lambda image: degrade.downsample(image, factor))(jnp.asarray(images)[:, :height, :width])


def make_draw(config: Config, kind: Sampling, shape: tuple[int, int, int], keeps: bool):
    """The picture [H W C] of `shape` for `inputs`: its key and its small picture `low_res`, [-1, 1]; with `keeps` also
    a picture `image` of that shape, which stays where `mask` [H W 1] is 1."""
    process, schedule = config.process, make_schedule(config.process)
    make_bind = make_net_bind(process, config.net.learned_variance, make_apply(config.net))

    def bind_params(params: Params) -> Bind:
        return tiled_bind(make_bind(params), tile=config.tile, overlap=config.overlap)

    def draw(params, inputs):
        walk_key, noise_key, last_key, start_key = jax.random.split(inputs["key"], 4)
        condition = {"low_res": jnp.clip(inputs["low_res"], -1, 1)[None]}
        if config.net.noise_level:
            level = config.draw_noise_level
            condition = {
                "low_res": degrade.noise_augment(schedule, condition["low_res"][0], noise_key, level)[None],
                "level": jnp.full(1, level, jnp.float32),
            }
        subject = Subject(schedule, process.timesteps, shape, bind_params, None)

        def edit(sampler):
            return inpaint(sampler, schedule, inputs["image"][None], inputs["mask"][None]) if keeps else sampler

        if not config.last_step:
            return walk(subject, kind, kind.eta, bind_params(params)(condition), walk_key, edit=edit)[0]
        grid = make_grid(subject, kind)
        first = threshold(kind)(bind_params(params["net"])(condition))
        last = threshold(kind)(bind_params(params["last"])(condition))
        sampler = edit(make_sampler(kind, schedule, kind.eta))
        x_T = schedule(float(grid[0])).sigma * jax.random.normal(start_key, (1, *shape))
        x = sample(sampler, first, x_T, grid[:-1], walk_key)
        return sample(sampler, last, x, grid[-2:], last_key)[0]

    return draw


@functools.lru_cache(maxsize=16)
def compiled_draw(config: Config, kind: Sampling, shape: tuple[int, int, int], keeps: bool, plan: parallel.Plan):
    """One program, kept for the next call."""
    draw, key = make_draw(config, kind, shape, keeps), (config, kind, shape, keeps)
    if config.last_step:  # a net of its own walks the last step: two walks in one program
        return plan.compile_map(jax.vmap(draw, (None, 0)), key=key)
    return compile_draw(plan, draw, key)


class Model(Trained):
    """A trained upsampler."""

    config: Config

    def upsample(
        self,
        images: Float[np.ndarray, "N h w C"],
        key: PRNGKey,
        *,
        sampling: Sampling | None = None,
        keep: Mapping[str, np.ndarray] | None = None,
    ) -> Float[np.ndarray, "N H W C"]:
        """Pictures [-1, 1], `factor` times the size; picture i depends on the key, on image i and on i alone. With
        `keep`, its `image` [N H W C] stays where its `mask` [N H W 1] is 1.

        Raises:
            ValueError: if the net's levels do not divide that size.
        """
        chosen, factor = sampling or self.config.sampling, self.config.factor
        num, height, width, channels = images.shape
        shape, step = (factor * height, factor * width, channels), self.config.net.patch
        step *= 2 ** (len(self.config.net.multipliers) - 1)
        require(
            shape[0] % step == 0 and shape[1] % step == 0,
            f"a picture of {height}x{width} becomes {shape[0]}x{shape[1]}: expected multiples of {step}",
        )
        batch = batch_for(num, chosen.batch, self.plan.devices)
        draw = compiled_draw(self.config, replace(chosen, batch=batch), shape, keep is not None, self.plan)
        inputs = {"low_res": np.asarray(images, np.float32), **(keep or {})}
        return np.clip(draw_many(draw, self.params, key, inputs, num=num, batch=batch), -1, 1)


def draw_larger(model: Model, request: Upscale, progress: Progress) -> Pictures:
    """A picture `factor` times as large."""
    progress("sampling")
    small = np.repeat(request.image.pixels[None] / np.float32(127.5) - 1, request.num, 0)
    return Pictures(to_pixels(model.upsample(small, jax.random.key(request.seed))))


FAMILY = Family(
    name="upsampler",
    config=Config,
    init_params=init_params,
    batch_spec=batch_spec,
    make_loss=make_loss,
    free=frozenset({"sampling"}),
    is_trainable=lambda config: not config.last_step,
    preview=preview,
    model=Model,
    requests={Upscale: Handler(draw_larger)},
    instead="enlarges pictures (`flaxgen upscale`), and draws none of its own: draw with the unCLIP that `flaxgen "
    "compose` makes of it and the other stages",
)
