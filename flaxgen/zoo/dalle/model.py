"""What a transformer over captions and codes minimises, and drawing codes of captions with a trained one [Ramesh21;
Dayma21]."""

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from flaxgen import parallel
from flaxgen.diffusion import losses
from flaxgen.family.captions import make_tokenizer, unseen_words
from flaxgen.family.coded import CodeDrawing, check_hidden
from flaxgen.family.drawing import announced, batch_for, draw_many, title
from flaxgen.family.request import Request
from flaxgen.family.trained import Files, Trained
from flaxgen.tokens import guidance
from flaxgen.tokens.sampling import Step, make_choice, sample_codes
from flaxgen.types import Loss, Params, PRNGKey
from flaxgen.zoo.dalle.config import MISSING, Config, batch_spec
from flaxgen.zoo.dalle.kinds import Example, kind_of, sides_of


def init_params(config: Config, key: PRNGKey) -> Params:
    """Fresh parameters."""
    spec = batch_spec(config)
    text, mask, codes = (jnp.zeros((1, *spec[name].shape[1:]), spec[name].dtype) for name in ("ids", "mask", "codes"))
    run = functools.partial(config.net.init, key)
    return kind_of(config.net).call(run, Example(text, mask, codes))["params"]


def make_loss(config: Config, files: Files) -> Loss:
    """What the kind of net minimises; now and then the caption is empty."""
    empty, kind = None, kind_of(config.net)
    if config.caption_dropout and files:
        empty = make_tokenizer(files, MISSING)([""])

    def loss(params, batch, key):
        example = Example(batch["ids"], batch["mask"], batch["codes"], jnp.zeros((), bool))
        if empty is not None:
            is_hidden = jax.random.bernoulli(key, config.caption_dropout)
            text = jnp.where(is_hidden, empty.ids, example.text)
            mask = jnp.where(is_hidden, empty.mask, example.mask)
            example = Example(text, mask, example.codes, is_hidden)
        logits = kind.call(functools.partial(config.net.apply, {"params": params}), example)
        return kind.cost(config.net, logits, example, config.text_weight)

    return losses.per_example(loss)


def make_draw(config: Config, drawing: CodeDrawing, num_codes: int):
    """`draw(arguments, inputs)`: the codes [B h w] of captions, each with a key of its own, among the first `num_codes`
    that the net knows; of `known` codes [B N] the first ones. `arguments` are the parameters, the empty caption, and
    the settings that may change without compiling again."""
    net, guided, (rows, columns) = config.net, drawing.guidance != 1, sides_of(config.net)

    def draw(arguments, inputs):
        text, mask = inputs["ids"], inputs["mask"]
        known = inputs.get("known")
        num = len(text)
        if guided:
            text, mask = (
                jnp.concatenate((given, jnp.broadcast_to(arguments[name], given.shape)))
                for name, given in (("empty_ids", text), ("empty_mask", mask))
            )
        run = functools.partial(net.apply, {"params": arguments["params"]})
        seen = known if known is None or not guided else jnp.concatenate((known, known))
        begun = 0 if known is None else known.shape[1]
        start = kind_of(net).start(run, text, mask, seen)

        def step_on(code, place, caches):
            return cast(tuple, run(code, begun + place, caches, method="step"))

        step: Step = step_on
        if guided:
            start = guidance.guided_start(start, arguments["guidance"])
            step = guidance.guided_step(step_on, arguments["guidance"])
        top_p = 1.0 if drawing.top_p == 1 else arguments["top_p"]
        choose = make_choice(arguments["temperature"], top_k=drawing.top_k, top_p=top_p)

        def choose_known(logits, key):
            return choose(logits[:num_codes], key)

        drawn = sample_codes(start, step, rows * columns - begun, inputs["key"], choose_known)
        whole = drawn if known is None else jnp.concatenate((known, drawn), axis=1)
        return whole.reshape(num, rows, columns)

    return draw


@functools.lru_cache(maxsize=16)
def compiled_draw(config: Config, drawing: CodeDrawing, num_codes: int, known: int, plan: parallel.Plan):
    """One drawing program, kept for the next call."""
    said = title(plan, drawing.batch, sides_of(config.net), "codes of captions")
    key = ("dalle", config.net, drawing, num_codes, known)
    return announced(plan.compile_map(make_draw(config, drawing, num_codes), key=key), said)


class Model(Trained):
    """A trained transformer over captions and codes."""

    config: Config

    @functools.cached_property
    def tokenizer(self):
        """From captions to tokens."""
        return make_tokenizer(self.files, MISSING)

    def unseen_words(self, request: Request) -> tuple[str, ...]:
        """The words of a request that it has never seen in training."""
        return unseen_words(self.files, getattr(request, "captions", ()))

    def draw_codes(
        self,
        captions: Sequence[str],
        key: PRNGKey,
        *,
        drawing: CodeDrawing | None = None,
        known: Int[np.ndarray, "n w"] | None = None,
        num_codes: int | None = None,
    ) -> Int[np.ndarray, "N h w"]:
        """The codes of a picture for each caption; those of caption i depend on the key, on it and on i alone. `known`
        are the upper rows, which are kept. With `num_codes`, of the codes that the net knows only so many are drawn.

        Raises:
            ValueError: if a value is out of range or not for this model.
        """
        chosen, num = drawing or self.config.drawing, len(captions)
        check_drawing(self.config, chosen)
        tokens, empty = self.tokenizer(captions), self.tokenizer([""])
        inputs: dict[str, Any] = {"ids": tokens.ids, "mask": tokens.mask}
        begun = 0 if known is None else known.size
        if known is not None:
            inputs["known"] = np.repeat(known.reshape(1, -1).astype(np.int32), num, 0)
        batch = batch_for(num, chosen.batch, self.plan.devices)
        compiled = replace(chosen.kind(), batch=batch)
        draw = compiled_draw(self.config, compiled, num_codes or self.config.net.codes, begun, self.plan)
        settings = {name: np.float32(getattr(chosen, name)) for name in ("temperature", "top_p", "guidance")}
        arguments = {"params": self.params, "empty_ids": empty.ids, "empty_mask": empty.mask, **settings}
        return draw_many(draw, arguments, key, inputs, num=num, batch=batch)


def check_drawing(config: Config, drawing: CodeDrawing) -> None:
    """Raises ValueError unless these settings can draw from such a model."""
    check_hidden(drawing, config.caption_dropout, "caption_dropout")
