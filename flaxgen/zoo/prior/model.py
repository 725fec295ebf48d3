"""From captions to image embeddings: what a prior minimises, and drawing from a trained one [Ramesh22, sec. 2.2]."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from flaxgen import parallel
from flaxgen.diffusion import losses
from flaxgen.family.batches import Drop, read_batch
from flaxgen.family.companions import companion_file
from flaxgen.family.denoising import make_apply, make_denoising_loss, make_net_bind
from flaxgen.family.drawing import batch_for, draw_many
from flaxgen.family.family import Family
from flaxgen.family.process import make_schedule
from flaxgen.family.sampling import Sampling, Strengths, Subject, guided, walk
from flaxgen.family.trained import Files, Trained
from flaxgen.nets.ar_prior import ARPrior
from flaxgen.tokens import quantise
from flaxgen.tokens.guidance import guided_start, guided_step
from flaxgen.tokens.sampling import make_choice, sample_codes
from flaxgen.train.config import require
from flaxgen.types import Loss, Params, PRNGKey
from flaxgen.zoo.prior.config import (
    STATISTICS,
    TEXT,
    Config,
    batch_spec,
    blank_statistics,
    empty_text,
    open_embeddings,
    prepare,
    read_statistics,
)


def init_params(config: Config, key: PRNGKey) -> Params:
    """Fresh parameters."""
    net = config.net
    example = {name: jnp.zeros((1, *spec.shape[1:]), spec.dtype) for name, spec in batch_spec(config).items()}
    text = _text(example)
    if isinstance(net, ARPrior):
        codes, dot_code = jnp.zeros((1, net.dims), jnp.int32), jnp.zeros(1, jnp.int32)
        return net.init(key, codes, dot_code, **text)["params"]
    return net.init(key, example["image_embedding"], jnp.ones(1), **text)["params"]


def _text(batch: Mapping[str, Any]) -> dict[str, Any]:
    """What the net reads of captions; hidden states are kept in half precision."""
    return {name: batch[name] for name in TEXT} | {"text_hidden": batch["text_hidden"].astype(jnp.float32)}


def make_loss(config: Config, files: Files) -> Loss:
    """The square error of the embedding [Ramesh22, eq. 2], or the cross-entropy of its codes."""
    statistics = read_statistics(files) if STATISTICS in files else blank_statistics(config)
    drops = [Drop(config.objective.condition_dropout, empty_text(statistics))]
    read = read_batch("image_embedding", TEXT, drops)
    if isinstance(config.net, ARPrior):
        return losses.per_example(_code_loss(config.net, make_quantiser(statistics), read))

    def whitened(batch, key):
        image, text = read(batch, key)
        return (image - statistics["mean"][None]) / statistics["std"][None], text

    return make_denoising_loss(config.process, config.objective, False, make_apply(config.net, _text), whitened)


def make_quantiser(statistics: Mapping[str, Any]) -> quantise.Quantiser:
    """What an autoregressive prior's codes stand for."""
    return quantise.Quantiser(**{name: jnp.asarray(statistics[name]) for name in quantise.Quantiser._fields})


def _code_loss(net: ARPrior, fitted: quantise.Quantiser, read: losses.Inputs) -> losses.ExampleLoss:
    """Nats a code."""

    def loss(params, batch, key):
        image, text = read(batch, key)
        dots = jnp.sum(image * batch["text_embedding"], axis=-1)
        codes = quantise.encode(fitted, image, net.buckets)
        dot_code = quantise.encode_dots(fitted, dots, net.dot_buckets)
        logits = cast(jax.Array, net.apply({"params": params}, codes, dot_code, **_text(text)))
        value = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, codes))
        return value, {"loss": value, "accuracy": jnp.mean(jnp.argmax(logits, -1) == codes)}

    return loss


Draw = Callable[[Mapping, Mapping], Float[Array, " D"]]
"""(what may change without compiling again, one example's key and text) -> an image embedding."""


def make_draw(config: Config, kind: Sampling, candidates: int) -> Draw:
    """The best of `candidates` drawn embeddings: the one with the largest dot product with the caption's [Ramesh22,
    sec. 2.2]; its first argument is as `Model.arguments` makes it."""
    draw_one = _draw_codes(config.net) if isinstance(config.net, ARPrior) else _draw_embedding(config, kind)

    def draw(arguments, inputs):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(inputs["key"], jnp.arange(candidates))
        text = {name: inputs[name].astype(jnp.float32) for name in TEXT[:2]} | {"text_mask": inputs["text_mask"]}
        drawn = jax.vmap(lambda key: draw_one(arguments, jax.tree.map(lambda x: x[None], text), key))(keys)
        fits = (drawn / jnp.linalg.norm(drawn, axis=-1, keepdims=True)) @ text["text_embedding"]
        return drawn[jnp.argmax(fits)]

    return draw


def _draw_embedding(config: Config, kind: Sampling):
    schedule = make_schedule(config.process)
    bind = make_net_bind(config.process, False, make_apply(config.net, _text))

    def draw_one(arguments, text, key):
        shape = (config.net.embedding_dim,)
        subject = Subject(schedule, config.process.timesteps, shape, bind, lambda _: arguments["empty"])
        strengths = Strengths(arguments["params"], arguments["guidance"], 0.0, (0.0, 1.0), arguments["eta"])
        denoise = guided(subject, kind, strengths, text)
        whitened = walk(subject, kind, arguments["eta"], denoise, key)[0]
        return whitened * arguments["statistics"]["std"] + arguments["statistics"]["mean"]

    return draw_one


def _draw_codes(net: ARPrior):
    def draw_one(arguments, text, key):
        fitted = make_quantiser(arguments["statistics"])
        dot_key, code_key = jax.random.split(key)
        both = jax.tree.map(lambda a, b: jnp.concatenate((a, b.astype(a.dtype))), text, dict(arguments["empty"]))
        # both branches: in training captions are hidden, and not how well they fit [Ramesh22, sec. 2.2]
        dot = jnp.repeat(quantise.draw_dots(fitted, dot_key[None], net.dot_buckets), 2)
        apply = functools.partial(net.apply, {"params": arguments["params"]})

        def step(code, place, caches):
            return apply(code, place, caches, both["text_mask"], method="step")

        start = guided_start(apply(dot, **both, method="start"), arguments["guidance"])
        choose = make_choice(arguments["temperature"], top_p=arguments["top_p"])
        guided = guided_step(step, arguments["guidance"])
        codes = sample_codes(start, guided, net.dims, code_key[None], choose)
        return quantise.decode(fitted, codes, net.buckets)[0]

    return draw_one


@functools.lru_cache(maxsize=16)
def compiled_draw(config: Config, kind: Sampling, candidates: int, plan: parallel.Plan):
    """One drawing program, kept for the next call."""
    return plan.compile_map(jax.vmap(make_draw(config, kind, candidates), (None, 0)), key=(config, kind, candidates))


class Model(Trained):
    """A trained prior."""

    config: Config

    def arguments(self, sampling: Sampling) -> dict:
        """What `make_draw`'s function takes first."""
        statistics = read_statistics(self.files)
        return {
            "params": self.params,
            "statistics": {name: v for name, v in statistics.items() if not name.startswith("empty_")},
            "empty": {k: v.astype(bool if k == "text_mask" else np.float32) for k, v in empty_text(statistics).items()},
            "guidance": sampling.guidance,
            "eta": sampling.eta,
            "temperature": self.config.temperature,
            "top_p": self.config.top_p,
        }

    def draw_embeddings(
        self,
        text: Mapping[str, np.ndarray],
        key: PRNGKey,
        *,
        sampling: Sampling | None = None,
        candidates: int | None = None,
    ) -> Float[np.ndarray, "N D"]:
        """One image embedding for each caption, as the fields that `text_fields` of a CLIP makes; embedding i
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
        return draw_many(draw, self.arguments(chosen), key, inputs, num=num, batch=batch)


FAMILY = Family(
    name="prior",
    config=Config,
    init_params=init_params,
    batch_spec=batch_spec,
    make_loss=make_loss,
    open_source=lambda family, config, files: open_embeddings(config),
    prepare=prepare,
    files=(STATISTICS, companion_file("CLIP")),
    free=frozenset({"sampling", "clip", "cache"}),
    model=Model,
    instead="makes embeddings of captions and draws nothing: draw with the unCLIP that `flaxgen compose` makes of it "
    "and the other stages",
)
