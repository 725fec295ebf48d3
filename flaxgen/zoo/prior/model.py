"""A trained prior, and drawing from it: from captions to image embeddings."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from flaxgen import parallel
from flaxgen.nets.ar_prior import ARPrior
from flaxgen.tokens import quantise
from flaxgen.tokens.sampling import make_choice, sample_codes
from flaxgen.train.config import require
from flaxgen.types import Params, PRNGKey
from flaxgen.zoo.diffusion.drawing import Sampling, Strengths, Subject, draw_many, guided, walk
from flaxgen.zoo.diffusion.model import batch_for
from flaxgen.zoo.diffusion.training import make_net_bind
from flaxgen.zoo.files import Files
from flaxgen.zoo.prior.config import TEXT, Config, empty_text, read_statistics
from flaxgen.zoo.prior.training import apply_net, make_quantiser
from flaxgen.zoo.process import make_schedule

Draw = Callable[[Mapping, Mapping], Float[Array, " D"]]
"""(what may change without compiling again, one example's key and text) -> an image embedding."""


def make_draw(config: Config, kind: Sampling, candidates: int) -> Draw:
    """The best of `candidates` drawn embeddings: the one with the largest dot product with the caption's [Ramesh22,
    sec. 2.2]; its first argument is as `given` makes it."""
    draw_one = _draw_codes(config.net) if isinstance(config.net, ARPrior) else _draw_embedding(config, kind)

    def draw(given, inputs):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(inputs["key"], jnp.arange(candidates))
        text = {name: inputs[name].astype(jnp.float32) for name in TEXT[:2]} | {"text_mask": inputs["text_mask"]}
        drawn = jax.vmap(lambda key: draw_one(given, jax.tree.map(lambda x: x[None], text), key))(keys)
        fits = (drawn / jnp.linalg.norm(drawn, axis=-1, keepdims=True)) @ text["text_embedding"]
        return drawn[jnp.argmax(fits)]

    return draw


def _draw_embedding(config: Config, kind: Sampling):
    schedule = make_schedule(config.process)
    bind = make_net_bind(config.process, False, functools.partial(apply_net, config))

    def draw_one(given, text, key):
        shape = (config.net.embedding_dim,)
        subject = Subject(schedule, config.process.timesteps, shape, bind, lambda _: given["empty"])
        strengths = Strengths(given["params"], given["guidance"], 0.0, (0.0, 1.0), given["eta"])
        denoise = guided(subject, kind, strengths, text)
        whitened = walk(subject, kind, given["eta"], denoise, key)[0]
        return whitened * given["statistics"]["std"] + given["statistics"]["mean"]

    return draw_one


def _draw_codes(net: ARPrior):
    def draw_one(given, text, key):
        fitted = make_quantiser(given["statistics"])
        dot_key, code_key = jax.random.split(key)
        told = jax.tree.map(lambda a, b: jnp.concatenate((a, b.astype(a.dtype))), text, dict(given["empty"]))
        dot = jnp.repeat(quantise.draw_dots(fitted, dot_key[None], net.dot_buckets), 2)
        apply = functools.partial(net.apply, {"params": given["params"]})

        def guide(logits_and_caches):
            (told_logits, null_logits), caches = logits_and_caches
            return (null_logits + given["guidance"] * (told_logits - null_logits))[None], caches

        def step(code, place, caches):
            return guide(apply(jnp.repeat(code, 2), place, caches, told["text_mask"], method="step"))

        start = guide(apply(dot, **told, method="start"))
        choose = make_choice(given["temperature"], top_p=given["top_p"])
        codes = sample_codes(start, step, net.dims, code_key[None], choose)
        return quantise.decode(fitted, codes, net.buckets)[0]

    return draw_one


@functools.lru_cache(maxsize=16)
def compiled_draw(config: Config, kind: Sampling, candidates: int, plan: parallel.Plan):
    """One drawing program, kept for the next call."""
    return plan.compile_map(jax.vmap(make_draw(config, kind, candidates), (None, 0)), key=(config, kind, candidates))


@dataclass(frozen=True)
class Model:
    """A trained prior; `plan` says on which devices it runs."""

    config: Config
    params: Params
    step: int
    plan: parallel.Plan
    found: Files

    def given(self, sampling: Sampling) -> dict:
        """What `make_draw`'s function takes first."""
        statistics = read_statistics(self.found)
        return {
            "params": self.params,
            "statistics": {name: v for name, v in statistics.items() if not name.startswith("empty_")},
            "empty": {k: v.astype(bool if k == "text_mask" else np.float32) for k, v in empty_text(statistics).items()},
            "guidance": sampling.guidance,
            "eta": sampling.eta,
            "temperature": self.config.temperature,
            "top_p": self.config.top_p,
        }

    def draw(
        self,
        text: Mapping[str, np.ndarray],
        key: PRNGKey,
        *,
        sampling: Sampling | None = None,
        candidates: int | None = None,
    ) -> Float[np.ndarray, "N D"]:
        """One image embedding for each caption, given as the fields that `embeddings.text_fields` makes; embedding i
        depends on the key, on caption i and on i alone.

        Raises:
            ValueError: if a value is out of range, or the texts are of another CLIP's size.
        """
        chosen, candidates = sampling or self.config.sampling, candidates or self.config.candidates
        require(
            chosen.guidance == 1 or self.config.objective.condition_dropout > 0,
            f"guidance={chosen.guidance} needs a prior trained with objective.condition_dropout, and this one was not",
        )
        width = text["text_hidden"].shape[-1]
        require(width == self.config.net.text_dim, f"captions {width} wide: expected {self.config.net.text_dim}")
        num = len(text["text_embedding"])
        batch = batch_for(num, chosen.batch, self.plan.devices)
        draw = compiled_draw(self.config, replace(chosen.kind(), batch=batch), candidates, self.plan)
        inputs = {name: text[name] for name in TEXT}
        return draw_many(draw, self.given(chosen), key, inputs, num=num, batch=batch)
