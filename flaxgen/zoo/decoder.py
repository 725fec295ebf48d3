"""unCLIP's decoder: from a CLIP image embedding, and a caption where there is one, to a small picture [Ramesh22, sec.
2.1]."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from flaxgen import parallel
from flaxgen.data import Data
from flaxgen.diffusion.edit import inpaint
from flaxgen.diffusion.samplers import ddim_inversion, sample
from flaxgen.family import sheets
from flaxgen.family.batches import Drop, read_batch
from flaxgen.family.companions import Joined, check_companion, companion_file, load_companion
from flaxgen.family.denoising import (
    Objective,
    check_objective,
    check_time_embedding,
    make_apply,
    make_denoising_loss,
    make_net_bind,
)
from flaxgen.family.drawing import batch_for, compile_draw, draw_many
from flaxgen.family.family import Family
from flaxgen.family.matching import open_matching
from flaxgen.family.process import Process, make_schedule
from flaxgen.family.sampling import Sampling, Strengths, Subject, guided, make_grid, threshold, walk
from flaxgen.family.trained import Files, Trained
from flaxgen.nets.decoder import Decoder
from flaxgen.train.config import require
from flaxgen.train.optim import Optimizer
from flaxgen.train.run import GradientRun
from flaxgen.types import Condition, Loss, Params, PRNGKey, Source
from flaxgen.zoo.clip import FAMILY as CLIP

INVERSIONS = 4
"""How often inversion improves its guess of each step: at 25 steps a picture then comes back within a level or two."""
RESAMPLES = 4
"""How often inpainting walks each step, so that the new part comes to fit the old one [Lugmayr22]."""
Task = Literal["draw", "redraw", "invert", "inpaint"]


@dataclass(frozen=True, kw_only=True)
class Config(GradientRun):
    """A decoder's run, on pictures of `data` and their embeddings by the CLIP in the directory `clip`, kept in `cache`
    ("": there); captions have `context` tokens. The image embedding is hidden from the share `image_dropout` of the
    examples, the caption from `text_dropout`, for guidance without a classifier. `embedding_noise` is the largest
    deviation of the noise that image embeddings are given in training, so that those that a prior or a text diff makes
    are read too."""

    data: Data
    net: Decoder
    context: int = 77
    clip: str = ""
    cache: str = ""
    process: Process = Process(schedule="cosine")
    objective: Objective = Objective()
    image_dropout: float = 0.1
    text_dropout: float = 0.5
    embedding_noise: float = 0.0
    optimizer: Optimizer = Optimizer(name="adamw", learning_rate=1.2e-4)
    sampling: Sampling = Sampling(steps=50, guidance=4.0)

    def __post_init__(self):
        super().__post_init__()
        require(0 <= self.image_dropout < 1, f"image_dropout={self.image_dropout}: expected a share in [0, 1)")
        require(0 <= self.text_dropout < 1, f"text_dropout={self.text_dropout}: expected a share in [0, 1)")
        require(self.embedding_noise >= 0, f"embedding_noise={self.embedding_noise}: expected 0 (none) or more")
        require(
            not (self.data.flip or self.data.random_crop),
            "data.flip and data.random_crop change a picture but not its embedding: set both false",
        )
        check_objective(self.objective, self.process, self.net.unet.learned_variance, "net.unet")
        check_time_embedding(self.net.unet.time_embedding, self.process, "net.unet")


def check(config: Config) -> None:
    """Raises ValueError if the decoder would be shown less of a picture than the CLIP is."""
    data = config.data
    require(
        not data.image_size or data.resize in (0, data.image_size),
        f"data.resize={data.resize} cuts the middle {data.image_size} pixels out of a picture, and its CLIP embedding "
        "is of all of it: set data.resize=0",
    )


def image_shape(config: Config) -> tuple[int, int, int]:
    """[H W C] of what is drawn."""
    unet = config.net.unet
    return (unet.image_size, unet.image_size, unet.in_channels)


def condition_fields(config: Config) -> tuple[str, ...]:
    """What of an example the net reads beside the picture."""
    text = "text_hidden" if config.net.text is None else "text_ids"
    return ("image_embedding", "text_embedding", text, "text_mask")


def batch_spec(config: Config) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of a batch as the loader gives it."""
    net, context = config.net, config.context
    kinds = {
        "image": (image_shape(config), jnp.uint8),
        "image_embedding": ((net.embedding_dim,), jnp.float32),
        "text_embedding": ((net.embedding_dim,), jnp.float32),
        "text_hidden": ((context, net.text_dim), jnp.float16),
        "text_ids": ((context,), jnp.int32),
        "text_mask": ((context,), jnp.bool_),
    }
    fields = ("image", *condition_fields(config))
    return {name: jax.ShapeDtypeStruct((config.batch_size, *kinds[name][0]), kinds[name][1]) for name in fields}


def _read(condition: Condition) -> dict[str, Any]:
    """The net's keywords; hidden states are kept in half precision, and a net with a text tower of its own has none."""
    hidden = condition.get("text_hidden")
    return {**condition, "text_hidden": None if hidden is None else hidden.astype(jnp.float32)}


def init_params(config: Config, key: PRNGKey) -> Params:
    """Fresh parameters."""
    spec = batch_spec(config)
    given: dict[str, Any] = {"text_hidden": None}
    given |= {name: jnp.zeros((1, *spec[name].shape[1:]), spec[name].dtype) for name in condition_fields(config)}
    return config.net.init(key, jnp.zeros((1, *image_shape(config))), jnp.ones(1), **given)["params"]


def make_loss(config: Config, files: Files) -> Loss:
    """The denoising loss, with image embedding and caption hidden each by a draw of its own."""
    if files:
        empty = {name: value[None] for name, value in open_embeddings(config).empty.items()}
    else:
        empty = {k: np.zeros((1, *v.shape[1:]), v.dtype) for k, v in batch_spec(config).items() if k != "image"}
    no_image, no_text = {"has_image": np.zeros(1, bool)}, {"has_text": np.zeros(1, bool)}
    if not config.net.null_text:
        no_text = {name: empty[name] for name in condition_fields(config)[1:]}
    drops = [Drop(config.image_dropout, no_image), Drop(config.text_dropout, no_text)]
    fields = (*condition_fields(config), "has_image", *(("has_text",) if config.net.null_text else ()))
    read = read_batch("image", fields, drops)

    def inputs(batch, key):
        given = {**batch, "has_image": jnp.ones(1, bool), "has_text": jnp.ones(1, bool)}
        if config.embedding_noise:
            key, noise_key = jax.random.split(key)
            noised = noise_embedding(batch["image_embedding"], noise_key, config.embedding_noise)
            given["image_embedding"] = noised
        return read(given, key)

    learned, apply = config.net.unet.learned_variance, make_apply(config.net, _read)
    return make_denoising_loss(config.process, config.objective, learned, apply, inputs)


def noise_embedding(embedding: Float[Array, "B D"], key: PRNGKey, largest: float) -> Float[Array, "B D"]:
    """Embeddings of length sqrt(D) with Gaussian noise, at the same length on average: its deviation, one for all of
    them, is uniform between 0 and `largest`. The noise augmentation of [Ho22b, sec. 4.2], with a level that the net
    does not read."""
    level_key, noise_key = jax.random.split(key)
    std = jax.random.uniform(level_key, maxval=largest)
    return (embedding + std * jax.random.normal(noise_key, embedding.shape)) * jax.lax.rsqrt(1 + std**2)


def prepare(config: Config, found: Files) -> Files:
    """The name of the CLIP.

    Raises:
        ValueError: if it is not there, or not the one that the run began with.
    """
    return check_companion(found, "CLIP", load_companion(CLIP, config.clip).fingerprint)


def open_embeddings(config: Config) -> Any:
    """The embeddings of the data by the run's CLIP.

    Raises:
        ValueError: if the CLIP or the data cannot be read, or do not fit the net.
    """
    source = load_companion(CLIP, config.clip).cached(config.data, config.cache)
    source.check_widths(config.net, config.context)
    return source


def open_joined(family: Family, config: Config, files: Files) -> Source:
    """The pictures of the data with their embeddings."""
    cached = open_embeddings(config)
    images = open_matching(config.data, {"image": image_shape(config)}, 0)
    return Joined((images, lambda example: {"image": example["image"]}), (cached, dict))


def preview(model: "Model", key: PRNGKey) -> np.ndarray:
    """What a run draws of the first examples now."""
    config, cached = model.config, open_embeddings(model.config)
    shown = [cached[i] for i in range(min(config.sampling.batch, len(cached)))]
    condition = {name: np.stack([example[name] for example in shown]) for name in condition_fields(config)}
    empty = {name: value[None] for name, value in cached.empty.items()}
    return sheets.grid(model.generate(condition, key, empty=empty))


def make_draw(config: Config, kind: Sampling, task: Task) -> Callable[[Mapping, Mapping], Float[Array, "H W C"]]:
    """One picture of what `inputs` say, from fresh noise ("draw") or from the noise `x_T` ("redraw"); the noise that
    a picture `image` would come from ("invert"); or `image` [-1, 1] with what `mask` [H W 1] leaves free drawn anew
    ("inpaint"). Its first argument is as `Model.generate` makes it."""
    schedule, unet = make_schedule(config.process), config.net.unet
    bind = make_net_bind(config.process, unet.learned_variance, make_apply(config.net, _read))
    names = (*condition_fields(config), "has_image", *(("has_text",) if config.net.null_text else ()))

    def draw(arguments, inputs):
        condition = {name: inputs[name][None] for name in names}

        def null(condition):
            nothing = {"has_image": jnp.zeros(1, bool)}
            nothing |= {"has_text": jnp.zeros(1, bool)} if config.net.null_text else arguments["empty"]
            return {**condition, **nothing}

        subject = Subject(schedule, config.process.timesteps, image_shape(config), bind, null)
        strengths = Strengths(
            arguments["params"], arguments["guidance"], arguments["rescale"], arguments["interval"], arguments["eta"]
        )
        denoise = guided(subject, kind, strengths, condition)
        if task == "invert":
            grid = make_grid(subject, kind)[::-1]
            inverse = ddim_inversion(schedule, iterations=INVERSIONS)
            return sample(inverse, threshold(kind)(denoise), inputs["image"][None], grid, inputs["key"])[0]
        if task == "inpaint":
            known, mask = inputs["image"][None], inputs["mask"][None]
            edit = functools.partial(inpaint, schedule=schedule, known=known, mask=mask, resamples=RESAMPLES)
            return walk(subject, kind, arguments["eta"], denoise, inputs["key"], edit=edit)[0]
        x_T = inputs["x_T"][None] if task == "redraw" else None
        return walk(subject, kind, arguments["eta"], denoise, inputs["key"], x_T=x_T)[0]

    return draw


@functools.lru_cache(maxsize=16)
def compiled_draw(config: Config, kind: Sampling, task: Task, plan: parallel.Plan):
    """One program, kept for the next call."""
    return compile_draw(plan, make_draw(config, kind, task), (config, kind, task))


class Model(Trained):
    """A trained decoder."""

    config: Config

    def generate(
        self,
        condition: Mapping[str, np.ndarray],
        key: PRNGKey,
        *,
        empty: Mapping[str, np.ndarray],
        sampling: Sampling | None = None,
        task: Task = "draw",
    ) -> Float[np.ndarray, "N H W C"]:
        """A picture [-1, 1] for each row of the condition, as `make_draw` says; what there is beside the image
        embedding and the caption's fields depends on the task. `has_image` and `has_text` [N] hide one or the other;
        `empty` are the text fields of the empty caption, [1 ...].

        Raises:
            ValueError: if guidance is asked of a decoder that was not trained for it.
        """
        chosen = sampling or self.config.sampling
        require(
            chosen.guidance == 1 or min(self.config.image_dropout, self.config.text_dropout) > 0,
            f"guidance={chosen.guidance} needs a decoder trained with image_dropout and text_dropout, this one was not",
        )
        num = len(condition["image_embedding"])
        batch = batch_for(num, chosen.batch, self.plan.devices)
        ones = np.ones(num, bool)
        inputs = {"has_image": ones, "has_text": ones, **condition}
        arguments = {
            "params": self.params,
            "empty": {name: empty[name] for name in condition_fields(self.config)[1:]},
            "guidance": chosen.guidance,
            "rescale": chosen.rescale,
            "interval": chosen.interval,
            "eta": chosen.eta,
        }
        draw = compiled_draw(self.config, replace(chosen.kind(), batch=batch), task, self.plan)
        drawn = draw_many(draw, arguments, key, inputs, num=num, batch=batch)
        return drawn if task == "invert" else np.clip(drawn, -1, 1)


FAMILY = Family(
    name="decoder",
    type_name="UnclipDecoder",
    config=Config,
    init_params=init_params,
    batch_spec=batch_spec,
    make_loss=make_loss,
    open_source=open_joined,
    check=check,
    prepare=prepare,
    files=(companion_file("CLIP"),),
    free=frozenset({"sampling", "clip", "cache"}),
    preview=preview,
    model=Model,
    instead="draws from CLIP embeddings alone: draw with the unCLIP that `flaxgen compose` makes of it and the other "
    "stages",
)
