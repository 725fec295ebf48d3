"""A GAN's run from a config, and a trained generator with its verbs."""

import functools
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from flaxgen import parallel
from flaxgen.data import Data
from flaxgen.train.config import require
from flaxgen.types import Experiment, Params, PRNGKey
from flaxgen.zoo import pictures
from flaxgen.zoo.diffusion.drawing import announced, draw_many, finished, numbered
from flaxgen.zoo.diffusion.model import SHOWN_POINTS, batch_for, choose_labels
from flaxgen.zoo.gan.config import (
    Config,
    Sampling,
    batch_fields,
    batch_spec,
    draws_pictures,
    example_shape,
    has_styles,
)
from flaxgen.zoo.gan.training import make_latents, make_training
from flaxgen.zoo.matching import open_matching, real_examples


def build(config: Config) -> Experiment:
    """The run.

    Raises:
        ValueError: if the data cannot be read or do not fit the nets, or if these, the batch, the regularisers or the
            augmentation do not fit together.
    """
    init, make_step = make_training(config)
    state, key = jax.eval_shape(init, jax.random.key(0)), jax.random.key(0)
    jax.eval_shape(make_step(None), state, batch_spec(config), key)
    check_sampling(config, config.sampling)
    shapes = dict(zip(batch_fields(config), (example_shape(config), ()), strict=False))
    source = open_matching(config.data, shapes, config.generator.num_classes)
    here = parallel.jit_plan()

    def preview(state, key):
        drawn = Model(config, state.ema_params, 0, here).sample(key, config.sampling.batch)
        real = None if draws_pictures(config) else real_examples(config.data, "point", SHOWN_POINTS)
        return pictures.draw(drawn, real)

    return Experiment(init, make_step, source, batch_fields(config), preview)


def check_sampling(config: Config, sampling: Sampling) -> None:
    """Raises ValueError unless these settings can draw from such a model."""
    styled = has_styles(config)
    require(
        styled or sampling.truncation == 1,
        f"truncation={sampling.truncation} needs a generator with a w, such as StyleGAN2, and this one has none",
    )
    require(styled or sampling.noise == "constant", f"noise={sampling.noise} is of StyleGAN2, and this one has none")


@functools.lru_cache(maxsize=16)
def compiled_draw(config: Config, kind: Sampling, plan: parallel.Plan):
    """`draw((variables, truncation), {"key": ..., "condition": ...})`, kept for the next call."""
    latents, generator = make_latents(config), config.generator

    def draw(given, inputs):
        variables, truncation = given
        latent_keys, noise_keys = jax.vmap(lambda key: tuple(jax.random.split(key)))(inputs["key"])
        told: dict[str, Any] = {}
        if has_styles(config):
            told = {"truncation": truncation, "noise_keys": noise_keys if kind.noise == "random" else None}
        return generator.apply(variables, latents(latent_keys), inputs["condition"].get("label"), **told)

    shape = " x ".join(map(str, (kind.batch, *example_shape(config))))
    return announced(
        plan.compile_map(draw, key=(config, kind)), f"{shape}, on {plan.devices} {jax.default_backend()} device(s)"
    )


@dataclass(frozen=True)
class Model:
    """A trained generator and what can be done with it; `plan` says on which devices. `params` are all its variables,
    those averaged and the buffers that belong to them."""

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
        truncation: float | None = None,
        sampling: Sampling | None = None,
    ) -> Float[np.ndarray, "N ..."]:
        """`num` pictures, float32 [num H W C] in [-1, 1], or those of a range of numbers; picture i depends on the key
        and on i alone.

        `label` is the class to draw; None takes all in turn. What is None otherwise is as in `sampling`, by default the
        config's.

        Raises:
            ValueError: if a value is out of range or not for this model.
            FloatingPointError: if the weights draw what is not finite.
        """
        chosen = sampling or self.config.sampling
        chosen = chosen if truncation is None else replace(chosen, truncation=truncation)
        numbers = numbered(num)
        num = len(numbers)
        check_sampling(self.config, chosen)
        classes = self.config.generator.num_classes
        require(label is None or classes > 0, f"label={label}: this model knows no classes")
        inputs = {"condition": choose_labels(classes, label, numbers)}
        batch = batch_for(num, chosen.batch, self.plan.devices)
        draw = compiled_draw(self.config, replace(chosen.kind(), batch=batch), self.plan)
        given = (self.params, np.float32(chosen.truncation))
        drawn = draw_many(draw, given, key, inputs, num=num, batch=batch, first=numbers.start)
        return finished(drawn, draws_pictures(self.config))

    def real_examples(self, num: int, data: Data | None = None) -> np.ndarray:
        """Examples to put beside `num` samples: of what the model was trained on, or of `data`."""
        field = batch_fields(self.config)[0]
        return real_examples(data or self.config.data, field, num if field == "image" else SHOWN_POINTS)
