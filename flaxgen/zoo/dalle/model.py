"""What DALL-E's transformer minimises, and drawing codes of captions with a trained one [Ramesh21]."""

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
from flaxgen.nets.dalle import own_padding
from flaxgen.tokens import guidance
from flaxgen.tokens.losses import joint_loss, nats_per_token
from flaxgen.tokens.sampling import Step, make_choice, sample_codes
from flaxgen.types import Loss, Params, PRNGKey
from flaxgen.zoo.dalle.config import MISSING, Config, batch_spec


def init_params(config: Config, key: PRNGKey) -> Params:
    """Fresh parameters."""
    spec = batch_spec(config)
    text, mask, codes = (jnp.zeros((1, *spec[name].shape[1:]), spec[name].dtype) for name in ("ids", "mask", "codes"))
    return config.net.init(key, text, mask, codes)["params"]


def make_loss(config: Config, files: Files) -> Loss:
    """Text and codes, each in nats a token of its kind [Ramesh21, sec. 2.2]; now and then the caption is empty, and
    its text is then not counted."""
    empty = None
    if config.caption_dropout and files:
        empty = make_tokenizer(files, MISSING)([""])

    def loss(params, batch, key):
        ids, mask, is_hidden = batch["ids"], batch["mask"], jnp.zeros((), bool)
        if empty is not None:
            is_hidden = jax.random.bernoulli(key, config.caption_dropout)
            ids, mask = (jnp.where(is_hidden, *pair) for pair in ((empty.ids, ids), (empty.mask, mask)))
        text_logits, code_logits = cast(tuple, config.net.apply({"params": params}, ids, mask, batch["codes"]))
        targets = own_padding(ids, mask, config.net.text_tokens)[:, 1:]
        text = jnp.where(is_hidden, 0.0, nats_per_token(text_logits, targets))
        codes = nats_per_token(code_logits, batch["codes"])
        value = joint_loss(text, codes, config.text_weight)
        right = jnp.mean(jnp.argmax(code_logits, -1) == batch["codes"])
        return value, {"loss": value, "text_nats": text, "code_nats": codes, "accuracy": right}

    return losses.per_example(loss)


def make_draw(config: Config, kind: CodeDrawing):
    """`draw(arguments, inputs)`: the codes [B h w] of captions, each with a key of its own; of `known` codes [B N] the
    first ones. `arguments` are the parameters, the empty caption, and the settings that may change without compiling
    again."""
    net, guided = config.net, kind.guidance != 1

    def draw(arguments, inputs):
        text, mask = inputs["ids"], inputs["mask"]
        known = inputs.get("known")
        num = len(text)
        if guided:
            text, mask = (
                jnp.concatenate((given, jnp.broadcast_to(arguments[name], given.shape)))
                for name, given in (("empty_ids", text), ("empty_mask", mask))
            )
        apply = functools.partial(net.apply, {"params": arguments["params"]})
        seen = known if known is None or not guided else jnp.concatenate((known, known))
        begun = 0 if known is None else known.shape[1]
        start = cast(tuple, apply(text, mask, seen, method="start"))

        def step_on(code, place, caches):
            return cast(tuple, apply(code, begun + place, caches, method="step"))

        step: Step = step_on
        if guided:
            start = guidance.guided_start(start, arguments["guidance"])
            step = guidance.guided_step(step_on, arguments["guidance"])
        choose = make_choice(arguments["temperature"], top_k=kind.top_k, top_p=arguments["top_p"])
        drawn = sample_codes(start, step, net.rows * net.columns - begun, inputs["key"], choose)
        whole = drawn if known is None else jnp.concatenate((known, drawn), axis=1)
        return whole.reshape(num, net.rows, net.columns)

    return draw


@functools.lru_cache(maxsize=16)
def compiled_draw(config: Config, kind: CodeDrawing, known: int, plan: parallel.Plan):
    """One drawing program, kept for the next call."""
    said = title(plan, kind.batch, (config.net.rows, config.net.columns), "codes of captions")
    return announced(plan.compile_map(make_draw(config, kind), key=("dalle", config.net, kind, known)), said)


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
    ) -> Int[np.ndarray, "N h w"]:
        """The codes of a picture for each caption; those of caption i depend on the key, on it and on i alone. `known`
        are the upper rows, which are kept.

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
        draw = compiled_draw(self.config, replace(chosen.kind(), batch=batch), begun, self.plan)
        settings = {name: np.float32(getattr(chosen, name)) for name in ("temperature", "top_p", "guidance")}
        arguments = {"params": self.params, "empty_ids": empty.ids, "empty_mask": empty.mask, **settings}
        return draw_many(draw, arguments, key, inputs, num=num, batch=batch)


def check_drawing(config: Config, drawing: CodeDrawing) -> None:
    """Raises ValueError unless these settings can draw from such a model."""
    check_hidden(drawing, config.caption_dropout, "caption_dropout")
