"""A trained generator, and drawing from it."""

import functools
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from flaxgen import parallel
from flaxgen.family.drawing import announced, batch_for, choose_labels, draw_many, finished, numbered, title
from flaxgen.family.trained import Trained
from flaxgen.types import PRNGKey
from flaxgen.zoo.gan.config import Config, Sampling, check_sampling, draws_pictures, example_shape, has_styles
from flaxgen.zoo.gan.training import make_latents


@functools.lru_cache(maxsize=16)
def compiled_draw(config: Config, kind: Sampling, plan: parallel.Plan):
    """`draw((variables, truncation), {"key": ..., "condition": ...})`, kept for the next call."""
    latents, generator = make_latents(config), config.generator

    def draw(arguments, inputs):
        variables, truncation = arguments
        latent_keys, noise_keys = jax.vmap(lambda key: tuple(jax.random.split(key)))(inputs["key"])
        styles: dict[str, Any] = {}
        if has_styles(config):
            styles = {"truncation": truncation, "noise_keys": noise_keys if kind.noise == "random" else None}
        return generator.apply(variables, latents(latent_keys), inputs["condition"].get("label"), **styles)

    return announced(plan.compile_map(draw, key=(config, kind)), title(plan, kind.batch, example_shape(config)))


class Model(Trained):
    """A trained generator. `params` are all its variables, those averaged and the buffers that belong to them."""

    config: Config

    def generate(
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
        inputs = {"condition": choose_labels(classes, label, numbers)}
        batch = batch_for(num, chosen.batch, self.plan.devices)
        draw = compiled_draw(self.config, replace(chosen.kind(), batch=batch), self.plan)
        arguments = (self.params, np.float32(chosen.truncation))
        drawn = draw_many(draw, arguments, key, inputs, num=num, batch=batch, first=numbers.start)
        return finished(drawn, draws_pictures(self.config))
