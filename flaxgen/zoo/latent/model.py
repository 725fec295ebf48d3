"""What a diffusion model over latents minimises, and drawing latents by a trained one [Rombach22]."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from flaxgen import parallel
from flaxgen.diffusion.denoise import make_bind
from flaxgen.diffusion.edit import inpaint
from flaxgen.diffusion.samplers import Grid, make_grid
from flaxgen.family.batches import Drop, read_batch
from flaxgen.family.companions import load_companion
from flaxgen.family.denoising import make_apply, make_denoising_loss
from flaxgen.family.drawing import announced, batch_for, draw_many, finished, title
from flaxgen.family.process import make_prediction, make_schedule, make_time_input
from flaxgen.family.sampling import Sampling, Strengths, Subject, guided, walk
from flaxgen.family.trained import Files, Trained
from flaxgen.nets.controlnet import ControlNet
from flaxgen.train.config import require
from flaxgen.types import Bind, Condition, Loss, Params, PRNGKey
from flaxgen.zoo.clip import FAMILY as CLIP
from flaxgen.zoo.latent.config import (
    Config,
    check_sampling,
    condition_spec,
    fills_in,
    latent_shape,
    reads_text,
    walked_times,
)
from flaxgen.zoo.latent.control import Control, Steer, make_steer
from flaxgen.zoo.latent.preservation import preserving
from flaxgen.zoo.latent.text import make_encoder
from flaxgen.zoo.t5 import FAMILY as T5

Task = Literal["draw", "vary", "inpaint"]
Latent = Float[np.ndarray, "N h w D"]


class Asked(NamedTuple):
    """What is to be drawn: a row of `condition` for each example, and of `null`, which guidance leads away from; and
    the `control` that steers all of them."""

    condition: Mapping[str, np.ndarray]
    null: Mapping[str, np.ndarray]
    control: Control | None = None


class Start(NamedTuple):
    """Where drawing starts. "draw" is from noise; "vary" from `latent` of what is `known` and noise for the last share
    `strength` of the steps; "inpaint" draws what the `mask` [h w 1] leaves free of `latent` (0: free). A net that fills
    in always reads the mask, and `outside`, the latents of a picture without what is free."""

    task: Task = "draw"
    known: Mapping[str, np.ndarray] = {}
    strength: float = 1.0


def init_params(config: Config, key: PRNGKey) -> Params:
    """Fresh parameters.

    Raises:
        ValueError: if the net's levels do not divide its latents' size.
    """
    height, width, _ = latent_shape(config)
    given = {name: jnp.zeros((1, *spec.shape), spec.dtype) for name, spec in condition_spec(config).items()}
    x = jnp.zeros((1, height, width, config.net.in_channels))
    return config.net.init(key, x, jnp.ones(1), **_read(given))["params"]


def _read(condition: Condition) -> dict[str, Any]:
    """The net's keywords; states are kept in half precision."""
    given = dict(condition)
    return given | ({"tokens": given["tokens"].astype(jnp.float32)} if "tokens" in given else {})


def make_loss(config: Config, files: Files) -> Loss:
    """The denoising loss of latents, whose condition is hidden now and then: a caption is then empty."""
    names, drops = tuple(condition_spec(config)), []
    if share := config.objective.condition_dropout:
        drops = [Drop(share, nothing(config, bool(files)))]
    apply, inputs = make_apply(config.net, _read), read_batch("latent", names, drops)
    loss = make_denoising_loss(config.process, config.objective, config.net.learned_variance, apply, inputs)
    return loss if config.prior_data is None else preserving(loss, config.prior_weight)


def nothing(config: Config, is_known: bool) -> Mapping[str, Any]:
    """The condition that says nothing, [1 ...]: the empty caption's states, and the last row of the label table; zeros
    unless the encoders are known."""
    null: dict[str, Any] = {
        name: np.zeros((1, *spec.shape), spec.dtype) for name, spec in condition_spec(config).items()
    }
    if is_known and reads_text(config):
        null |= {name: value[None] for name, value in empty_caption(config).items()}
    if config.net.num_classes:
        null["label"] = np.asarray([config.net.num_classes - 1], np.int32)
    return null


def text_encoders(config: Config) -> tuple[Any, ...]:
    """The text encoders that the config names.

    Raises:
        ValueError: if one is not there.
    """
    second = (config.clip_2,) if config.clip_2 else ()
    return tuple(load_companion(CLIP, path) for path in (config.clip, *second))


def load_t5(config: Config) -> Any:
    """The T5 that the config names, None where it names none.

    Raises:
        ValueError: if it is not there.
    """
    return load_companion(T5, config.t5) if config.t5 else None


def empty_caption(config: Config) -> Mapping[str, np.ndarray]:
    """What the net reads of the empty caption."""
    return make_encoder(config, text_encoders(config), config.data.image_size, load_t5(config)).empty()


def make_net_bind(config: Config) -> Callable[[Params, Condition, Steer | None], Bind]:
    """From parameters, what a net that fills in reads beside latents, and what steers it, to a denoiser that waits for
    its condition."""
    schedule, prediction, time_input = (
        make_schedule(config.process),
        make_prediction(config.process),
        make_time_input(config.process),
    )
    apply = make_apply(config.net, _read)

    def bind(params: Params, beside: Condition, steer: Steer | None) -> Bind:
        def net(x, time, condition):
            read = [jnp.broadcast_to(value, (*x.shape[:-1], value.shape[-1])) for value in beside.values()]
            added: Any = {} if steer is None else {"residuals": steer(x, time, condition)}
            return apply(params, jnp.concatenate([x, *read], axis=-1), time, {**condition, **added}, None)

        return make_bind(net, schedule, prediction, time_input, learned_variance=config.net.learned_variance)

    return bind


def make_draw(
    config: Config, kind: Sampling, task: Task, shape: tuple[int, int, int], control: ControlNet | None = None
):
    """`draw(arguments, inputs)`: latents of one example, of its `condition` and `null`, and what is known as in
    `Start`; `arguments` are the parameters and all that may change without compiling again, of a `control` too."""
    schedule, bind = make_schedule(config.process), make_net_bind(config)

    def draw(arguments, inputs):
        condition, null = (jax.tree.map(lambda x: x[None], inputs[name]) for name in ("condition", "null"))
        beside = {}
        if fills_in(config):
            beside = {"free": 1 - inputs["mask"][None], "outside": inputs["outside"][None]}
        steer = None if control is None else make_steer(control, arguments["control"], _read)
        subject = Subject(
            schedule, config.process.timesteps, shape, lambda params: bind(params, beside, steer), lambda _: null
        )
        settings = (arguments[name] for name in ("params", "guidance", "rescale", "interval", "eta"))
        denoise = guided(subject, kind, Strengths(*settings), condition)
        grid = Grid(arguments["times"], arguments["steps"])
        key, x_T, edit = inputs["key"], None, lambda sampler: sampler
        if task == "vary":
            key, noise_key = jax.random.split(key)
            alpha, sigma = schedule(grid.times[0])
            x_T = (alpha * inputs["latent"] + sigma * jax.random.normal(noise_key, shape))[None]
        if task == "inpaint" and not fills_in(config):
            known, mask = inputs["latent"][None], inputs["mask"][None]
            noise_key, key = jax.random.split(key)
            noise = jax.random.normal(noise_key, (1, *shape))
            x_T = (1.0 if kind.begin == "unit" else schedule(grid.times[0]).sigma) * noise
            last = 1 / config.process.timesteps if config.process.timesteps else 0.0
            edit = functools.partial(inpaint, schedule=schedule, known=known, mask=mask, noise=noise, clean=last)
        return walk(subject, kind, arguments["eta"], denoise, key, x_T=x_T, edit=edit, grid=grid)[0]

    return draw


@functools.lru_cache(maxsize=16)
def compiled_draw(
    config: Config,
    kind: Sampling,
    task: Task,
    shape: tuple[int, int, int],
    plan: parallel.Plan,
    control: ControlNet | None,
):
    """One drawing program, kept for the next call."""
    said = title(plan, kind.batch, shape, f"latents by {kind.sampler}")
    program = jax.vmap(make_draw(config, kind, task, shape, control), (None, 0))
    key = ("latent", config.net, config.process, config.text, kind, task, shape, control)
    return announced(plan.compile_map(program, key=key), said)


def compiled_kind(sampling: Sampling, batch: int) -> Sampling:
    """What has to be compiled of the settings: neither their strengths nor how many steps there are, and when."""
    steps = sampling.steps if sampling.churn else Sampling.steps
    return replace(sampling.kind(), steps=steps, grid=Sampling.grid, offset=0, final="zero", shift=1.0, batch=batch)


class Model(Trained):
    """A trained diffusion model over latents."""

    config: Config

    def draw_latents(
        self,
        asked: Asked,
        key: PRNGKey,
        numbers: range,
        *,
        start: Start = Start(),  # noqa: B008 (immutable)
        sampling: Sampling | None = None,
        shape: tuple[int, int, int] | None = None,
    ) -> Latent:
        """Latents of these numbers; each depends on the key, its number and its row of what is `asked` alone.

        Raises:
            ValueError: if a value is out of range or not for this model.
            FloatingPointError: if the weights draw what is not finite.
        """
        chosen, (task, known, strength) = sampling or self.config.sampling, start
        shape = shape or (known["latent"].shape[1:] if "latent" in known else latent_shape(self.config))
        check_sampling(self.config, chosen)
        require(0 < strength <= 1, f"strength={strength}: expected above 0 and at most 1")
        grid = make_grid(walked_times(self.config, chosen, strength))
        batch = batch_for(len(numbers), chosen.batch, self.plan.devices)
        control = asked.control
        net = None if control is None else control.model.config.net
        draw = compiled_draw(self.config, compiled_kind(chosen, batch), task, shape, self.plan, net)
        arguments = {name: getattr(chosen, name) for name in ("guidance", "rescale", "interval", "eta")}
        arguments |= {"params": self.params, **grid._asdict()} | ({"control": control.arguments} if control else {})
        inputs = {"condition": dict(asked.condition), "null": dict(asked.null), **known}
        drawn = draw_many(draw, arguments, key, inputs, num=len(numbers), batch=batch, first=numbers.start)
        return finished(drawn, pictures=False)
