"""Denoising diffusion of images and of points: DDPM, improved DDPM, ADM, EDM and rectified flow are configs of it."""

import functools
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8

from flaxgen import parallel
from flaxgen.data import Data, unit_range
from flaxgen.diffusion import vlb
from flaxgen.family import drawing
from flaxgen.family.batches import Drop, read_batch
from flaxgen.family.denoising import (
    Objective,
    check_objective,
    check_time_embedding,
    make_apply,
    make_denoising_loss,
    make_net_bind,
)
from flaxgen.family.evaluation import Periodic, check_every
from flaxgen.family.family import Family
from flaxgen.family.matching import SHOWN_POINTS, real_examples
from flaxgen.family.pictures import Pictures
from flaxgen.family.process import Process, make_schedule
from flaxgen.family.request import Clash, option
from flaxgen.family.requests import Sample, check_beside, label_option, sampled, set_option
from flaxgen.family.sampling import Sampling, Strengths, Subject, guided, make_draw, make_draw_one
from flaxgen.family.trained import Files, Handler, Progress, Trained
from flaxgen.nets.dit import DiT
from flaxgen.nets.mlp import MLP
from flaxgen.nets.unet import UNet
from flaxgen.train.config import override, require
from flaxgen.train.run import GradientRun
from flaxgen.types import Condition, Denoiser, Loss, Params, PRNGKey, Schedule
from flaxgen.zoo.classifier import FAMILY as CLASSIFIER


@dataclass(frozen=True, kw_only=True)
class Config(GradientRun):
    """A diffusion run. Every `evaluate_every` steps (0: never), and after the last, the averaged weights are measured
    as `evaluation` says."""

    data: Data
    net: UNet | DiT | MLP = UNet()
    process: Process = Process()
    objective: Objective = Objective()
    sampling: Sampling = Sampling()
    evaluate_every: int = 0
    evaluation: Periodic = Periodic()

    def __post_init__(self):
        super().__post_init__()
        check_every(self.evaluate_every, draws_pictures(self))
        check_objective(self.objective, self.process, self.net.learned_variance)
        if isinstance(self.net, UNet):
            check_time_embedding(self.net.time_embedding, self.process)
        require(
            not self.objective.condition_dropout or self.net.num_classes > 1,
            f"objective.condition_dropout={self.objective.condition_dropout} hides labels, and this net has none: set "
            "net.num_classes to the number of classes and one more",
        )


@dataclass(frozen=True, kw_only=True)
class SampleDiffusion(Sample):
    """Draw samples."""

    label: int | None = label_option()
    set: tuple[str, ...] = set_option()
    steps: int | None = option(None, "sampling steps", least=1, default_text="the model's own")
    sampler: str | None = option(None, "ddpm, ddim, euler, heun, dpmpp_2m, unipc ...", default_text="the model's own")
    guidance: float | None = option(None, "classifier-free guidance scale; 1 is none", default_text="the model's own")
    classifier: str | None = option(None, "a classifier's run or model to guide with", flag="classifier DIR")
    classifier_scale: float | None = option(
        None, "strength of its guidance", default_text="1", flag="classifier-scale SCALE"
    )

    def __post_init__(self):
        super().__post_init__()
        if self.classifier_scale is not None and self.classifier is None:
            raise Clash("{classifier_scale} needs {classifier}, a run or model to guide with",
                        classifier_scale=self.classifier_scale, classifier=None)  # fmt: skip


def draws_pictures(config: Config) -> bool:
    """Whether it draws pictures, and not points."""
    return not isinstance(config.net, MLP)


def example_shape(config: Config) -> tuple[int, ...]:
    """[H W C] of an image, [D] of a point."""
    net = config.net
    return (net.features,) if isinstance(net, MLP) else (net.image_size, net.image_size, net.in_channels)


def batch_spec(config: Config) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of a batch as the loader gives it: what is drawn first, then the condition."""
    field, dtype = ("image", jnp.uint8) if draws_pictures(config) else ("point", jnp.float32)
    size = config.batch_size
    spec = {field: jax.ShapeDtypeStruct((size, *example_shape(config)), dtype)}
    return spec | ({"label": jax.ShapeDtypeStruct((size,), jnp.int32)} if config.net.num_classes else {})


def null_condition(config: Config) -> Condition | None:
    """The condition that says nothing: the last row of the label table, where the model was trained to know it."""
    if not config.objective.condition_dropout:
        return None
    return {"label": jnp.asarray([config.net.num_classes - 1], jnp.int32)}


def num_labels(config: Config) -> int:
    """How many labels stand for a class."""
    return config.net.num_classes - bool(config.objective.condition_dropout)


def init_params(config: Config, key: PRNGKey) -> Params:
    """Fresh parameters.

    Raises:
        ValueError: if the net's levels or patches do not divide its image size.
    """
    label = jnp.zeros(1, jnp.int32) if config.net.num_classes else None
    return config.net.init(key, jnp.zeros((1, *example_shape(config))), jnp.ones(1), label=label)["params"]


def make_loss(config: Config, files: Files) -> Loss:
    """The training loss that the config names."""
    field, *condition = batch_spec(config)
    null = null_condition(config)
    drops = [] if null is None else [Drop(config.objective.condition_dropout, null)]
    inputs = read_batch(field, condition, drops)
    apply = make_apply(config.net)
    return make_denoising_loss(config.process, config.objective, config.net.learned_variance, apply, inputs)


def make_subject(config: Config) -> Subject:
    """What such a model draws."""
    null = null_condition(config)
    return Subject(
        make_schedule(config.process),
        config.process.timesteps,
        example_shape(config),
        make_net_bind(config.process, config.net.learned_variance, make_apply(config.net)),
        None if null is None else lambda _: null,
    )


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


def check_guide(config: Config, guide: Any) -> None:
    """Raises ValueError unless the classifier can guide such a model."""
    require(
        guide.config.process == replace(config.process, prediction=guide.config.process.prediction),
        f"the classifier knows the noise of {guide.config.process}, the model has {config.process}: train them alike",
    )
    shape, classes = guide.image_shape, guide.config.net.num_classes
    require(shape == example_shape(config), f"the classifier reads {shape}, the model draws {example_shape(config)}")
    require(
        num_labels(config) in (0, classes),
        f"the classifier knows {classes} classes, the model {num_labels(config)}: train them on the same data",
    )


@functools.lru_cache(maxsize=16)
def compiled_draw(config: Config, kind: Sampling, guide: Any, plan: parallel.Plan):
    """One drawing program, kept for the next call; what may change without compiling again is in `Strengths`. `guide`
    is the config of a classifier, or None."""
    classifier: Any = CLASSIFIER.model
    draw = make_draw_one(make_subject(config), kind, None if guide is None else classifier.make_log_prob(guide))
    title = drawing.title(plan, kind.batch, example_shape(config), f"{kind.sampler}, {kind.steps} steps")
    return drawing.announced(drawing.compile_draw(plan, draw, (config, kind, guide)), title)


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


class Model(Trained):
    """A trained diffusion model."""

    config: Config

    def generate(
        self,
        key: PRNGKey,
        num: int | range = 64,
        *,
        label: int | None = None,
        sampling: Sampling | None = None,
        guide: tuple[Any, float] | None = None,
    ) -> Float[np.ndarray, "N ..."]:
        """`num` examples, float32 [num H W C] in [-1, 1] or points, or those of a range of numbers; example i depends
        on the key and on i alone.

        `label` is the class to draw; None takes all in turn. `guide` is a noisy classifier and the scale of its
        gradient [Dhariwal21]. `sampling` is by default the config's.

        Raises:
            ValueError: if a value is out of range or not for this model.
            FloatingPointError: if the weights draw what is not finite.
        """
        chosen, numbers = sampling or self.config.sampling, drawing.numbered(num)
        check_sampling(self.config, chosen)
        model, scale = guide or (None, 0.0)
        if model is not None:
            check_guide(self.config, model)
        own, guided_to = num_labels(self.config), model.config.net.num_classes if model else 0
        require(label is None or own + guided_to > 0, f"label={label}: this model knows no classes")
        inputs = {
            "condition": drawing.choose_labels(own, label if own else None, numbers),
            "target": drawing.choose_labels(guided_to, label if guided_to else None, numbers),
        }
        batch = drawing.batch_for(len(numbers), chosen.batch, self.plan.devices)
        draw = compiled_draw(self.config, replace(chosen.kind(), batch=batch), model and model.config, self.plan)
        shaping = (chosen.guidance, chosen.rescale, chosen.interval, chosen.eta)
        strengths = Strengths(self.params, *shaping, model and model.params, scale)
        drawn = drawing.draw_many(
            draw, strengths, key, inputs, num=len(numbers), batch=batch, first=numbers.start
        )  # fmt: skip
        return drawing.finished(drawn, draws_pictures(self.config))

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
            labels = drawing.choose_labels(num_labels(self.config), label, range(x.shape[0]))
            condition = jax.tree.map(jnp.asarray, labels)
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
        batch = drawing.batch_for(num, self.config.sampling.batch, self.plan.devices)
        bits = compiled_bits(self.config, timesteps, self.plan)
        inputs = {"image": images, "condition": condition}
        return drawing.draw_many(bits, self.params, key, inputs, num=num, batch=batch)


def sampling_for(config: Config, request: SampleDiffusion) -> Sampling:
    """The model's own settings with those that were asked for."""
    named = {name: getattr(request, name) for name in ("steps", "sampler", "guidance")}
    chosen = replace(config.sampling, **{name: value for name, value in named.items() if value is not None})
    return override(chosen, request.set)


def settings(model: Model, request: SampleDiffusion) -> dict[str, Any]:
    """The settings used."""
    return {name: value for name, value in vars(sampling_for(model.config, request)).items() if name != "batch"}


def check_request(config: Config, request: SampleDiffusion) -> None:
    """Raises ValueError unless such a model can do that."""
    check_sampling(config, sampling_for(config, request))
    own = num_labels(config)
    require(request.label is None or own > 0 or request.classifier is not None,
            f"label={request.label}: this model knows no classes")  # fmt: skip
    require(request.label is None or not own or request.label < own,
            f"label={request.label}: expected a class from 0 to {own - 1}")  # fmt: skip
    check_beside(config, request, not draws_pictures(config))


def draw_samples(model: Model, request: SampleDiffusion, progress: Progress) -> Pictures:
    """What a request asks for."""
    sampling = sampling_for(model.config, request)
    guide = None
    if request.classifier is not None:
        scale = 1.0 if request.classifier_scale is None else request.classifier_scale
        guide = (CLASSIFIER.load(request.classifier), scale)
    progress("sampling")
    drawn = model.generate(
        jax.random.key(request.seed), request.numbers, label=request.label, sampling=sampling, guide=guide
    )
    return sampled(model, request, drawn)


def preview(model: Model, key: PRNGKey) -> np.ndarray:
    """What a run draws now; points beside real ones."""
    drawn = model.generate(key, model.config.sampling.batch)
    is_image = draws_pictures(model.config)
    return Pictures(drawn, beside=None if is_image else real_examples(model.config.data, "point", SHOWN_POINTS)).sheet()


def check(config: Config) -> None:
    """Raises ValueError unless previews can be drawn."""
    check_sampling(config, config.sampling)


FAMILY = Family(
    name="diffusion",
    config=Config,
    init_params=init_params,
    batch_spec=batch_spec,
    make_loss=make_loss,
    classes=num_labels,
    check=check,
    free=frozenset({"sampling", "evaluate_every", "evaluation"}),
    preview=preview,
    model=Model,
    requests={SampleDiffusion: Handler(draw_samples, check_request, settings=settings)},
)
