"""unCLIP's decoder: from a CLIP image embedding, and a caption where there is one, to a small picture [Ramesh22, sec.
2.1]."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from flaxgen import parallel
from flaxgen.data import Data
from flaxgen.diffusion import losses
from flaxgen.diffusion.edit import inpaint
from flaxgen.diffusion.samplers import ddim_inversion, sample
from flaxgen.nets.clip import TextTower
from flaxgen.nets.decoder import Decoder
from flaxgen.nets.unet import UNet
from flaxgen.train import optim, state
from flaxgen.train.config import require
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.train.run import Run
from flaxgen.types import Condition, Experiment, Loss, Params, PRNGKey
from flaxgen.zoo import embeddings, pictures
from flaxgen.zoo.diffusion import Objective, Sampling
from flaxgen.zoo.diffusion.drawing import Strengths, Subject, draw_many, guided, make_grid, threshold, walk
from flaxgen.zoo.diffusion.model import batch_for
from flaxgen.zoo.diffusion.training import make_denoising_loss, make_net_bind
from flaxgen.zoo.files import Files
from flaxgen.zoo.matching import open_matching
from flaxgen.zoo.process import Process, make_schedule

FILE_NAMES = (embeddings.CLIP_FILE,)
INVERSIONS = 4
"""How often inversion improves its guess of each step: at 25 steps a picture then comes back within a level or two."""
RESAMPLES = 4
"""How often inpainting walks each step, so that the new part comes to fit the old one [Lugmayr22]."""
Task = Literal["draw", "redraw", "invert", "inpaint"]


@dataclass(frozen=True)
class Config(Run):
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
    ema: Ema = Ema()
    accumulate: int = 1
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
        learned, loss = self.net.unet.learned_variance, self.objective.loss
        require(
            loss == "variational" or learned == (loss == "hybrid"),
            f"objective.loss={loss} with net.unet.learned_variance={learned}: hybrid needs one, mse cannot train it",
        )


TYPES = {"UnclipDecoder": Config} | {
    kind.__name__: kind for kind in (Data, Decoder, UNet, TextTower, Process, Objective, Optimizer, Ema, Sampling)
}
"""All that may appear in such a config.json."""


def image_shape(config: Config) -> tuple[int, int, int]:
    """[H W C] of what is drawn."""
    unet = config.net.unet
    return (unet.image_size, unet.image_size, unet.in_channels)


def told(config: Config) -> tuple[str, ...]:
    """What of an example the net is told."""
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
    fields = ("image", *told(config))
    return {name: jax.ShapeDtypeStruct((config.batch_size, *kinds[name][0]), kinds[name][1]) for name in fields}


def apply_net(config: Config, params: Params, x, time, condition: Condition, dropout_key: PRNGKey | None) -> Array:
    """The net's output; with a key it trains, and drops out."""
    rngs = {} if dropout_key is None else {"dropout": dropout_key}
    given: dict[str, Any] = {"text_hidden": None, **condition}
    if given["text_hidden"] is not None:
        given["text_hidden"] = given["text_hidden"].astype(jnp.float32)
    return cast(Array, config.net.apply({"params": params}, x, time, **given, train=dropout_key is not None, rngs=rngs))


def init_params(config: Config, key: PRNGKey) -> Params:
    """Fresh parameters."""
    spec = batch_spec(config)
    given: dict[str, Any] = {"text_hidden": None}
    given |= {name: jnp.zeros((1, *spec[name].shape[1:]), spec[name].dtype) for name in told(config)}
    return config.net.init(key, jnp.zeros((1, *image_shape(config))), jnp.ones(1), **given)["params"]


def make_loss(config: Config, empty: Mapping[str, Any]) -> Loss:
    """The denoising loss, with image embedding and caption hidden each by a draw of its own."""
    no_image, no_text = {"has_image": np.zeros(1, bool)}, {"has_text": np.zeros(1, bool)}
    if not config.net.null_text:
        no_text = {name: empty[name] for name in told(config)[1:]}
    drops = [losses.Drop(config.image_dropout, no_image), losses.Drop(config.text_dropout, no_text)]
    fields = (*told(config), "has_image", *(("has_text",) if config.net.null_text else ()))
    read = losses.read_batch("image", fields, drops)

    def inputs(batch, key):
        given = {**batch, "has_image": jnp.ones(1, bool), "has_text": jnp.ones(1, bool)}
        if config.embedding_noise:
            key, noise_key = jax.random.split(key)
            noised = noise_embedding(batch["image_embedding"], noise_key, config.embedding_noise)
            given["image_embedding"] = noised
        return read(given, key)

    apply, learned = functools.partial(apply_net, config), config.net.unet.learned_variance
    return make_denoising_loss(config.process, config.objective, learned, apply, inputs)


def noise_embedding(embedding: Float[Array, "B D"], key: PRNGKey, largest: float) -> Float[Array, "B D"]:
    """Embeddings of length sqrt(D) with Gaussian noise, at the same length on average: its deviation, one for all of
    them, is uniform between 0 and `largest`. The noise augmentation of [Ho22b, sec. 4.2], with a level not told."""
    level_key, noise_key = jax.random.split(key)
    std = jax.random.uniform(level_key, maxval=largest)
    return (embedding + std * jax.random.normal(noise_key, embedding.shape)) * jax.lax.rsqrt(1 + std**2)


def make_training(config: Config, empty: Mapping[str, Any] | None = None):
    """`init(key)` and `make_step(axis_name)` of the run; without the `empty` caption (text fields with a batch axis of
    1) its step is good for its shapes only."""
    if empty is None:
        empty = {k: np.zeros((1, *v.shape[1:]), v.dtype) for k, v in batch_spec(config).items() if k != "image"}
    return state.make_training(
        functools.partial(init_params, config),
        make_loss(config, empty),
        optim.make_optimizer(config.optimizer, config.steps),
        ema_decay=optim.make_ema_decay(config.ema),
        accumulate=config.accumulate,
    )


def prepare(config: Config, found: Files) -> Files:
    """The name of the CLIP.

    Raises:
        ValueError: if it is not there, or not the one that the run began with.
    """
    return embeddings.check_clip(found, embeddings.load_clip(config.clip).fingerprint)


def build(config: Config, found: Files) -> Experiment:
    """The run.

    Raises:
        ValueError: if the CLIP or the data cannot be read, or do not fit the net.
    """
    cached = embeddings.open_embeddings(config.clip, config.data, config.cache)
    embeddings.check_widths(config.net, config.context, cached)
    empty = {name: value[None] for name, value in cached.empty.items()}
    init, make_step = make_training(config, empty)
    jax.eval_shape(init, jax.random.key(0))
    images = open_matching(config.data, {"image": image_shape(config)}, 0)
    source = embeddings.Joined((images, lambda example: {"image": example["image"]}), (cached, dict))
    here = parallel.jit_plan()

    def preview(state, key):
        shown = [cached[i] for i in range(min(config.sampling.batch, len(cached)))]
        condition = {name: np.stack([example[name] for example in shown]) for name in told(config)}
        drawn = Model(config, state.ema_params, 0, here, found).draw(condition, key, empty=empty)
        return pictures.grid(drawn)

    return Experiment(init, make_step, source, tuple(batch_spec(config)), preview)


def make_draw(config: Config, kind: Sampling, task: Task) -> Callable[[Mapping, Mapping], Float[Array, "H W C"]]:
    """One picture of what `inputs` say, from fresh noise ("draw") or from the noise `x_T` ("redraw"); the noise that
    a picture `image` would come from ("invert"); or `image` [-1, 1] with what `mask` [H W 1] leaves free drawn anew
    ("inpaint"). Its first argument is as `Model.given` makes it."""
    schedule, unet = make_schedule(config.process), config.net.unet
    bind = make_net_bind(config.process, unet.learned_variance, functools.partial(apply_net, config))
    names = (*told(config), "has_image", *(("has_text",) if config.net.null_text else ()))

    def draw(given, inputs):
        condition = {name: inputs[name][None] for name in names}

        def null(condition):
            nothing = {"has_image": jnp.zeros(1, bool)}
            nothing |= {"has_text": jnp.zeros(1, bool)} if config.net.null_text else given["empty"]
            return {**condition, **nothing}

        subject = Subject(schedule, config.process.timesteps, image_shape(config), bind, null)
        strengths = Strengths(given["params"], given["guidance"], given["rescale"], given["interval"], given["eta"])
        denoise = guided(subject, kind, strengths, condition)
        if task == "invert":
            grid = make_grid(subject, kind)[::-1]
            inverse = ddim_inversion(schedule, iterations=INVERSIONS)
            return sample(inverse, threshold(kind)(denoise), inputs["image"][None], grid, inputs["key"])[0]
        if task == "inpaint":
            known, mask = inputs["image"][None], inputs["mask"][None]
            edit = functools.partial(inpaint, schedule=schedule, known=known, mask=mask, resamples=RESAMPLES)
            return walk(subject, kind, given["eta"], denoise, inputs["key"], edit=edit)[0]
        x_T = inputs["x_T"][None] if task == "redraw" else None
        return walk(subject, kind, given["eta"], denoise, inputs["key"], x_T=x_T)[0]

    return draw


@functools.lru_cache(maxsize=16)
def compiled_draw(config: Config, kind: Sampling, task: Task, plan: parallel.Plan):
    """One program, kept for the next call."""
    return plan.compile_map(jax.vmap(make_draw(config, kind, task), (None, 0)), key=(config, kind, task))


@dataclass(frozen=True)
class Model:
    """A trained decoder; `plan` says on which devices it runs."""

    config: Config
    params: Params
    step: int
    plan: parallel.Plan
    found: Files

    def draw(
        self,
        condition: Mapping[str, np.ndarray],
        key: PRNGKey,
        *,
        empty: Mapping[str, np.ndarray],
        sampling: Sampling | None = None,
        task: Task = "draw",
    ) -> Float[np.ndarray, "N H W C"]:
        """A picture [-1, 1] for each row of the condition, as `make_draw` says; what is given beside the image
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
        given = {
            "params": self.params,
            "empty": {name: empty[name] for name in told(self.config)[1:]},
            "guidance": chosen.guidance,
            "rescale": chosen.rescale,
            "interval": chosen.interval,
            "eta": chosen.eta,
        }
        draw = compiled_draw(self.config, replace(chosen.kind(), batch=batch), task, self.plan)
        drawn = draw_many(draw, given, key, inputs, num=num, batch=batch)
        return drawn if task == "invert" else np.clip(drawn, -1, 1)
