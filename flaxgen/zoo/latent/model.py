"""What a diffusion model over latents minimises, and drawing latents by a trained one [Rombach22]."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from flaxgen import parallel
from flaxgen.diffusion.denoise import make_bind
from flaxgen.diffusion.edit import inpaint
from flaxgen.diffusion.losses import Apply
from flaxgen.diffusion.samplers import Grid, make_grid
from flaxgen.diffusion.tiles import tiled_bind
from flaxgen.family.batches import Drop, read_batch
from flaxgen.family.codec import OVERLAP
from flaxgen.family.companions import load_companion
from flaxgen.family.denoising import make_apply, make_denoising_loss
from flaxgen.family.drawing import announced, batch_for, compile_draw, draw_many, finished, title
from flaxgen.family.process import make_prediction, make_schedule, make_time_input
from flaxgen.family.sampling import Sampling, Strengths, Subject, guided, walk
from flaxgen.family.trained import Files, Trained
from flaxgen.nets.controlnet import ControlNet
from flaxgen.train.config import require
from flaxgen.types import Bind, Condition, Loss, Params, PRNGKey
from flaxgen.zoo.clip import FAMILY as CLIP
from flaxgen.zoo.latent.config import (
    NO_PICTURE,
    Config,
    check_sampling,
    condition_spec,
    fills_in,
    imitates_guidance,
    latent_shape,
    reads_text,
    tells_sizes,
    walked_times,
)
from flaxgen.zoo.latent.control import STEERED, Control, Steer, make_steer
from flaxgen.zoo.latent.preservation import preserving
from flaxgen.zoo.latent.text import make_encoder, telling_sizes
from flaxgen.zoo.t5 import FAMILY as T5

Task = Literal["draw", "vary", "inpaint"]
Latent = Float[np.ndarray, "N h w D"]


class Asked(NamedTuple):
    """What is to be drawn: a row of `condition` for each example, and of `null`, which guidance leads away from; and
    the `controls` that steer all of them, or with `guess` what is said alone, and the `refiner` that ends what they
    begin."""

    condition: Mapping[str, np.ndarray]
    null: Mapping[str, np.ndarray]
    controls: tuple[Control, ...] = ()
    guess: bool = False
    refiner: "Refiner | None" = None


class Refiner(NamedTuple):
    """A net that was trained on little noise, and draws when the share `since` of all time is over [Podell23, sec.
    2.5]; condition and null are what it reads."""

    model: "Model"
    condition: Mapping[str, np.ndarray]
    null: Mapping[str, np.ndarray]
    since: float


class Start(NamedTuple):
    """Where drawing starts. "draw" is from noise; "vary" from `latent` of what is `known` and noise for the last share
    `strength` of the steps; "inpaint" draws what the `mask` [h w 1] leaves free of `latent` (0: free). A net that fills
    in always reads the mask, and `outside`, the latents of a picture without what is free. Drawing goes on from `x_T`
    where that is known. The net is called on tiles of `tile` latents a side (0: on all), in steps that begin in the
    `span` of all time."""

    task: Task = "draw"
    known: Mapping[str, np.ndarray] = {}
    strength: float = 1.0
    tile: int = 0
    span: tuple[float, float] = (0.0, 1.0)


class Form(NamedTuple):
    """What of a drawing has to be compiled beside the sampler: the task, the shape of the latents, ControlNets,
    whether they guess, and tiles."""

    task: Task
    shape: tuple[int, int, int]
    controls: tuple[ControlNet, ...] = ()
    guess: bool = False
    tile: int = 0


def init_params(config: Config, key: PRNGKey, size: tuple[int, int] | None = None) -> Params:
    """Fresh parameters, made by a call on latents of the net's own size, or of another.

    Raises:
        ValueError: if the net's levels do not divide its latents' size, or it does not take such.
    """
    height, width = size or latent_shape(config)[:2]
    given = {name: jnp.zeros((1, *spec.shape), spec.dtype) for name, spec in condition_spec(config).items()}
    given |= {"guidance": jnp.ones(1)} if imitates_guidance(config) else {}
    x = jnp.zeros((1, height, width, config.net.in_channels))
    return config.net.init(key, x, jnp.ones(1), **read_condition(given))["params"]


def read_condition(condition: Condition) -> dict[str, Any]:
    """The net's keywords; states are kept in half precision."""
    given = dict(condition)
    return given | ({"tokens": given["tokens"].astype(jnp.float32)} if "tokens" in given else {})


def make_loss(config: Config, files: Files) -> Loss:
    """The denoising loss of latents, whose condition is hidden now and then: a caption is then empty."""
    loss = make_loss_of(config, files, make_apply(config.net, read_condition))
    return loss if config.prior_data is None else preserving(loss, config.prior_weight)


def make_loss_of(config: Config, files: Files, apply: Apply, more: Sequence[str] = ()) -> Loss:
    """The same of another function than the net, which reads the fields of a batch called `more` too."""
    names, drops = (*condition_spec(config), *more), []
    if share := config.objective.condition_dropout:
        drops = [Drop(share, nothing(config, bool(files)))]
    inputs = read_batch("latent", names, drops)
    inputs = telling_sizes(inputs) if tells_sizes(config) else inputs
    return make_denoising_loss(config.process, config.objective, config.net.learned_variance, apply, inputs)


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
    apply = make_apply(config.net, read_condition)

    def bind(params: Params, beside: Condition, steer: Steer | None) -> Bind:
        def net(x, time, condition):
            read = [jnp.broadcast_to(value, (*x.shape[:-1], value.shape[-1])) for value in beside.values()]
            told = {name: value for name, value in condition.items() if name != "guidance"}
            own = {name: value for name, value in condition.items() if name != STEERED}
            added: Any = {} if steer is None else {"residuals": steer(x, time, told)}
            return apply(params, jnp.concatenate([x, *read], axis=-1), time, {**own, **added}, None)

        return make_bind(net, schedule, prediction, time_input, learned_variance=config.net.learned_variance)

    return bind


def make_draw(config: Config, kind: Sampling, form: Form):
    """`draw(arguments, inputs)`: latents of one example, of its `condition` and `null`, and what is known as in
    `Start`; `arguments` are the parameters and all that may change without compiling again, of `controls` too."""
    schedule, bind, (task, shape, controls, guess, tile) = make_schedule(config.process), make_net_bind(config), form

    def draw(arguments, inputs):
        condition, null = (jax.tree.map(lambda x: x[None], inputs[name]) for name in ("condition", "null"))
        beside = {}
        if imitates_guidance(config):
            condition["guidance"] = jnp.asarray(arguments["guidance"], jnp.float32)[None]
        if fills_in(config):
            beside = {"free": 1 - inputs["mask"][None], "outside": inputs["outside"][None]}
        steer = make_steer(controls, arguments["controls"], read_condition) if controls else None
        if guess:
            condition[STEERED], null[STEERED] = jnp.ones(1), jnp.zeros(1)

        def bind_params(params: Params) -> Bind:
            whole = bind(params, beside, steer)
            return tiled_bind(whole, tile=tile, overlap=tile // OVERLAP, pictures=()) if tile else whole

        subject = Subject(schedule, config.process.timesteps, shape, bind_params, lambda _: null)
        settings = (arguments[name] for name in ("params", "guidance", "rescale", "interval", "eta"))
        denoise = guided(subject, kind, Strengths(*settings), condition)
        grid = Grid(arguments["times"], arguments["steps"])
        key, edit = inputs["key"], lambda sampler: sampler
        x_T = inputs["x_T"][None] if "x_T" in inputs else None
        if task == "vary" and x_T is None:
            key, noise_key = jax.random.split(key)
            alpha, sigma = schedule(grid.times[0])
            x_T = (alpha * inputs["latent"] + sigma * jax.random.normal(noise_key, shape))[None]
        if task == "inpaint" and not fills_in(config):
            known, mask = inputs["latent"][None], inputs["mask"][None]
            noise_key, key = jax.random.split(key)
            noise = jax.random.normal(noise_key, (1, *shape))
            if x_T is None:
                x_T = (1.0 if kind.begin == "unit" else schedule(grid.times[0]).sigma) * noise
            last = 1 / config.process.timesteps if config.process.timesteps else 0.0
            edit = functools.partial(inpaint, schedule=schedule, known=known, mask=mask, noise=noise, clean=last)
        return walk(subject, kind, arguments["eta"], denoise, key, x_T=x_T, edit=edit, grid=grid)[0]

    return draw


@functools.lru_cache(maxsize=16)
def compiled_draw(config: Config, kind: Sampling, form: Form, plan: parallel.Plan):
    """One drawing program, kept for the next call."""
    said = title(plan, kind.batch, form.shape, f"latents by {kind.sampler}")
    key = ("latent", config.net, config.process, config.text, kind, *form)
    return announced(compile_draw(plan, make_draw(config, kind, form), key), said)


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
        chosen, known = sampling or self.config.sampling, start.known
        shape = shape or (known["latent"].shape[1:] if "latent" in known else latent_shape(self.config))
        check_sampling(self.config, chosen)
        require(0 < start.strength <= 1, f"strength={start.strength}: expected above 0 and at most 1")
        grid = make_grid(walked_times(self.config, chosen, start.strength, start.span))
        batch = batch_for(len(numbers), chosen.batch, self.plan.devices)
        controls = asked.controls
        kind = compiled_kind(chosen, batch)
        kind = replace(kind, guidance=1.0) if imitates_guidance(self.config) else kind
        nets = tuple(control.model.config.net for control in controls)
        form = Form(start.task, shape, nets, asked.guess, start.tile)
        draw = compiled_draw(self.config, kind, form, self.plan)
        arguments = {name: getattr(chosen, name) for name in ("guidance", "rescale", "interval", "eta")}
        arguments |= {"params": self.params, **grid._asdict()} | {
            "controls": [control.arguments for control in controls]
        }
        inputs = {"condition": dict(asked.condition), "null": dict(asked.null), **known}
        drawn = draw_many(draw, arguments, key, inputs, num=len(numbers), batch=batch, first=numbers.start)
        return finished(drawn, pictures=False)


def draw_refined(
    model: Model,
    asked: Asked,
    key: PRNGKey,
    numbers: range,
    *,
    start: Start,
    sampling: Sampling,
    shape: tuple[int, int, int] | None = None,
) -> Latent:
    """As `Model.draw_latents`; where there is a refiner, it goes on from the latents that the model leaves it, along
    the same times."""
    refiner = asked.refiner
    if refiner is None:
        return model.draw_latents(asked, key, numbers, start=start, sampling=sampling, shape=shape)
    before, after = (start._replace(span=span) for span in ((0.0, refiner.since), (refiner.since, 1.0)))
    steps = [len(walked_times(model.config, sampling, one.strength, one.span)) - 1 for one in (before, after)]
    if steps[0]:
        latents = model.draw_latents(asked, key, numbers, start=before, sampling=sampling, shape=shape)
        if not steps[1]:
            return latents
        after, key = after._replace(known={**start.known, "x_T": latents}), jax.random.fold_in(key, NO_PICTURE)
    asked = Asked(refiner.condition, refiner.null)
    return refiner.model.draw_latents(asked, key, numbers, start=after, sampling=sampling, shape=shape)
