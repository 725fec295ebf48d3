"""A diffusion run on real data, and a trained diffusion model with its verbs."""

import functools
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from flaxgen import parallel
from flaxgen.data import open_source
from flaxgen.diffusion import vlb
from flaxgen.diffusion.losses import unit_range
from flaxgen.train.optim import require
from flaxgen.types import Condition, Denoiser, Experiment, Params, PRNGKey, Schedule, Source
from flaxgen.zoo import classifier, pictures
from flaxgen.zoo.diffusion.config import Config, batch_fields, example_shape, null_condition, num_labels
from flaxgen.zoo.diffusion.drawing import Sampling, Strengths, announced, draw_many, make_draw
from flaxgen.zoo.diffusion.training import make_subject, make_training
from flaxgen.zoo.process import make_schedule

SHOWN_POINTS = 1000


def build(config: Config) -> Experiment:
    """The run.

    Raises:
        ValueError: if the data cannot be read or does not fit the net, or the net its image size.
    """
    init, make_step = make_training(config)
    jax.eval_shape(init, jax.random.key(0))
    source = open_source(config.data)
    check_data(config, source)

    def preview(state, key):
        drawn = Model(config, state.ema_params, 0, parallel.make_plan("jit")).sample(key, config.sampling.batch)
        return pictures.draw(drawn, beside(config, source, 0))

    return Experiment(init, make_step, source, batch_fields(config), preview)


def check_data(config: Config, source: Source) -> None:
    """Raises ValueError unless the first example has the fields and the shape that the net is for."""
    field, *condition = batch_fields(config)
    example, shape = source[0], example_shape(config)
    require(field in example, f"data.source={config.data.source} has no {field}, only {', '.join(example)}")
    require(
        example[field].shape == shape,
        f"the data has {field}s of shape {example[field].shape}, the net is for {shape}: set data.image_size and "
        "data.channels, or net.image_size and net.in_channels",
    )
    for name in condition:
        require(name in example, f"net.num_classes={config.net.num_classes} needs a {name}, and the data has none")


def beside(config: Config, source: Source, num_images: int) -> np.ndarray | None:
    """What to show beside samples: the first images, or enough points to see the shape of the data."""
    field = batch_fields(config)[0]
    num = min(num_images if field == "image" else SHOWN_POINTS, len(source))
    return np.stack([source[i][field] for i in range(num)]) if num else None


@functools.lru_cache(maxsize=16)
def compiled_draw(
    config: Config, sampling: Sampling, guided: bool, guide: classifier.Config | None, plan: parallel.Plan
):
    """One drawing program, kept for the next call; what may change without compiling again is in `Strengths`."""
    log_prob = None if guide is None else classifier.make_log_prob(guide)
    draw = make_draw(make_subject(config), sampling, guided=guided, log_prob=log_prob)
    shape = " x ".join(map(str, (sampling.batch, *example_shape(config))))
    return announced(
        plan.compile_map(draw),
        f"{sampling.sampler}, {sampling.steps} steps, {shape}, on {plan.devices} {jax.default_backend()} device(s)",
    )


def choose_labels(classes: int, label: int | None, num: int) -> Condition:
    """`num` times the label, or all classes in turn; nothing where there are no classes.

    Raises:
        ValueError: if the label is not one of the classes.
    """
    if not classes:
        return {}
    require(label is None or 0 <= label < classes, f"label={label}: expected a class from 0 to {classes - 1}")
    return {"label": jnp.arange(num) % classes if label is None else jnp.full(num, label)}


@dataclass(frozen=True)
class Model:
    """A trained diffusion model and what can be done with it; `plan` says on which devices."""

    config: Config
    params: Params
    step: int
    plan: parallel.Plan

    def sample(
        self,
        key: PRNGKey,
        num: int = 64,
        *,
        label: int | None = None,
        steps: int | None = None,
        sampler: str | None = None,
        guidance: float | None = None,
        sampling: Sampling | None = None,
        guide: tuple["classifier.Model", float] | None = None,
    ) -> Float[np.ndarray, "N ..."]:
        """`num` pictures, float32 [num H W C] in [-1, 1]; picture i depends on the key and on i alone.

        `label` is the class to draw; None takes all in turn. `guide` is a noisy classifier and the scale of its
        gradient [Dhariwal21]. What is None otherwise is as in `sampling`, by default the config's.

        Raises:
            ValueError: if a value is out of range or not for this model.
        """
        given = {"steps": steps, "sampler": sampler, "guidance": guidance}
        chosen = replace(sampling or self.config.sampling, **{k: v for k, v in given.items() if v is not None})
        require(num >= 1, f"num={num}: expected 1 or more")
        guided = chosen.guidance != 1.0
        require(
            not guided or null_condition(self.config) is not None,
            f"guidance={chosen.guidance} needs a model trained with objective.condition_dropout, and this one was not",
        )
        batch = -(-min(num, chosen.batch) // self.plan.devices) * self.plan.devices
        model, scale = guide or (None, 0.0)
        settings = replace(chosen, guidance=1.0, batch=batch)
        draw = compiled_draw(self.config, settings, guided, model and model.config, self.plan)
        strengths = Strengths(self.params, jnp.float32(chosen.guidance), model and model.params, jnp.float32(scale))
        own, guided_to = num_labels(self.config), model.config.net.num_classes if model else 0
        require(label is None or own + guided_to > 0, f"label={label}: this model knows no classes")
        inputs = {"condition": choose_labels(own, label, num), "target": choose_labels(guided_to, label, num)}
        return draw_many(draw, strengths, key, inputs, num=num, batch=batch)

    def real_examples(self, num: int) -> np.ndarray | None:
        """Examples of what the model was trained on, if its data are at hand."""
        return beside(self.config, open_source(self.config.data), num)

    @property
    def schedule(self) -> Schedule:
        """The noise schedule that it was trained with."""
        return make_schedule(self.config.process)

    def denoiser(self, label: int | None = None) -> Denoiser:
        """(x_t, t) -> x0 of a batch, for samplers and edits of one's own; `label` as in `sample`."""
        bind = make_subject(self.config).bind(self.params)

        def denoise(x, t):
            return bind(choose_labels(num_labels(self.config), label, x.shape[0]))(x, t)

        return denoise

    def bits_per_dim(self, images: UInt8[np.ndarray, "N H W C"], key: PRNGKey, timesteps: int) -> vlb.BitsPerDim:
        """The variational bound of 8-bit images with its terms, in `timesteps` equal steps [Ho20; Nichol21]."""
        variance = "learned" if self.config.net.learned_variance else "large"
        return vlb.bits_per_dim(
            self.denoiser(), self.schedule, unit_range(jnp.asarray(images)), timesteps, variance, key
        )
