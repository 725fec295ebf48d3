"""unCLIP's upsamplers: from a small picture to one `factor` times larger [Ramesh22, sec. 2.1], with no other
condition."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from flaxgen import parallel
from flaxgen.data import Data
from flaxgen.diffusion import degrade, losses
from flaxgen.diffusion.edit import inpaint
from flaxgen.diffusion.samplers import sample
from flaxgen.diffusion.tiles import tiled_bind
from flaxgen.nets.unet import UNet
from flaxgen.train import optim, state
from flaxgen.train.config import require
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.train.run import Run
from flaxgen.types import Bind, Condition, Experiment, Loss, Params, PRNGKey
from flaxgen.zoo import pictures
from flaxgen.zoo.diffusion import Objective, Sampling
from flaxgen.zoo.diffusion.drawing import Subject, draw_many, make_grid, make_sampler, threshold, walk
from flaxgen.zoo.diffusion.model import batch_for
from flaxgen.zoo.diffusion.training import make_denoising_loss, make_net_bind
from flaxgen.zoo.matching import open_matching, real_examples
from flaxgen.zoo.process import Process, make_schedule

SHOWN = 16
DEGRADE: dict[str, Callable[[Float[Array, "h w C"], PRNGKey], Float[Array, "h w C"]]] = {
    "none": lambda low, key: low,
    "blur": degrade.blurred,
    "bsr": degrade.bsr,
}
"""What is done to the small pictures in training; with `blur` and `bsr` the net learns not to trust them too far."""


@dataclass(frozen=True)
class Config(Run):
    """An upsampler's run. Its net sees pictures of `data` (crops of them, with `data.random_crop`) and their means over
    `factor` x `factor` pixels, degraded as `degrade` says and with noise of a level up to `noise_level` in t, which a
    net with `noise_level` is told; in drawing the level is `draw_noise_level`.

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
    ema: Ema = Ema()
    accumulate: int = 1
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


TYPES = {"Upsampler": Config} | {
    kind.__name__: kind for kind in (Data, UNet, Process, Objective, Optimizer, Ema, Sampling)
}
"""All that may appear in such a config.json."""


def batch_spec(config: Config) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of a batch as the loader gives it."""
    size = config.data.image_size or config.net.image_size
    return {"image": jax.ShapeDtypeStruct((config.batch_size, size, size, config.net.in_channels), jnp.uint8)}


def apply_net(config: Config, params: Params, x, time, condition: Condition, dropout_key: PRNGKey | None) -> Array:
    """The net's output; with a key it trains, and drops out."""
    rngs = {} if dropout_key is None else {"dropout": dropout_key}
    low_res, level = condition["low_res"], condition.get("level")
    train = dropout_key is not None
    return cast(
        Array, config.net.apply({"params": params}, x, time, low_res=low_res, level=level, train=train, rngs=rngs)
    )


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


def make_loss(config: Config) -> Loss:
    """The denoising loss of pictures, given what was made of them."""
    schedule = make_schedule(config.process)
    read = losses.read_batch("image")

    def inputs(batch, key):
        x0, _ = read(batch, key)
        degrade_key, level_key, noise_key = jax.random.split(key, 3)
        low = DEGRADE[config.degrade](degrade.downsample(x0[0], config.factor), degrade_key)
        if not config.noise_level:
            return x0, {"low_res": low[None]}
        level = jax.random.uniform(level_key, maxval=config.noise_level)
        return x0, {"low_res": degrade.noise_augment(schedule, low, noise_key, level)[None], "level": level[None]}

    apply = functools.partial(apply_net, config)
    return make_denoising_loss(config.process, config.objective, config.net.learned_variance, apply, inputs)


def make_training(config: Config):
    """`init(key)` and `make_step(axis_name)` of the run.

    Raises:
        ValueError: if it would have to train a net for the last step.
    """
    require(not config.last_step, "last_step=True: the net of the last step is imported, and not trained here")
    return state.make_training(
        functools.partial(init_params, config),
        make_loss(config),
        optim.make_optimizer(config.optimizer, config.steps),
        ema_decay=optim.make_ema_decay(config.ema),
        accumulate=config.accumulate,
    )


def build(config: Config) -> Experiment:
    """The run.

    Raises:
        ValueError: if the data cannot be read, or do not fit the net.
    """
    init, make_step = make_training(config)
    spec = batch_spec(config)
    jax.eval_shape(make_step(None), jax.eval_shape(init, jax.random.key(0)), spec, jax.random.key(0))
    source = open_matching(config.data, {"image": spec["image"].shape[1:]}, 0)
    here = parallel.jit_plan()

    def preview(state, key):
        real = real_examples(config.data, "image", SHOWN)
        small = np.asarray(shrink(real / np.float32(127.5) - 1, config.factor))
        drawn = Model(config, state.ema_params, 0, here).upsample(small, key)
        return pictures.beside(pictures.grid(drawn), pictures.grid(real))

    return Experiment(init, make_step, source, tuple(spec), preview)


def shrink(images: Float[Array, "N H W C"] | np.ndarray, factor: int) -> Float[Array, "N h w C"]:
    """Means over `factor` x `factor` pixels, after a crop to whole multiples."""
    height, width = (side // factor * factor for side in images.shape[1:3])
    return jax.vmap(lambda image: degrade.downsample(image, factor))(jnp.asarray(images)[:, :height, :width])


def make_draw(config: Config, kind: Sampling, shape: tuple[int, int, int], keeps: bool):
    """The picture [H W C] of `shape` for `inputs`: its key and its small picture `low_res`, [-1, 1]; with `keeps` also
    a picture `image` of that shape, which stays where `mask` [H W 1] is 1."""
    process, schedule = config.process, make_schedule(config.process)
    make_bind = make_net_bind(process, config.net.learned_variance, functools.partial(apply_net, config))

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
    return plan.compile_map(
        jax.vmap(make_draw(config, kind, shape, keeps), (None, 0)), key=(config, kind, shape, keeps)
    )


@dataclass(frozen=True)
class Model:
    """A trained upsampler; `plan` says on which devices it runs."""

    config: Config
    params: Params
    step: int
    plan: parallel.Plan

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
