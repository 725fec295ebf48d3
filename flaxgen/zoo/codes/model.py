"""What a prior over codes minimises, and drawing from a trained one."""

import functools
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from flaxgen import parallel
from flaxgen.diffusion import losses
from flaxgen.family import coded
from flaxgen.family.drawing import announced, batch_for, choose_labels, draw_many, numbered, title
from flaxgen.family.levels import BOTTOM, TOP
from flaxgen.family.trained import Files, Trained
from flaxgen.nets import layers
from flaxgen.nets.code_condition import condition_like
from flaxgen.nets.code_transformer import CodeTransformer, MaskedCodeTransformer
from flaxgen.tokens import guidance, logistic, masked
from flaxgen.tokens.sampling import Known, known_rows, make_choice, sample_codes, sample_without_cache
from flaxgen.train.config import require
from flaxgen.types import Loss, Params, PRNGKey
from flaxgen.zoo.codes.config import (
    Config,
    Drawing,
    condition_of,
    from_levels,
    grid_shape,
    is_mixture,
    num_labels,
    of_pixels,
    to_levels,
)
from flaxgen.zoo.codes.maps import load_autoencoder


def init_params(config: Config, key: PRNGKey) -> Params:
    """Fresh parameters."""
    label = jnp.zeros(1, jnp.int32) if config.net.num_classes else None
    given = conditions(label, condition_like(config.net))
    return config.net.init(key, jnp.zeros((1, *grid_shape(config)), jnp.int32), **given)["params"]


def conditions(label: Array | None, condition: Array | None) -> dict[str, Any]:
    """What is given beside codes, by the net's own keywords."""
    return {name: value for name, value in (("label", label), ("condition", condition)) if value is not None}


def make_loss(config: Config, files: Files) -> Loss:
    """Cross-entropy in nats a code, of pixels in nats a number and in bits; of a masked net [Chang22, eq. 1]."""
    dropout = getattr(config.net, "dropout", 0.0)

    def loss(params, batch, key):
        drop_key, net_key, mask_key = (jax.random.fold_in(key, use) for use in range(3))
        label = _read_label(config, batch, drop_key)
        codes = to_levels(batch["image"], config.net.codes) if of_pixels(config) else batch["codes"]
        given = conditions(label, batch.get("condition"))
        rngs = {"dropout": net_key} if dropout else None

        def apply(read):
            return cast(Array, config.net.apply({"params": params}, read, train=True, rngs=rngs, **given))

        if isinstance(config.net, MaskedCodeTransformer):
            return _masked_loss(config, apply, codes, mask_key)
        return _next_loss(config, apply(codes), codes)

    return losses.per_example(loss)


def _read_label(config: Config, batch: Mapping[str, Array], key: PRNGKey) -> Array | None:
    """The label, or now and then the null label."""
    if not config.net.num_classes:
        return None
    if not config.condition_dropout:
        return batch["label"]
    hidden = jax.random.bernoulli(key, config.condition_dropout)
    return jnp.where(hidden, config.net.num_classes - 1, batch["label"])


def nats(config: Config, logits: Float[Array, "B h w *K"], codes: Int[Array, "B h w *C"]) -> Float[Array, " B"]:
    """-log P of codes, or of pixels' levels, of what a net gives of them: the mean of each example."""
    if is_mixture(config):
        mixture = logistic.read_mixture(logits, codes.shape[-1])
        return -logistic.log_prob(mixture, codes, config.net.codes).mean((1, 2)) / codes.shape[-1]
    each = optax.softmax_cross_entropy_with_integer_labels(logits, codes)
    return each.reshape(len(codes), -1).mean(1)


def _next_loss(config: Config, logits: Array, codes: Array) -> tuple[Array, dict[str, Array]]:
    value = nats(config, logits, codes).mean()
    metrics = {"loss": value} | ({"bits_per_dim": value / math.log(2)} if of_pixels(config) else {})
    if not is_mixture(config):
        metrics["accuracy"] = jnp.mean(jnp.argmax(logits, -1) == codes)
    return value, metrics


def _masked_loss(config: Config, apply, codes: Array, key: PRNGKey) -> tuple[Array, dict[str, Array]]:
    places = codes.shape[1] * codes.shape[2]
    mask = masked.draw_masks(key[None], places, config.least_masked)
    flat = codes.reshape(1, places)
    logits = apply(jnp.where(mask, config.net.codes, flat).reshape(codes.shape)).reshape(1, places, -1)
    value = masked.masked_loss(logits, flat, mask, config.smoothing).mean()
    right = jnp.sum((jnp.argmax(logits, -1) == flat) * mask) / jnp.sum(mask)
    return value, {"loss": value, "accuracy": right}


def make_draw(config: Config, kind: Drawing):
    """`draw(arguments, inputs)`: codes [B L], or values of pixels [B L C], of each key, with its label and the codes
    that are known of it. `arguments` are the parameters and the settings that may change without compiling again."""
    net, guided = config.net, kind.guidance != 1

    def draw(arguments, inputs):
        keys = inputs["key"]
        label, condition = inputs.get("label"), inputs.get("condition")
        if guided:
            label = jnp.concatenate((label, jnp.full_like(label, net.num_classes - 1)))
            condition = None if condition is None else jnp.concatenate((condition, condition))
        apply = functools.partial(net.apply, {"params": arguments["params"]})
        shape = grid_shape(config)
        known = Known(inputs["known"], inputs["is_known"]) if "known" in inputs else None

        def predict(codes):
            logits = cast(Array, apply(codes.reshape(-1, *shape), **conditions(label, condition)))
            return logits.reshape(len(codes), shape[0] * shape[1], -1)

        if is_mixture(config):
            choose = logistic.make_pixel_choice(shape[-1], net.codes, arguments["temperature"])
            return sample_without_cache(predict, (shape[0] * shape[1], shape[-1]), keys, choose, known)
        top_p = 1.0 if kind.top_p == 1 else arguments["top_p"]
        choose = make_choice(arguments["temperature"], top_k=kind.top_k, top_p=top_p)
        scale = arguments["guidance"]
        if isinstance(net, CodeTransformer):
            start = cast(tuple, apply(label, len(keys), method="start"))
            step = functools.partial(apply, method="step")
            if guided:
                start, step = guidance.guided_start(start, scale), guidance.guided_step(step, scale)  # pyright: ignore
            return sample_codes(start, step, shape[0] * shape[1], keys, choose, known)  # pyright: ignore
        predict_one = guidance.guided_predict(predict, scale) if guided else predict
        if isinstance(net, MaskedCodeTransformer):
            rounds = masked.Rounds(shape[0] * shape[1], net.codes, kind.steps, arguments["noise"])
            return masked.fill_in(predict_one, rounds, keys, choose, known)
        if len(shape) == 3:
            return _sample_values(predict_one, shape, net.codes, keys, choose, known)
        return sample_without_cache(predict_one, (shape[0] * shape[1],), keys, choose, known)

    return draw


def _sample_values(predict, shape, levels: int, keys, choose, known):
    """Pixels whose channels are drawn one after the other: a sequence of h w C values."""
    height, width, channels = shape

    def predict_values(values):
        return predict(values).reshape(len(values), height * width * channels, levels)

    if known is not None:
        codes, mask = known.codes.reshape(len(keys), -1), jnp.repeat(known.mask, channels, axis=1)
        known = Known(codes, mask)
    drawn = sample_without_cache(predict_values, (height * width * channels,), keys, choose, known)
    return drawn.reshape(len(keys), height * width, channels)


@functools.lru_cache(maxsize=16)
def compiled_draw(config: Config, kind: Drawing, is_completed: bool, plan: parallel.Plan):
    """One drawing program, kept for the next call."""
    said = title(plan, kind.batch, grid_shape(config), f"a {type(config.net).__name__} of codes")
    key = ("codes", config.net, config.condition_dropout, kind, is_completed)
    return announced(plan.compile_map(make_draw(config, kind), key=key), said)


@functools.lru_cache(maxsize=4)
def compiled_nats(config: Config, plan: parallel.Plan):
    """The evaluator of `Model.likelihood_of`."""

    def evaluate(params, inputs):
        given = conditions(inputs.get("label"), inputs.get("condition"))
        logits = config.net.apply({"params": params}, inputs["codes"], **given)
        return nats(config, cast(Array, logits), inputs["codes"])

    return plan.compile_map(evaluate, key=("nats", config.net))


class Model(Trained):
    """A trained prior over codes, or model of pixels."""

    config: Config

    def likelihood_of(
        self,
        codes: Int[np.ndarray, "N h w *C"],
        label: Int[np.ndarray, " N"] | None = None,
        condition: Int[np.ndarray, "N u v"] | None = None,
    ) -> Float[np.ndarray, " N"]:
        """-log P of each example in nats a code, or a number of its pixels, given its label where the net reads them,
        and of a bottom level the codes of the top, `condition`.

        Raises:
            ValueError: for a masked net, which says no probability of all codes together.
        """
        check_likelihood(self.config)
        found = {"codes": codes, "label": label, "condition": condition}
        inputs = {name: value.astype(np.int32) for name, value in found.items() if value is not None}
        batch = batch_for(len(codes), self.config.drawing.batch, self.plan.devices)
        compiled, key = compiled_nats(self.config, self.plan), jax.random.key(0)
        return draw_many(compiled, self.params, key, inputs, num=len(codes), batch=batch)

    @functools.cached_property
    def autoencoder(self) -> Any:
        """What its codes are of.

        Raises:
            ValueError: if it is not where the config says, or another one than the prior was trained with.
        """
        found = load_autoencoder(self.family.companions[coded.AUTOENCODER], self.config)
        coded.name_autoencoder(self.files, found)
        return found

    def draw_codes(
        self,
        key: PRNGKey,
        numbers: range,
        *,
        label: int | None = None,
        drawing: Drawing | None = None,
        known: tuple[Int[np.ndarray, "h w *C"], int] | None = None,
        condition: Int[np.ndarray, "N u v"] | None = None,
    ) -> Int[np.ndarray, "N h w *C"]:
        """Codes of the numbers, or values of pixels; those of a number depend on the key and on it alone.

        `label` is the class to draw; None takes all in turn. `known` are codes of which so many upper rows are kept,
        and `condition` the top's codes that a bottom level is drawn for.

        Raises:
            ValueError: if a value is out of range or not for this model.
        """
        chosen, num = drawing or self.config.drawing, len(numbers)
        check_drawing(self.config, chosen)
        layers.check_given("condition", condition, "condition", condition_of(self.config) is not None)
        inputs: dict[str, np.ndarray] = dict(choose_labels(num_labels(self.config), label, numbers))
        if condition is not None:
            inputs["condition"] = condition.astype(np.int32)
        if known is not None:
            inputs |= _known_inputs(self.config, *known, num)
        batch = batch_for(num, chosen.batch, self.plan.devices)
        draw = compiled_draw(self.config, replace(chosen.kind(), batch=batch), known is not None, self.plan)
        settings = {name: np.float32(getattr(chosen, name)) for name in ("temperature", "top_p", "guidance", "noise")}
        arguments = {"params": self.params, **settings}
        drawn = draw_many(draw, arguments, key, inputs, num=num, batch=batch, first=numbers.start)
        return drawn.reshape(num, *grid_shape(self.config))

    def to_pictures(
        self, codes: Int[np.ndarray, "N h w *C"], condition: Int[np.ndarray, "N u v"] | None = None
    ) -> Float[np.ndarray, "N H W C"]:
        """The pictures of codes, or of pixels, in [-1, 1]; of the top's codes what they say alone, and of the bottom's
        beside those of the top, `condition`."""
        if of_pixels(self.config):
            return from_levels(codes, self.config.net.codes).astype(np.float32) / 127.5 - 1
        if self.config.level == TOP:
            return self.autoencoder.decode_top(codes)
        return self.autoencoder.decode_codes(codes if condition is None else {TOP: condition, BOTTOM: codes})

    def generate(
        self, key: PRNGKey, num: int | range = 64, *, label: int | None = None, drawing: Drawing | None = None
    ) -> Float[np.ndarray, "N H W C"]:
        """`num` pictures, in [-1, 1], or those of a range of numbers; the rest is as in `draw_codes`."""
        return self.to_pictures(self.draw_codes(key, numbered(num), label=label, drawing=drawing))


def _known_inputs(config: Config, codes: np.ndarray, rows: int, num: int) -> dict[str, np.ndarray]:
    coded.check_rows(rows, config.net.height)
    known = known_rows(jnp.asarray(codes, jnp.int32)[None], rows)
    return {"known": np.repeat(np.asarray(known.codes), num, 0), "is_known": np.repeat(np.asarray(known.mask), num, 0)}


def check_drawing(config: Config, drawing: Drawing) -> None:
    """Raises ValueError unless these settings can draw from such a model."""
    coded.check_hidden(drawing, config.condition_dropout, "condition_dropout")
    require(
        not is_mixture(config) or (drawing.top_k == 0 and drawing.top_p == 1 and drawing.guidance == 1),
        "top_k, top_p and guidance choose among codes, and this net gives a mixture of logistics: leave them out",
    )


def check_likelihood(config: Config) -> None:
    """Raises ValueError unless the net gives each code a probability given those before it."""
    require(
        not isinstance(config.net, MaskedCodeTransformer),
        "a masked net fills in codes in any order, and says no probability of all of them: take a CodeTransformer",
    )
