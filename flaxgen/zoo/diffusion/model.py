"""A diffusion run on real data, and a trained diffusion model with its verbs."""

import functools
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8

from flaxgen import parallel
from flaxgen.data import Data
from flaxgen.diffusion import vlb
from flaxgen.diffusion.losses import unit_range
from flaxgen.train.config import require
from flaxgen.types import Condition, Denoiser, Experiment, Params, PRNGKey, Schedule
from flaxgen.zoo import classifier, pictures
from flaxgen.zoo.diffusion.config import Config, batch_fields, batch_spec, example_shape, null_condition, num_labels
from flaxgen.zoo.diffusion.drawing import (
    Sampling,
    Strengths,
    announced,
    draw_many,
    finished,
    guided,
    make_draw,
    numbered,
)
from flaxgen.zoo.diffusion.training import make_subject, make_training
from flaxgen.zoo.matching import open_matching, real_examples
from flaxgen.zoo.process import make_schedule

SHOWN_POINTS = 1000


def build(config: Config) -> Experiment:
    """The run.

    Raises:
        ValueError: if the data cannot be read or do not fit the net, or if the net, the loss or the sampling for
            previews do not fit together.
    """
    init, make_step = make_training(config)
    state, key = jax.eval_shape(init, jax.random.key(0)), jax.random.key(0)
    jax.eval_shape(make_step(None), state, batch_spec(config), key)
    here = parallel.jit_plan()

    check_sampling(config, config.sampling)
    shapes = dict(zip(batch_fields(config), (example_shape(config), ()), strict=False))
    source = open_matching(config.data, shapes, num_labels(config))

    def preview(state, key):
        drawn = Model(config, state.ema_params, 0, here).sample(key, config.sampling.batch)
        is_image = batch_fields(config)[0] == "image"
        return pictures.draw(drawn, None if is_image else real_examples(config.data, "point", SHOWN_POINTS))

    return Experiment(init, make_step, source, batch_fields(config), preview)


def check_sampling(config: Config, sampling: Sampling) -> None:
    """Raises ValueError unless these settings can draw from such a model."""
    require(
        sampling.guidance == 1 or null_condition(config) is not None,
        f"guidance={sampling.guidance} needs a model trained with objective.condition_dropout, and this one was not",
    )
    require(
        sampling.sampler != "ddpm" or sampling.variance != "learned" or config.net.learned_variance,
        "variance=learned needs net.learned_variance, and this net has none",
    )
    make_draw(make_subject(config), sampling.kind())


def check_guide(config: Config, guide: "classifier.Model") -> None:
    """Raises ValueError unless the classifier can guide such a model."""
    require(isinstance(guide, classifier.Model), f"a {type(guide).__name__} of pictures is no classifier to guide with")
    require(
        guide.config.process == replace(config.process, prediction=guide.config.process.prediction),
        f"the classifier knows the noise of {guide.config.process}, the model has {config.process}: train them alike",
    )
    shape, classes = classifier.image_shape(guide.config), guide.config.net.num_classes
    require(shape == example_shape(config), f"the classifier reads {shape}, the model draws {example_shape(config)}")
    require(
        num_labels(config) in (0, classes),
        f"the classifier knows {classes} classes, the model {num_labels(config)}: train them on the same data",
    )


@functools.lru_cache(maxsize=16)
def compiled_draw(config: Config, kind: Sampling, guide: classifier.Config | None, plan: parallel.Plan):
    """One drawing program, kept for the next call; what may change without compiling again is in `Strengths`."""
    draw = make_draw(make_subject(config), kind, None if guide is None else classifier.make_log_prob(guide))
    shape = " x ".join(map(str, (kind.batch, *example_shape(config))))
    return announced(
        plan.compile_map(draw, key=(config, kind, guide)),
        f"{kind.sampler}, {kind.steps} steps, {shape}, on {plan.devices} {jax.default_backend()} device(s)",
    )


@functools.lru_cache(maxsize=4)
def compiled_bits(config: Config, timesteps: int, plan: parallel.Plan):
    """The evaluator of `Model.bits_per_dim`: terms of each example, [N ...]."""
    subject, variance = make_subject(config), "learned" if config.net.learned_variance else "large"

    def bits(params, inputs):
        denoise = subject.bind(params)(jax.tree.map(lambda x: x[None], inputs["condition"]))
        x0 = unit_range(inputs["image"][None])
        result = vlb.bits_per_dim(denoise, subject.schedule, x0, timesteps, variance, inputs["key"])
        return jax.tree.map(lambda x: x[..., 0], result)

    return plan.compile_map(jax.vmap(bits, (None, 0)), key=("bits", config, timesteps))


def choose_labels(classes: int, label: int | None, numbers: range) -> Condition:
    """The label for each of the pictures of these numbers, or all classes in turn; nothing where there are no classes.

    Raises:
        ValueError: if the label is not one of the classes.
    """
    if not classes:
        return {}
    require(label is None or 0 <= label < classes, f"label={label}: expected a class from 0 to {classes - 1}")
    return {
        "label": jnp.arange(numbers.start, numbers.stop) % classes if label is None else jnp.full(len(numbers), label)
    }


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
        num: int | range = 64,
        *,
        label: int | None = None,
        steps: int | None = None,
        sampler: str | None = None,
        guidance: float | None = None,
        sampling: Sampling | None = None,
        guide: tuple["classifier.Model", float] | None = None,
    ) -> Float[np.ndarray, "N ..."]:
        """`num` pictures, float32 [num H W C] in [-1, 1], or those of a range of numbers; picture i depends on the key
        and on i alone.

        `label` is the class to draw; None takes all in turn. `guide` is a noisy classifier and the scale of its
        gradient [Dhariwal21]. What is None otherwise is as in `sampling`, by default the config's.

        Raises:
            ValueError: if a value is out of range or not for this model.
        """
        given = {"steps": steps, "sampler": sampler, "guidance": guidance}
        chosen = replace(sampling or self.config.sampling, **{k: v for k, v in given.items() if v is not None})
        numbers = numbered(num)
        num = len(numbers)
        check_sampling(self.config, chosen)
        model, scale = guide or (None, 0.0)
        if model is not None:
            check_guide(self.config, model)
        own, guided_to = num_labels(self.config), model.config.net.num_classes if model else 0
        require(label is None or own + guided_to > 0, f"label={label}: this model knows no classes")
        inputs = {"condition": choose_labels(own, label, numbers), "target": choose_labels(guided_to, label, numbers)}
        batch = batch_for(num, chosen.batch, self.plan.devices)
        draw = compiled_draw(self.config, replace(chosen.kind(), batch=batch), model and model.config, self.plan)
        strengths = Strengths(
            self.params,
            chosen.guidance,
            chosen.rescale,
            chosen.interval,
            chosen.eta,
            model and model.params,
            scale,
        )
        drawn = draw_many(draw, strengths, key, inputs, num=num, batch=batch, first=numbers.start)
        return finished(drawn, batch_fields(self.config)[0] == "image")

    def real_examples(self, num: int, data: Data | None = None) -> np.ndarray:
        """Examples to put beside `num` samples: of what the model was trained on, or of `data`."""
        field = batch_fields(self.config)[0]
        return real_examples(data or self.config.data, field, num if field == "image" else SHOWN_POINTS)

    @property
    def schedule(self) -> Schedule:
        """The noise schedule that it was trained with."""
        return make_schedule(self.config.process)

    def denoiser(self, label: int | None = None, guidance: float = 1.0) -> Denoiser:
        """(x_t, t) -> x0 of a batch, for samplers and edits of one's own; `label` and `guidance` as in `sample`."""
        sampling = replace(self.config.sampling, guidance=guidance)
        check_sampling(self.config, sampling)
        subject = make_subject(self.config)
        strengths = Strengths(self.params, guidance, sampling.rescale, sampling.interval, 0.0)

        def denoise(x, t):
            condition = choose_labels(num_labels(self.config), label, range(x.shape[0]))
            return guided(subject, sampling.kind(), strengths, condition)(x, t)

        return denoise

    def bits_per_dim(
        self,
        images: UInt8[np.ndarray, "N H W C"],
        key: PRNGKey,
        timesteps: int,
        labels: Int[np.ndarray, " N"] | None = None,
    ) -> vlb.BitsPerDim:
        """The variational bound of 8-bit images in `timesteps` equal steps [Ho20; Nichol21]; `total` and `prior` are
        [N], `terms` and `mse` [N timesteps]. Without labels a conditional model takes the null label.

        Raises:
            ValueError: if a conditional model knows no null label and gets no labels.
        """
        num, null = len(images), null_condition(self.config)
        condition: Condition = {}
        if self.config.net.num_classes:
            require(labels is not None or null is not None, "this model needs the labels of the images")
            rows = jnp.asarray(labels) if labels is not None else jnp.broadcast_to((null or {})["label"], (num,))
            condition = {"label": rows}
        batch = batch_for(num, self.config.sampling.batch, self.plan.devices)
        bits = compiled_bits(self.config, timesteps, self.plan)
        return draw_many(bits, self.params, key, {"image": images, "condition": condition}, num=num, batch=batch)


def batch_for(num: int, largest: int, devices: int) -> int:
    """How many to draw at once: a power of two, so that few programs are compiled, and a multiple of the devices."""
    size = min(2 ** (num - 1).bit_length(), largest)
    return -(-size // devices) * devices
